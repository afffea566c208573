#include "engine/model_package.h"

#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "io/mapped_file.h"

namespace gov {
namespace {

namespace fs = std::filesystem;
using simdjson::dom::element;

constexpr std::uint64_t kMostJsonBytes = std::uint64_t{16} << 20;
constexpr const char* kGenerationConfig = "generation_config.json";

fs::path root_of(const fs::path& folder) { return fs::is_directory(folder) ? folder : folder.parent_path(); }

// A JSON object from a file that may be missing.
class JsonFile {
 public:
  explicit JsonFile(fs::path path) : path_(std::move(path)) {
    if (!fs::exists(path_)) return;
    const simdjson::padded_string text(read_text_file(path_, kMostJsonBytes));
    if (parser_.parse(text).get(root_) != simdjson::SUCCESS || !root_.is_object()) {
      fail(ErrorCode::kCorrupt, "{} is not a JSON object", path_.string());
    }
    found_ = true;
  }

  // The value of a key; empty if the key is missing or null.
  std::optional<element> find(std::string_view key) const {
    element value;
    if (!found_ || root_.at_key(key).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
    return value;
  }
  [[noreturn]] void wrong(std::string_view key, std::string_view wanted) const {
    fail(ErrorCode::kCorrupt, "{}: {} must be {}", path_.string(), key, wanted);
  }
  std::optional<double> number(std::string_view key) const {
    const auto value = find(key);
    if (!value) return std::nullopt;
    double out = 0;
    if (!value->is_number() || value->get(out) != simdjson::SUCCESS) wrong(key, "a number");
    return out;
  }

 private:
  fs::path path_;
  simdjson::dom::parser parser_;
  element root_;
  bool found_ = false;
};

// One id or a list of them.
std::vector<std::int64_t> read_ids(const JsonFile& file, std::string_view key) {
  constexpr std::size_t kMostIds = 1024;
  const auto value = file.find(key);
  if (!value) return {};
  std::vector<std::int64_t> ids;
  const auto add = [&](const element& item) {
    std::int64_t id = 0;
    if (!item.is_int64() || item.get(id) != simdjson::SUCCESS) file.wrong(key, "an id or a list of ids");
    ids.push_back(id);
  };
  simdjson::dom::array list;
  if (value->get(list) != simdjson::SUCCESS) {
    add(*value);
    return ids;
  }
  if (list.size() > kMostIds) file.wrong(key, fmt::format("at most {} ids", kMostIds));
  for (const element item : list) add(item);
  return ids;
}

std::vector<std::int32_t> stop_ids(const Config& config, const fs::path& root) {
  std::vector<std::int64_t> all = config.eos_token_ids;
  const std::vector<std::int64_t> more = read_ids(JsonFile(root / kGenerationConfig), "eos_token_id");
  all.insert(all.end(), more.begin(), more.end());
  std::vector<std::int32_t> ids;
  for (const std::int64_t id : all) {
    const std::int32_t small = static_cast<std::int32_t>(id);
    if (id < 0 || id >= config.vocab_size || std::find(ids.begin(), ids.end(), small) != ids.end()) continue;
    ids.push_back(small);
  }
  return ids;
}

Preprocessor load_preprocessor(const Config& config, const fs::path& root) {
  const fs::path path = root / "preprocessor_config.json";
  const int side = static_cast<int>(config.vision.image_size);
  if (!fs::exists(path)) return Preprocessor::for_size(side);
  const std::string text = read_text_file(path, kMostJsonBytes);
  std::optional<Preprocessor> preprocessor;
  try {
    preprocessor = Preprocessor::from_json(text);
  } catch (const Error& error) {
    fail(error.code(), "{}: {}", path.string(), error.what());
  }
  if (config.use_vision && (preprocessor->out_height() != side || preprocessor->out_width() != side)) {
    fail(ErrorCode::kInvalidArgument, "{}: makes pictures of {} x {}, the model takes {} x {}", path.string(),
         preprocessor->out_width(), preprocessor->out_height(), side, side);
  }
  return *preprocessor;
}

Tokenizer load_tokenizer(const Config& config, const fs::path& root) {
  Tokenizer tokenizer = Tokenizer::load(root);
  if (tokenizer.vocab_size() > config.vocab_size) {
    fail(ErrorCode::kInvalidArgument, "{}: the tokenizer has ids up to {}, the model's vocabulary ends at {}",
         root.string(), tokenizer.vocab_size() - 1, config.vocab_size - 1);
  }
  return tokenizer;
}

// Beside the tokenizer as a file of its own, or inside its configuration.
std::optional<std::string> load_chat_template(const fs::path& root) {
  const fs::path file = root / "chat_template.jinja";
  if (fs::exists(file)) return read_text_file(file, kMostJsonBytes);
  const JsonFile config(root / "tokenizer_config.json");
  const auto value = config.find("chat_template");
  std::string_view text;
  // A list of named templates is left alone: none of them is ever run.
  if (!value || value->get(text) != simdjson::SUCCESS) return std::nullopt;
  return std::string(text);
}

}  // namespace

ModelPackage load_package(const fs::path& folder, ThreadPool& pool, const Log& log) {
  const fs::path root = root_of(folder);
  Model model = load_model(folder, pool, log);
  Tokenizer tokenizer = load_tokenizer(model.config, root);
  Preprocessor preprocessor = load_preprocessor(model.config, root);
  std::vector<std::int32_t> ids = stop_ids(model.config, root);
  const ChatFormat format = default_chat_format(tokenizer);
  return {root, std::move(model), std::move(tokenizer), preprocessor, std::move(ids), load_chat_template(root), format};
}

ops::SamplingParams default_sampling(const fs::path& folder) {
  const JsonFile file(root_of(folder) / kGenerationConfig);
  bool sample = false;
  if (const auto value = file.find("do_sample"); value && value->get(sample) != simdjson::SUCCESS) {
    file.wrong("do_sample", "true or false");
  }
  // A number in a range that the sampler takes, or what holds without the key.
  const auto read = [&](const char* key, double low, bool low_too, double high, const char* rule, float missing) {
    const auto value = file.number(key);
    if (!value) return missing;
    if (!(*value >= low && *value <= high) || (*value == low && !low_too)) file.wrong(key, rule);
    return static_cast<float>(*value);
  };
  constexpr double kLargest = 1e6;
  ops::SamplingParams p;
  p.temperature = read("temperature", 0, true, kLargest, "0 to 1,000,000", 1.f);
  if (!sample) p.temperature = 0.f;
  p.top_k = static_cast<int>(read("top_k", 0, true, kLargest, "0 to 1,000,000", 0.f));
  p.top_p = read("top_p", 0, false, 1, "more than 0 and at most 1", 1.f);
  p.min_p = read("min_p", 0, true, 1, "0 to 1", 0.f);
  p.typical_p = read("typical_p", 0, false, 1, "more than 0 and at most 1", 1.f);
  p.repetition_penalty = read("repetition_penalty", 0, false, kLargest, "more than 0 and at most 1,000,000", 1.f);
  return p;
}

}  // namespace gov
