#include "cli/common.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "io/mapped_file.h"

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

void add_memory_options(CLI::App& app, CommonOptions& o) {
  app.add_option("--dtype", o.dtype, "Type of activations: auto or f32 (bf16 is not available on the CPU)")
      ->check(CLI::IsMember({"auto", "f32", "bf16"}))
      ->type_name("TYPE")
      ->capture_default_str();
  app.add_option("--kv-dtype", o.kv_dtype, "Type of cached keys and values: f32 or bf16 (half the memory)")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->type_name("TYPE")
      ->capture_default_str();
  app.add_option("-c,--context", o.context, "Most positions of one sequence; 0 = the model's, less if memory is short")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 24))
      ->type_name("N")
      ->capture_default_str();
  add_size(app, "--memory-limit", o.memory_limit,
           "Memory to use at most, e.g. 24GiB; default: what the machine has free");
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

void check_device(const CommonOptions& o) {
  if (o.device == "auto" || o.device == "cpu") return;
  if (o.device == "cuda" || o.device.starts_with("cuda:")) {
    fail(ErrorCode::kUnsupported, "--device {}: this program was built without CUDA", printable(o.device));
  }
  fail(ErrorCode::kInvalidArgument, "--device {}: expected auto, cpu or cuda[:N]", printable(o.device));
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

DType kv_dtype_of(const CommonOptions& o) { return o.kv_dtype == "bf16" ? DType::kBF16 : DType::kF32; }

EngineOptions engine_options(const CommonOptions& o) {
  if (o.dtype == "bf16") {
    fail(ErrorCode::kUnsupported,
         "--dtype bf16: activations are f32 on the CPU (weights keep the type they are stored in)");
  }
  EngineOptions options;
  options.context = o.context;
  options.kv_dtype = kv_dtype_of(o);
  options.memory_limit = o.memory_limit;
  return options;
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

Session open_session(const CommonOptions& o, const Program& program, std::int64_t max_sequences) {
  check_device(o);
  EngineOptions options = engine_options(o);
  options.max_sequences = max_sequences;
  const CpuIsa isa = choose_isa(o);
  const Log log = make_log(o);
  Session session;
  session.pool = std::make_unique<ThreadPool>(o.threads);
  session.package = std::make_unique<ModelPackage>(load_package(resolve_model(o.model, program), *session.pool, log));
  const ModelPackage& package = *session.package;
  session.engine =
      std::make_unique<Engine>(package.model, &package.tokenizer, package.stop_ids, options, *session.pool, log);
  session.engine->context().isa = isa;
  return session;
}

}  // namespace gov::cli
