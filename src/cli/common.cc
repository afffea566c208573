#include "cli/common.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <future>
#include <iostream>

#include "base/timer.h"
#include "cli/format.h"
#include "cli/progress.h"
#include "engine/cache_size.h"
#include "io/mapped_file.h"
#include "model/device_weights.h"
#include "model/memory_plan.h"

namespace gov::cli {
namespace {

constexpr std::uint64_t kMaxTextBytes = 64u << 20;

bool is_model_folder(const std::filesystem::path& folder) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(folder / "config.json", ignored);
}

std::string read_stdin() {
  std::string text;
  char buffer[1 << 16];
  for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, stdin)) > 0;) {
    text.append(buffer, n);
    if (text.size() > kMaxTextBytes) fail(ErrorCode::kInvalidArgument, "standard input holds more than 64 MiB");
  }
  if (std::ferror(stdin)) fail(ErrorCode::kIo, "standard input cannot be read");
  return text;
}

}  // namespace

void add_model_option(CLI::App& app, CommonOptions& o) {
  app.add_option(
         "-m,--model", o.model,
         "Model folder (config.json, safetensors, tokenizer); default: $GPT_OSS_VISION_MODEL, else the embedded nano")
      ->type_name("FOLDER");
}

void add_machine_options(CLI::App& app, CommonOptions& o) {
  app.add_option("--device", o.device, "auto, cpu or cuda[:N]")->type_name("NAME")->capture_default_str();
  app.add_option("--isa", o.isa, "Instruction set of the kernels; auto takes the best this processor has")
      ->check(CLI::IsMember({"auto", "baseline", "avx2", "avx512"}))
      ->type_name("NAME")
      ->capture_default_str();
  app.add_option("-t,--threads", o.threads, "Threads; 0 = one per usable core")
      ->check(CLI::Range(0, 1024))
      ->type_name("N")
      ->capture_default_str();
}

void add_type_options(CLI::App& app, CommonOptions& o) {
  app.add_option("--dtype", o.dtype, "Type of activations: f32, or bf16 on a GPU; auto: f32 on the CPU, bf16 on a GPU")
      ->check(CLI::IsMember({"auto", "f32", "bf16"}))
      ->type_name("TYPE")
      ->capture_default_str();
  app.add_option(
         "--kv-dtype", o.kv_dtype,
         "Type of cached keys and values: f32, bf16 (half the memory), or fp8 on a GPU (a quarter); auto: as --dtype")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "fp8"}))
      ->type_name("TYPE")
      ->capture_default_str();
  app.add_option("--experts", o.experts, "On a GPU: mxfp4 as stored, or bf16 beside it for large batches; auto: mxfp4")
      ->check(CLI::IsMember({"auto", "mxfp4", "bf16"}))
      ->type_name("FORM")
      ->capture_default_str();
}

void add_decode_option(CLI::App& app, CommonOptions& o) {
  app.add_option("--decode-path", o.decode_path,
                 "On a GPU, how a single sequence's tokens are made: op by op, fused, or fused with int8 attention and "
                 "head weights; auto: fused where the model allows it")
      ->check(CLI::IsMember({"auto", "ops", "fused", "fused-int8"}))
      ->type_name("PATH")
      ->capture_default_str();
}

void add_memory_options(CLI::App& app, CommonOptions& o) {
  add_type_options(app, o);
  add_decode_option(app, o);
  app.add_option("-c,--context", o.context, "Most positions of one sequence; 0 = the model's, less if memory is short")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 24))
      ->type_name("N")
      ->capture_default_str();
  add_size(app, "--memory-limit", o.memory_limit,
           "Memory of the machine or its GPU to use at most, e.g. 24GiB; default: what is free");
}

void add_output_options(CLI::App& app, CommonOptions& o) {
  app.add_flag("--json", o.json, "Print JSON for programs instead of text");
  app.add_flag("-q,--quiet", o.quiet, "No warnings and no progress bar");
  app.add_flag("-v,--verbose", o.verbose, "Notes and figures on standard error");
}

CLI::Option* add_repeatable(CLI::App& app, const std::string& names, std::vector<std::string>& values,
                            const std::string& help) {
  return app
      .add_option(names, CLI::callback_t([&values](const CLI::results_t& texts) {
                    values = texts;
                    return true;
                  }),
                  help)
      ->type_name("TEXT")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
}

CLI::Option* add_size(CLI::App& app, const std::string& name, std::uint64_t& bytes, const std::string& help) {
  return app
      .add_option(name, CLI::callback_t([&bytes](const CLI::results_t& texts) {
                    const auto size = parse_size(texts.back());
                    if (size) bytes = *size;
                    return size.has_value();
                  }),
                  help)
      ->type_name("SIZE");
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !(value >= 0)) return std::nullopt;
  std::string unit;
  for (const char* p = end; p != text.data() + text.size(); ++p) {
    if (*p != ' ') unit += static_cast<char>(std::toupper(static_cast<unsigned char>(*p)));
  }
  static constexpr std::string_view kPrefixes = "KMGT";
  double factor = 1;
  if (!unit.empty() && unit != "B") {
    const auto power = kPrefixes.find(unit[0]);
    if (power == std::string_view::npos) return std::nullopt;
    const std::string rest = unit.substr(1);
    if (!rest.empty() && rest != "B" && rest != "I" && rest != "IB") return std::nullopt;
    const double base = rest == "B" ? 1000 : 1024;
    for (std::size_t i = 0; i <= power; ++i) factor *= base;
  }
  const double bytes = value * factor;
  if (!(bytes < 9e18)) return std::nullopt;
  return static_cast<std::uint64_t>(bytes);
}

std::filesystem::path find_nano(const Program& program) {
  auto installed = program.executable.parent_path().parent_path() / "share/gpt-oss-vision/models/nano";
  if (is_model_folder(installed)) return installed;
  const std::filesystem::path source = GOV_SOURCE_MODELS "/nano";
  return is_model_folder(source) ? source : std::filesystem::path();
}

std::filesystem::path resolve_model(const std::string& given, const Program& program) {
  std::string wanted = given;
  if (wanted.empty()) {
    if (const char* variable = std::getenv("GPT_OSS_VISION_MODEL"); variable != nullptr) wanted = variable;
  }
  if (wanted.empty()) {
    auto nano = find_nano(program);
    if (nano.empty())
      fail(ErrorCode::kNotFound, "the embedded model nano is not installed; name a folder with --model");
    return nano;
  }
  std::error_code ignored;
  if (!std::filesystem::exists(wanted, ignored)) fail(ErrorCode::kNotFound, "no model folder '{}'", printable(wanted));
  if (!std::filesystem::is_directory(wanted, ignored)) {
    fail(ErrorCode::kInvalidArgument, "'{}' is not a model folder", printable(wanted));
  }
  if (!is_model_folder(wanted)) fail(ErrorCode::kNotFound, "'{}' holds no config.json", printable(wanted));
  return wanted;
}

std::string Machine::name() const { return on_cuda() ? cuda_device_info(ordinal).name : cpu_info().model; }

Machine choose_machine(const CommonOptions& o) {
  if (o.device == "cpu") return {};
  if (o.device == "auto") return {cuda_device_count() > 0 ? DeviceKind::kCuda : DeviceKind::kCpu, 0};
  if (o.device != "cuda" && !o.device.starts_with("cuda:")) {
    fail(ErrorCode::kInvalidArgument, "--device {}: expected auto, cpu or cuda[:N]", printable(o.device));
  }
  Machine machine{DeviceKind::kCuda, 0};
  if (o.device != "cuda") {
    const char* const begin = o.device.data() + 5;
    const char* const end = o.device.data() + o.device.size();
    const auto [stop, error] = std::from_chars(begin, end, machine.ordinal);
    if (error != std::errc() || stop != end || machine.ordinal < 0)
      fail(ErrorCode::kInvalidArgument, "--device {}: expected auto, cpu or cuda[:N]", printable(o.device));
  }
  if (!built_with_cuda())
    fail(ErrorCode::kUnsupported, "--device {}: this program was built without CUDA", printable(o.device));
  cuda_device_info(machine.ordinal);  // Error kDevice if there is no such GPU
  return machine;
}

CpuIsa choose_isa(const CommonOptions& o) {
  const CpuIsa best = cpu_info().best;
  for (const CpuIsa isa : {CpuIsa::kBaseline, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (o.isa != cpu_isa_name(isa)) continue;
    if (isa > best) fail(ErrorCode::kUnsupported, "--isa {}: this processor has {} at best", o.isa, cpu_isa_name(best));
    return isa;
  }
  return best;
}

DType dtype_of(const CommonOptions& o, const Machine& machine) {
  if (o.dtype == "bf16" && !machine.on_cuda()) {
    fail(ErrorCode::kUnsupported,
         "--dtype bf16: activations are f32 on the CPU (weights keep the type they are stored in)");
  }
  return machine.on_cuda() && o.dtype != "f32" ? DType::kBF16 : DType::kF32;
}

DType kv_dtype_of(const CommonOptions& o, const Machine& machine) {
  if (o.kv_dtype == "auto") return dtype_of(o, machine);
  if (o.kv_dtype == "bf16") return DType::kBF16;
  if (o.kv_dtype == "f32") return DType::kF32;
  if (!machine.on_cuda()) fail(ErrorCode::kUnsupported, "--kv-dtype fp8: the CPU has f32 and bf16 caches");
  return DType::kF8E4M3;
}

EngineOptions engine_options(const CommonOptions& o, const Machine& machine) {
  EngineOptions options;
  options.dtype = dtype_of(o, machine);
  options.kv_dtype = kv_dtype_of(o, machine);
  options.context = o.context;
  options.memory_limit = o.memory_limit;
  options.decode_path = o.decode_path;
  if (!machine.on_cuda() && o.decode_path != "auto")
    fail(ErrorCode::kUnsupported, "--decode-path {}: the CPU has one way of decoding", o.decode_path);
  if (machine.on_cuda()) {
    options.chunk = 4096;     // where the weights' products are bound by arithmetic
    options.block_size = 64;  // whole lines of the cache for the copy engines, short block tables
  }
  return options;
}

Workplace::Workplace(const Machine& machine, ThreadPool& pool, CpuIsa isa) {
  if (machine.on_cuda()) {
    use_cuda_device(machine.ordinal);
    stream = Stream::create();
    ctx = Context(machine.ordinal, stream.get());
  }
  ctx.pool = &pool;
  ctx.isa = isa;
}

namespace {

// The plan of an engine on a GPU, before anything is there; forms: the weights.
MemoryPlan plan_on_device(const Config& config, const WeightForms& forms, const EngineOptions& options,
                          const Machine& machine) {
  use_cuda_device(machine.ordinal);
  RunShape shape;
  shape.context = options.context > 0 ? options.context : config.max_position_embeddings;
  shape.sequences = 1;  // an engine holds at least one sequence of full length
  shape.logits_rows = Scheduler::most_logits(scheduler_limits(options));
  shape.chunk = std::max(options.chunk, options.max_sequences);
  shape.images = 4;
  shape.kv_dtype = options.kv_dtype;
  shape.block_size = options.block_size;
  shape.place = {DeviceKind::kCuda, options.dtype};
  const std::uint64_t limit = options.memory_limit > 0 ? options.memory_limit : cuda_free_memory();
  MemoryPlan plan = plan_memory(config, 0, forms.total(), shape, limit);
  plan.forms = forms;
  return plan;
}

// Whether experts are to be unpacked beside their stored form. Error kOutOfMemory when the weights cannot fit at all.
bool choose_expansion(const Config& config, WeightForms forms, const CommonOptions& o, const EngineOptions& options,
                      const Machine& machine) {
  const Log log = make_log(o);
  EngineOptions least = options;
  least.chunk = std::min<std::int64_t>(options.chunk, 512);
  if (least.context == 0) least.context = std::min<std::int64_t>(1024, config.max_position_embeddings);
  require_fits(plan_on_device(config, forms, least, machine));
  MemoryPlan plan = plan_on_device(config, forms, options, machine);
  // The products of large batches take no longer on MXFP4, so the second form is there only if it is asked for.
  const bool expand = config.mxfp4_experts && o.experts == "bf16";
  if (expand) {
    plan.forms.expanded = expanded_expert_bytes(config);
    plan.weights_owned += plan.forms.expanded;
    require_fits(plan);
  }
  log.info("memory of {}, planned for one sequence of {} positions:\n{}", machine.name(),
           options.context > 0 ? options.context : config.max_position_embeddings, plan.str());
  return expand;
}

constexpr double kLongLoad = 2e9;  // bytes below which a bar would only flicker

}  // namespace

Model place_model(Model host, const CommonOptions& o, const EngineOptions& options, const Machine& machine,
                  ThreadPool& pool) {
  if (!machine.on_cuda()) return host;
  const WeightForms forms = weight_forms(host.config, host.weights);
  DeviceOptions device{machine.ordinal, choose_expansion(host.config, forms, o, options, machine), {}};
  const auto total = static_cast<double>(device_weight_bytes(host.config, host.weights));
  CommonOptions quiet = o;
  quiet.quiet = o.quiet || total < kLongLoad;
  Progress progress("loading", total, Progress::Unit::kBytes, quiet);
  device.progress = [&](std::uint64_t done, std::uint64_t) { progress.update(static_cast<double>(done)); };
  const Timer timer;
  Model model = to_device(std::move(host), device, pool);
  const double seconds = timer.seconds();
  make_log(o).info("{} brought to the GPU in {:.3f} s, {:.1f} GB/s", human_bytes(total), seconds,
                   total / seconds / 1e9);
  return model;
}

Model place_random_model(const Config& config, std::uint64_t seed, const CommonOptions& o, const EngineOptions& options,
                         const Machine& machine, ThreadPool& pool) {
  if (!machine.on_cuda()) return random_model(config, seed, pool);
  const bool expand = choose_expansion(config, weight_forms(config), o, options, machine);
  return random_device_model(config, seed, {machine.ordinal, expand, {}});
}

Log make_log(const CommonOptions& o) {
  const bool quiet = o.quiet, verbose = o.verbose;
  return {[quiet, verbose](LogLevel level, std::string_view text) {
    if (level == LogLevel::kWarning ? quiet : !verbose) return;
    fmt::print(stderr, "gpt-oss-vision: {}{}\n", level == LogLevel::kWarning ? "warning: " : "", text);
  }};
}

std::string read_input(const std::string& file) {
  std::string text = file == "-" ? read_stdin() : read_text_file(file, kMaxTextBytes);
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

bool stdin_is_terminal() { return isatty(STDIN_FILENO) != 0; }
bool stdin_is_redirected() {
  struct stat status {};
  return fstat(STDIN_FILENO, &status) == 0 &&
         (S_ISFIFO(status.st_mode) || S_ISREG(status.st_mode) || S_ISSOCK(status.st_mode));
}
bool stderr_is_terminal() { return isatty(STDERR_FILENO) != 0; }

Config load_config(const std::filesystem::path& folder, const Log& log) {
  return parse_config(read_text_file(folder / "config.json", 16u << 20), log);
}

std::future<void> warm_up(const Machine& machine) {
  return std::async(std::launch::async, [machine] {
    if (machine.on_cuda()) use_cuda_device(machine.ordinal);
  });
}

std::vector<float> pixel_values(const Image& image, const Preprocessor& preprocessor) {
  std::vector<float> pixels(std::size_t{3} * static_cast<std::size_t>(preprocessor.out_height()) *
                            static_cast<std::size_t>(preprocessor.out_width()));
  preprocessor.apply(image, pixels.data());
  return pixels;
}

Session open_session(const CommonOptions& o, const Program& program, std::int64_t max_sequences) {
  return open_session(o, program, [&](EngineOptions& options) { options.max_sequences = max_sequences; });
}

Session open_session(const CommonOptions& o, const Program& program,
                     const std::function<void(EngineOptions&)>& adjust) {
  const Machine machine = choose_machine(o);
  EngineOptions options = engine_options(o, machine);
  adjust(options);
  const CpuIsa isa = choose_isa(o);
  const Log log = make_log(o);
  Session session;
  const std::future<void> warm = warm_up(machine);
  session.pool = std::make_unique<ThreadPool>(o.threads);
  session.package = std::make_unique<ModelPackage>(load_package(resolve_model(o.model, program), *session.pool, log));
  ModelPackage& package = *session.package;
  warm.wait();
  package.model = place_model(std::move(package.model), o, options, machine, *session.pool);
  session.engine =
      std::make_unique<Engine>(package.model, &package.tokenizer, package.stop_ids, options, *session.pool, log);
  session.engine->context().isa = isa;
  return session;
}

}  // namespace gov::cli
