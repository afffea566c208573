#include "train/source.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "train/chat_sample.h"
#include "train/nano_source.h"
#include "train/record_index.h"
#include "train/shard.h"

namespace gov::train {
namespace {

namespace fs = std::filesystem;

fs::path image_root(const SourceConfig& config) {
  return config.image_root.empty() ? fs::path(config.path).parent_path() : fs::path(config.image_root);
}

bool is_jsonl(const SourceConfig& config) {
  const std::string extension = fs::path(config.path).extension().string();
  return config.kind != SourceConfig::Kind::kText || extension == ".jsonl" || extension == ".json";
}

ChatRecord parse_record(SourceConfig::Kind kind, std::string_view line) {
  const Json json = Json::parse(line);
  return kind == SourceConfig::Kind::kLlava ? parse_llava_record(json) : parse_openai_record(json);
}

std::string text_of_line(std::string_view line) {
  const Json json = Json::parse(line);
  const Json* text = json.find("text");
  if (!text || !text->is_string()) fail(ErrorCode::kInvalidArgument, "text: a text is missing");
  return text->string();
}

std::shared_ptr<const RecordFile> open_records(const SourceConfig& config) {
  return std::make_shared<const RecordFile>(
      config.path, is_jsonl(config) ? RecordFile::Kind::kLines : RecordFile::Kind::kParagraphs);
}

Source record_source(const SourceConfig& config, std::shared_ptr<const SampleRules> rules) {
  auto file = open_records(config);
  Source source;
  source.size = file->size();
  source.make = [file, rules, config, root = image_root(config)](std::int64_t index, std::int64_t) {
    std::vector<Sample> out;
    if (is_jsonl(config)) out.push_back(jsonl_sample(*rules, config.kind, file->text(index), root));
    else out.push_back(text_sample(*rules, file->text(index)));
    return out;
  };
  source.where = [file](std::int64_t index) {
    return fmt::format("{}:{}", path_text(file->path()), file->line(index));
  };
  return source;
}

Source shard_source(const SourceConfig& config, std::shared_ptr<const SampleRules> rules) {
  auto file = std::make_shared<const ShardFile>(config.path);
  if (file->view().vocab_size > rules->vocab_size)
    fail(ErrorCode::kInvalidArgument, "{}: made for {} tokens, the model has {}", path_text(config.path),
         file->view().vocab_size, rules->vocab_size);
  Source source;
  source.size = file->view().size();
  source.make = [file, rules, root = image_root(config)](std::int64_t index, std::int64_t) {
    const ShardDocument document = shard_document(file->view(), index);
    std::vector<SharedPixels> images;
    for (const std::string_view path : document.images)
      images.push_back(read_image_reference(*rules, std::string(path), root));
    return std::vector<Sample>{with_images(document.sample, images, rules->image_rows)};
  };
  source.where = [file](std::int64_t index) { return fmt::format("{}:{}", path_text(file->path()), index + 1); };
  return source;
}

// The shards of a folder, by name; they share the weight by their sizes.
void append_shards(const SourceConfig& config, const std::shared_ptr<const SampleRules>& rules,
                   std::vector<Source>& out) {
  std::vector<fs::path> paths;
  for (const fs::directory_entry& entry : fs::directory_iterator(config.path))
    if (entry.path().extension() == ".safetensors") paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  if (paths.empty()) fail(ErrorCode::kNotFound, "{} holds no token shards", path_text(config.path));
  const std::size_t first = out.size();
  double total = 0;
  for (const fs::path& path : paths) {
    SourceConfig one = config;
    one.path = path.string();
    if (one.image_root.empty()) one.image_root = config.path;
    out.push_back(open_source(one, rules, 0));
    total += static_cast<double>(out.back().size);
  }
  for (std::size_t i = first; i < out.size(); ++i)
    out[i].weight = config.weight * static_cast<double>(out[i].size) / total;
}

}  // namespace

std::vector<SourceShape> shapes_of(const std::vector<Source>& sources) {
  std::vector<SourceShape> out;
  for (const Source& source : sources) out.push_back({source.size, source.weight});
  return out;
}

Sample text_sample(const SampleRules& rules, std::string_view text) {
  if (!utf8_valid(text)) fail(ErrorCode::kInvalidArgument, "text: not valid UTF-8");
  Sample sample;
  for (const std::int32_t id : rules.tokenizer.encode(text, SpecialTokens::kOrdinary)) sample.add(id, 1);
  if (rules.end_of_text >= 0) sample.add(rules.end_of_text, 1);
  return sample;
}

Sample jsonl_sample(const SampleRules& rules, SourceConfig::Kind kind, std::string_view line, const fs::path& root) {
  if (kind == SourceConfig::Kind::kText) return text_sample(rules, text_of_line(line));
  return chat_sample(rules, parse_record(kind, line), root);
}

Source open_source(const SourceConfig& config, std::shared_ptr<const SampleRules> rules, std::uint64_t seed) {
  Source source;
  switch (config.kind) {
    case SourceConfig::Kind::kNano: source = nano_source(config, rules, seed); break;
    case SourceConfig::Kind::kShard: source = shard_source(config, rules); break;
    default: source = record_source(config, rules);
  }
  source.name = config.path;
  source.weight = config.weight;
  if (config.limit > 0) source.size = std::min(source.size, config.limit);
  if (source.size == 0) fail(ErrorCode::kInvalidArgument, "{} holds no samples", path_text(config.path));
  return source;
}

std::vector<Source> open_sources(const std::vector<SourceConfig>& configs, std::shared_ptr<const SampleRules> rules,
                                 std::uint64_t seed) {
  std::vector<Source> out;
  for (std::size_t i = 0; i < configs.size(); ++i) {
    if (configs[i].kind == SourceConfig::Kind::kShard && fs::is_directory(configs[i].path)) {
      append_shards(configs[i], rules, out);
    } else {
      out.push_back(open_source(configs[i], rules, seed + i));
    }
  }
  return out;
}

namespace {

// A document as a shard keeps it: an image is one row and a path.
Sample document_to_write(const SourceConfig& config, const SampleRules& rules, std::string_view text,
                         std::vector<std::string>& images) {
  if (config.kind == SourceConfig::Kind::kText)
    return text_sample(rules, is_jsonl(config) ? text_of_line(text) : std::string(text));
  ChatRecord record = parse_record(config.kind, text);
  for (const std::string& image : record.images)
    if (image.starts_with("data:")) fail(ErrorCode::kInvalidArgument, "image: a shard holds paths, no data: addresses");
  images = record.images;
  SampleRules one_row = rules;
  one_row.image_rows = 1;
  return chat_sample(one_row, record, std::vector<SharedPixels>(images.size()));
}

}  // namespace

PrepareReport prepare_shards(const SourceConfig& config, const SampleRules& rules, const fs::path& folder,
                             const std::string& stem, std::int64_t max_tokens) {
  if (config.kind == SourceConfig::Kind::kShard || config.kind == SourceConfig::Kind::kNano)
    fail(ErrorCode::kInvalidArgument, "{}: only chat, llava and text files become shards", path_text(config.path));
  const auto file = open_records(config);
  PrepareReport report;
  const auto fresh = [&] { return ShardWriter(rules.vocab_size, rules.tokens.return_token); };
  ShardWriter writer = fresh();
  const auto flush = [&] {
    if (writer.documents() == 0) return;
    writer.write(folder / fmt::format("{}-{:05}.safetensors", stem, report.shards++));
    report.tokens += writer.tokens();
    report.documents += writer.documents();
    writer = fresh();
  };
  const std::int64_t size = config.limit > 0 ? std::min(config.limit, file->size()) : file->size();
  for (std::int64_t i = 0; i < size; ++i) {
    try {
      std::vector<std::string> images;
      const Sample sample = document_to_write(config, rules, file->text(i), images);
      writer.add(sample, images);
    } catch (const Error& e) {
      if (report.bad++ == 0)
        report.first_bad = fmt::format("{}:{}: {}", path_text(file->path()), file->line(i), e.what());
    }
    if (writer.tokens() >= max_tokens) flush();
  }
  flush();
  return report;
}

}  // namespace gov::train
