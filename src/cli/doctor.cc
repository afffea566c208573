// gpt-oss-vision doctor: what this machine has, what will be used of it, and whether it computes rightly.

#include <cstdio>
#include <fstream>
#include <thread>

#include "base/json_writer.h"
#include "cli/chat_input.h"
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

void look_at_gpus(std::vector<Finding>& findings) {
  if (!built_with_cuda()) {
    findings.push_back({"CUDA", "not built in"});
    return;
  }
  const int count = cuda_device_count();
  if (count == 0) findings.push_back({"CUDA", "built in, but there is no GPU or no driver"});
  for (int i = 0; i < count; ++i) {
    const DeviceInfo& gpu = cuda_device_info(i);
    use_cuda_device(i);
    findings.push_back({fmt::format("GPU {}", i),
                        fmt::format("{}, compute capability {}.{}, {} multiprocessors, {} free of {}, driver {}.{}",
                                    gpu.name, gpu.capability / 10, gpu.capability % 10, gpu.multiprocessors,
                                    human_bytes(static_cast<double>(cuda_free_memory())),
                                    human_bytes(static_cast<double>(gpu.total_memory)), gpu.driver_version / 1000,
                                    gpu.driver_version % 1000 / 10)});
  }
}

void look_at_machine(std::vector<Finding>& findings, const DoctorOptions& o, const Machine& machine, ThreadPool& pool) {
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
  look_at_gpus(findings);
  findings.push_back({"picture decoders", image_libraries()});
  findings.push_back({"line editing of chat", line_editor_name()});
  if (!o.quick) {
    const ops::DeviceLimits limits = ops::measure_device_limits(pool, choose_isa(o.common));
    findings.push_back(
        {"measured limits",
         fmt::format("read {:.1f} GB/s, f32 multiply-add {:.0f} GFLOP/s", limits.read_gbps, limits.fma_gflops),
         limits.read_gbps > 0 && limits.fma_gflops > 0});
    if (machine.on_cuda()) {
      Workplace place(machine, pool, choose_isa(o.common));
      const ops::DeviceLimits gpu = ops::measure_cuda_limits(place.ctx);
      findings.push_back({"measured limits of the GPU",
                          fmt::format("read {:.0f} GB/s, copy {:.0f} GB/s, bf16 products {:.0f} TFLOP/s", gpu.read_gbps,
                                      gpu.copy_gbps, gpu.fma_gflops / 1e3),
                          gpu.read_gbps > 0 && gpu.fma_gflops > 0});
    }
  }
}

void test_ops(std::vector<Finding>& findings, const Machine& machine, ThreadPool& pool) {
  for (const SelfTestResult& result : self_test(pool, machine)) {
    const std::string name = fmt::format("op {} ({})", result.op, result.where);
    if (!result.message.empty()) findings.push_back({name, result.message, false});
    else findings.push_back({name, fmt::format("differs from the reference by {:.1e}", result.error), result.ok});
  }
}

std::string answer_of(Session& session, const std::filesystem::path& picture, const Program& program) {
  const ModelPackage& package = *session.package;
  Request request;
  const Image image = load_image(picture, package.preprocessor.decode_options());
  request.images.push_back(pixel_values(image, package.preprocessor));
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

void test_nano(std::vector<Finding>& findings, const DoctorOptions& o, const Machine& machine, const Program& program) {
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
    findings.push_back({fmt::format("nano, picture of a dog ({})", machine.on_cuda() ? "cuda" : "cpu"), answer,
                        answer == kKnownAnswer});
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
  const Machine machine = choose_machine(o.common);
  std::vector<Finding> findings;
  {
    ThreadPool pool(o.common.threads);
    look_at_machine(findings, o, machine, pool);
    test_ops(findings, machine, pool);
  }
  test_nano(findings, o, machine, program);
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
