#include "train/start_model.h"

#include "io/mapped_file.h"

namespace gov::train {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxJsonBytes = std::uint64_t{16} << 20;

Preprocessor preprocessor_of(const StartFiles& files) {
  const fs::path path = files.folder / "preprocessor_config.json";
  if (!fs::exists(path)) return Preprocessor::for_size(static_cast<int>(files.config.vision.image_size));
  try {
    return Preprocessor::from_json(read_text_file(path, kMaxJsonBytes));
  } catch (const Error& error) {
    fail(error.code(), "{}: {}", path_text(path), error.what());
  }
}

}  // namespace

StartFiles start_files(const TrainConfig& config, const Log& log) {
  StartFiles files;
  files.random = config.model.base.empty();
  const fs::path given = files.random ? config.model.config : config.model.base;
  const char* key = files.random ? "model.config" : "model.base";
  std::error_code ignored;
  if (!fs::exists(given, ignored)) fail(ErrorCode::kNotFound, "{}: no '{}'", key, path_text(given));
  const fs::path file = fs::is_directory(given, ignored) ? given / "config.json" : given;
  if (!fs::exists(file, ignored)) fail(ErrorCode::kNotFound, "{}: no '{}'", key, path_text(file));
  files.folder = file.parent_path();
  files.tokenizer = config.model.tokenizer.empty() ? files.folder : fs::path(config.model.tokenizer);
  files.config = parse_config(read_text_file(file, kMaxJsonBytes), log);
  return files;
}

std::shared_ptr<const SampleRules> rules_of(const StartFiles& files, const DataConfig& data) {
  return std::make_shared<const SampleRules>(
      sample_rules(files.config, Tokenizer::load(files.tokenizer), preprocessor_of(files), data));
}

Model start_weights(const TrainConfig& config, const StartFiles& files, ThreadPool& pool, const Log& log) {
  if (!files.random) {
    Model model = load_model(files.folder, pool, log);
    if (model.config.use_vision != files.config.use_vision)
      fail(ErrorCode::kInvalidArgument, "model.base: '{}' has no image encoder, its config.json says use_vision",
           path_text(files.folder));
    return model;
  }
  Config dense = files.config;
  dense.mxfp4_experts = false;  // codes drawn at random are no normal distribution
  dense.dtype = "float32";
  return random_model(dense, static_cast<std::uint64_t>(config.run.seed), pool);
}

}  // namespace gov::train
