// gpt-oss-vision doctor: what this machine has, what will be used of it, and whether it computes rightly.

#include <cstdio>
#include <fstream>
#include <thread>

#include "base/json_writer.h"
#include "cli/common.h"
#include "cli/format.h"
#include "cli/selftest.h"
#include "image/image.h"
#include "ops/device_limits.h"

namespace gov::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  gpt-oss-vision doctor\n"
    "  gpt-oss-vision doctor --quick          without measuring speeds\n"
    "  gpt-oss-vision doctor --json --threads 4";

constexpr const char* kKnownPicture = "test_pictures/dog_face.png";
constexpr const char* kKnownQuestion = "What is this?";
constexpr const char* kKnownAnswer = "This is a dog face. Related words: adorbs, animal, dog.";

struct DoctorOptions {
  CommonOptions common;
  bool quick = false;
};

struct Finding {
  std::string name, value;
  bool ok = true;
};

std::string first_line(const char* file_name) {
  std::ifstream file(file_name);
  std::string line;
  std::getline(file, line);
  return line.empty() ? "none" : line;
}

void look_at_machine(std::vector<Finding>& findings, const DoctorOptions& o, ThreadPool& pool) {
  const CpuInfo& cpu = cpu_info();
  findings.push_back({"processor", cpu.model});
  findings.push_back(
      {"instruction set", fmt::format("{} (best: {}{}{})", cpu_isa_name(choose_isa(o.common)), cpu_isa_name(cpu.best),
                                      cpu.avx512_bf16 ? ", avx512_bf16" : "", cpu.avx512_vnni ? ", avx512_vnni" : "")});
  findings.push_back({"cores", fmt::format("{} usable of {}", usable_cores(), std::thread::hardware_concurrency())});
  findings.push_back({"threads used", std::to_string(pool.size())});
  findings.push_back({"memory", fmt::format("{} free of {}", human_bytes(static_cast<double>(available_memory())),
                                            human_bytes(static_cast<double>(total_memory())))});
  findings.push_back({"control group", fmt::format("memory.max {}, cpu.max {}", first_line("/sys/fs/cgroup/memory.max"),
                                                   first_line("/sys/fs/cgroup/cpu.max"))});
  findings.push_back({"CUDA", "not built in"});
  findings.push_back({"picture decoders", image_libraries()});
  if (!o.quick) {
    const ops::DeviceLimits limits = ops::measure_device_limits(pool, choose_isa(o.common));
    findings.push_back(
        {"measured limits",
         fmt::format("read {:.1f} GB/s, f32 multiply-add {:.0f} GFLOP/s", limits.read_gbps, limits.fma_gflops),
         limits.read_gbps > 0 && limits.fma_gflops > 0});
  }
}

void test_ops(std::vector<Finding>& findings, ThreadPool& pool) {
  for (const SelfTestResult& result : self_test(pool)) {
    const std::string name = fmt::format("op {} ({})", result.op, cpu_isa_name(result.isa));
    if (!result.message.empty()) findings.push_back({name, result.message, false});
    else findings.push_back({name, fmt::format("differs from the reference by {:.1e}", result.error), result.ok});
  }
}

std::string answer_of(Session& session, const std::filesystem::path& picture, const Program& program) {
  const ModelPackage& package = *session.package;
  Request request;
  std::vector<float> pixels(std::size_t{3} * static_cast<std::size_t>(package.preprocessor.out_height()) *
                            static_cast<std::size_t>(package.preprocessor.out_width()));
  package.preprocessor.apply(load_image(picture, package.preprocessor.decode_options()), pixels.data());
  request.images.push_back(std::move(pixels));
  ChatOptions chat;
  chat.format = package.chat_format;
  const std::vector<ChatMessage> messages{{"user", {{ContentPart::Kind::kText, kKnownQuestion}}}};
  request.prompt = render_chat(package.tokenizer, messages, chat);
  request.options.sampling.temperature = 0;
  request.options.max_new_tokens = 64;
  request.cancel = program.cancel;
  std::vector<Request> requests;
  requests.push_back(std::move(request));
  return generate(*session.engine, std::move(requests)).front().choices.front().text;
}

void test_nano(std::vector<Finding>& findings, const DoctorOptions& o, const Program& program) {
  const auto nano = find_nano(program);
  if (nano.empty()) {
    findings.push_back({"embedded model", "not installed", false});
    return;
  }
  findings.push_back({"embedded model", nano.string()});
  try {
    CommonOptions options = o.common;
    options.model = nano.string();
    Session session = open_session(options, program, 1);
    const std::string answer = answer_of(session, nano / kKnownPicture, program);
    findings.push_back({"nano, picture of a dog", answer, answer == kKnownAnswer});
  } catch (const Error& error) {
    findings.push_back({"nano, picture of a dog", error.what(), false});
  }
}

void print_findings(const std::vector<Finding>& findings, bool ok, bool json_wanted) {
  if (json_wanted) {
    JsonWriter json;
    json.begin_object().field("ok", ok).key("findings").begin_array();
    for (const Finding& finding : findings) {
      json.begin_object()
          .field("name", finding.name)
          .field("value", finding.value)
          .field("ok", finding.ok)
          .end_object();
    }
    put(json.end_array().end_object().take() + "\n");
    return;
  }
  std::string out;
  for (const Finding& finding : findings)
    out += fmt::format("{:<5}{:<52} {}\n", finding.ok ? "ok" : "FAIL", finding.name, finding.value);
  put(out + (ok ? "all is well\n" : "something is wrong: see FAIL above\n"));
}

int run_doctor(const Program& program, const DoctorOptions& o) {
  check_device(o.common);
  std::vector<Finding> findings;
  {
    ThreadPool pool(o.common.threads);
    look_at_machine(findings, o, pool);
    test_ops(findings, pool);
  }
  test_nano(findings, o, program);
  bool ok = true;
  for (const Finding& finding : findings) ok = ok && finding.ok;
  print_findings(findings, ok, o.common.json);
  return ok ? 0 : 1;
}

}  // namespace

void add_doctor(CLI::App& root, Program& program) {
  const auto o = std::make_shared<DoctorOptions>();
  CLI::App& app = *root.add_subcommand("doctor", "What this machine has, what is used of it, and a self-test");
  app.add_flag("--quick", o->quick, "Do not measure speeds");
  add_machine_options(app, o->common);
  add_output_options(app, o->common);
  app.footer(kExamples);
  app.callback([&program, o] { program.action = [&program, o] { return run_doctor(program, *o); }; });
}

}  // namespace gov::cli
