#pragma once
// What the subcommands share: common options, where models are found, opening a model.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "cli/commands.h"
#include "engine/engine.h"
#include "engine/model_package.h"
#include "tensor/device.h"

namespace gov::cli {

struct CommonOptions {
  std::string model;                 // folder; empty: environment, then nano
  std::string device = "auto";       // auto, cpu, cuda, cuda:N
  std::string isa = "auto";          // auto, baseline, avx2, avx512
  int threads = 0;                   // 0: one per usable core
  std::string dtype = "auto";        // of activations
  std::string kv_dtype = "auto";     // auto, f32, bf16, fp8
  std::string experts = "auto";      // on a GPU: auto, mxfp4, bf16
  std::string decode_path = "auto";  // of single sequences on a GPU: auto, ops, fused, fused-int8
  std::int64_t context = 0;          // 0: what the model has and memory allows
  std::uint64_t memory_limit = 0;
  bool json = false, quiet = false, verbose = false;
};

void add_model_option(CLI::App& app, CommonOptions& o);
void add_machine_options(CLI::App& app, CommonOptions& o);  // --device --isa --threads
void add_type_options(CLI::App& app, CommonOptions& o);     // --dtype --kv-dtype --experts
void add_decode_option(CLI::App& app, CommonOptions& o);    // --decode-path
void add_memory_options(CLI::App& app, CommonOptions& o);   // those, --context --memory-limit
void add_output_options(CLI::App& app, CommonOptions& o);   // --json --quiet --verbose

// An option that takes exactly one value each time it is given; the texts are kept as typed, even "" and "[a]".
CLI::Option* add_repeatable(CLI::App& app, const std::string& names, std::vector<std::string>& values,
                            const std::string& help);
// An option whose value is a size such as 24GiB.
CLI::Option* add_size(CLI::App& app, const std::string& name, std::uint64_t& bytes, const std::string& help);

// "24GiB", "24G", "500 MB", "1048576": GiB and G are powers of 1024, GB of 1000. Empty when it is no size.
std::optional<std::uint64_t> parse_size(std::string_view text);

// The folder of the model to use: the one given, else $GPT_OSS_VISION_MODEL, else nano.
std::filesystem::path resolve_model(const std::string& given, const Program& program);
// models/nano beside the executable (../share/gpt-oss-vision) or in the source tree of this build; empty if in neither.
std::filesystem::path find_nano(const Program& program);

// What the model runs on: with auto a GPU if this build and machine have one.
struct Machine {
  DeviceKind device = DeviceKind::kCpu;
  int ordinal = 0;
  bool on_cuda() const { return device == DeviceKind::kCuda; }
  std::string name() const;  // of the processor or the GPU
};
// Error kUnsupported or kDevice when this build or machine lacks what is asked for.
Machine choose_machine(const CommonOptions& o);
CpuIsa choose_isa(const CommonOptions& o);
// Types of activations and of the cache: F32 on the CPU; on a GPU BF16, and an F32 cache for F32 activations. Error
// kUnsupported for what the machine cannot do.
DType dtype_of(const CommonOptions& o, const Machine& machine);
DType kv_dtype_of(const CommonOptions& o, const Machine& machine);
EngineOptions engine_options(const CommonOptions& o, const Machine& machine);

// Wakes the GPU, which takes some tenths of a second, while other things are done.
std::future<void> warm_up(const Machine& machine);

// A context on the machine, with the stream that it needs there.
struct Workplace {
  Workplace(const Machine& machine, ThreadPool& pool, CpuIsa isa);
  Stream stream;
  Context ctx;
};

// Moves a loaded model to the machine: plans the memory for engines of these options, notes the plan, decides on the
// form of the experts, and shows the progress. On the CPU the model stays as it is.
Model place_model(Model host, const CommonOptions& o, const EngineOptions& options, const Machine& machine,
                  ThreadPool& pool);
// The same for random weights of a configuration.
Model place_random_model(const Config& config, std::uint64_t seed, const CommonOptions& o, const EngineOptions& options,
                         const Machine& machine, ThreadPool& pool);
// Warnings to stderr unless quiet, notes too if verbose.
Log make_log(const CommonOptions& o);

// A whole text from a file or, for "-", from standard input; one line break at its end is removed.
std::string read_input(const std::string& file);
bool stdin_is_terminal();
bool stdin_is_redirected();  // a pipe, a socket or a file was put there on purpose
bool stderr_is_terminal();
// config.json of a folder.
Config load_config(const std::filesystem::path& folder, const Log& log);

// A picture as the model takes it: [3, height, width].
std::vector<float> pixel_values(const Image& image, const Preprocessor& preprocessor);

// A model that is ready to answer.
struct Session {
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<ModelPackage> package;
  std::unique_ptr<Engine> engine;
};
// adjust: called with the engine's options, before anything is loaded.
Session open_session(const CommonOptions& o, const Program& program, const std::function<void(EngineOptions&)>& adjust);
Session open_session(const CommonOptions& o, const Program& program, std::int64_t max_sequences);

}  // namespace gov::cli
