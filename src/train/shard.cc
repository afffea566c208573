#include "train/shard.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "base/error.h"
#include "io/safetensors.h"

namespace gov::train {
namespace {

constexpr const char* kFormat = "gov-token-shard-1";

struct Parsed {
  std::span<const std::byte> file;
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;

  const SafetensorsEntry* find(std::string_view name) const {
    for (const SafetensorsEntry& entry : entries)
      if (entry.name == name) return &entry;
    return nullptr;
  }

  template <class T>
  std::span<const T> array(std::string_view name, DType dtype, bool required) const {
    const SafetensorsEntry* entry = find(name);
    if (!entry && !required) return {};
    if (!entry || entry->dtype != dtype || entry->shape.rank() != 1)
      fail(ErrorCode::kCorrupt, "token shard: '{}' must be a list of {}", name, safetensors_dtype_name(dtype));
    if (entry->begin % alignof(T) != 0) fail(ErrorCode::kCorrupt, "token shard: '{}' is not aligned", name);
    return {reinterpret_cast<const T*>(file.data() + entry->begin), entry->bytes() / sizeof(T)};
  }

  std::int64_t number(const std::string& name, std::int64_t low, std::int64_t high) const {
    const auto it = metadata.find(name);
    std::int64_t value = 0;
    const char* end = it == metadata.end() ? nullptr : it->second.data() + it->second.size();
    if (!end || std::from_chars(it->second.data(), end, value).ptr != end || it->second.empty() || value < low ||
        value > high)
      fail(ErrorCode::kCorrupt, "token shard: '{}' must be a number in {}..{}", name, low, high);
    return value;
  }
};

// 0 = starts[0] < or <= ... = last.
void check_starts(std::span<const std::int64_t> starts, std::int64_t last, bool allow_empty, const char* name) {
  bool good = starts.size() >= 2 && starts.front() == 0 && starts.back() == last;
  for (std::size_t i = 1; good && i < starts.size(); ++i)
    good = allow_empty ? starts[i] >= starts[i - 1] : starts[i] > starts[i - 1];
  if (!good) fail(ErrorCode::kCorrupt, "token shard: '{}' must ascend from 0 to {}", name, last);
}

void check_ends(std::span<const std::int64_t> ends, std::int64_t last) {
  std::int64_t before = 0;
  for (const std::int64_t end : ends) {
    if (end <= before) fail(ErrorCode::kCorrupt, "token shard: 'image_ends' must ascend");
    before = end;
  }
  if (before != last) fail(ErrorCode::kCorrupt, "token shard: 'image_ends' must end at {}", last);
}

}  // namespace

ShardView parse_shard(std::span<const std::byte> file) {
  Parsed parsed{file, {}, {}};
  parsed.entries = parse_safetensors(file, &parsed.metadata);
  const auto format = parsed.metadata.find("format");
  if (format == parsed.metadata.end() || format->second != kFormat)
    fail(ErrorCode::kCorrupt, "token shard: the metadata does not say format = {}", kFormat);
  ShardView view;
  view.vocab_size = parsed.number("vocab_size", 1, std::int64_t{1} << 30);
  view.end_token = static_cast<std::int32_t>(parsed.number("end_token", -1, view.vocab_size - 1));
  view.tokens = parsed.array<std::int32_t>("tokens", DType::kI32, true);
  view.mask = parsed.array<std::uint8_t>("mask", DType::kU8, true);
  view.documents = parsed.array<std::int64_t>("documents", DType::kI64, true);
  if (view.mask.size() != view.tokens.size())
    fail(ErrorCode::kCorrupt, "token shard: {} tokens, but {} masks", view.tokens.size(), view.mask.size());
  check_starts(view.documents, static_cast<std::int64_t>(view.tokens.size()), false, "documents");
  if (!parsed.find("image_starts")) return view;
  view.image_starts = parsed.array<std::int64_t>("image_starts", DType::kI64, true);
  view.image_ends = parsed.array<std::int64_t>("image_ends", DType::kI64, true);
  const auto paths = parsed.array<std::uint8_t>("image_paths", DType::kU8, true);
  view.image_paths = {reinterpret_cast<const char*>(paths.data()), paths.size()};
  if (view.image_starts.size() != view.documents.size())
    fail(ErrorCode::kCorrupt, "token shard: {} image_starts for {} documents", view.image_starts.size(), view.size());
  check_starts(view.image_starts, static_cast<std::int64_t>(view.image_ends.size()), true, "image_starts");
  check_ends(view.image_ends, static_cast<std::int64_t>(paths.size()));
  return view;
}

ShardDocument shard_document(const ShardView& shard, std::int64_t index) {
  const auto i = static_cast<std::size_t>(index);
  ShardDocument out;
  const auto begin = static_cast<std::size_t>(shard.documents[i]),
             end = static_cast<std::size_t>(shard.documents[i + 1]);
  std::size_t places = 0;
  for (std::size_t at = begin; at < end; ++at) {
    const std::int32_t token = shard.tokens[at];
    const std::uint8_t mask = shard.mask[at];
    if (token < kImageRow || token >= shard.vocab_size)
      fail(ErrorCode::kCorrupt, "token {} is outside 0..{}", token, shard.vocab_size - 1);
    if (mask > 2 || (mask == 2 && shard.end_token < 0)) fail(ErrorCode::kCorrupt, "the mask {} has no meaning", mask);
    places += token == kImageRow ? 1 : 0;
    if (token == kImageRow) out.sample.add(kImageRow, kNoTarget, 0);
    else out.sample.add(token, mask == 2 ? shard.end_token : token, mask == 0 ? 0.f : 1.f);
  }
  if (!shard.image_starts.empty()) {
    for (std::int64_t k = shard.image_starts[i]; k < shard.image_starts[i + 1]; ++k) {
      const auto image = static_cast<std::size_t>(k);
      const std::int64_t from = image == 0 ? 0 : shard.image_ends[image - 1];
      out.images.push_back(shard.image_paths.substr(static_cast<std::size_t>(from),
                                                    static_cast<std::size_t>(shard.image_ends[image] - from)));
    }
  }
  if (out.images.size() != places)
    fail(ErrorCode::kCorrupt, "{} images for {} places of images", out.images.size(), places);
  return out;
}

Sample with_images(const Sample& sample, std::span<const SharedPixels> images, std::int64_t image_rows) {
  Sample out;
  std::size_t next = 0;
  for (std::size_t i = 0; i < sample.tokens.size(); ++i) {
    if (sample.tokens[i] == kImageRow) out.add_image(images[next++], image_rows);
    else out.add(sample.tokens[i], sample.labels[i], sample.weights[i]);
  }
  return out;
}

ShardFile::ShardFile(const std::filesystem::path& path) : file_(path) {
  try {
    view_ = parse_shard(file_.bytes());
  } catch (const Error& e) {
    fail(e.code(), "{}: {}", path_text(path), e.what());
  }
}

void ShardWriter::add(const Sample& sample, std::span<const std::string> images) {
  const auto places = std::count(sample.tokens.begin(), sample.tokens.end(), kImageRow);
  if (sample.tokens.empty()) fail(ErrorCode::kInvalidArgument, "token shard: an empty document");
  if (places != static_cast<std::ptrdiff_t>(images.size()))
    fail(ErrorCode::kInvalidArgument, "token shard: {} images for {} places", images.size(), places);
  for (std::size_t i = 0; i < sample.tokens.size(); ++i) {
    const std::int32_t token = sample.tokens[i], label = sample.labels[i];
    const bool trained = sample.weights[i] > 0, is_end = trained && label != token;
    const bool known_weight = sample.weights[i] == 0 || sample.weights[i] == 1;
    if (token < kImageRow || token >= vocab_size_ || (is_end && label != end_token_) || !known_weight)
      fail(ErrorCode::kInvalidArgument, "token shard: token {} with label {} and weight {} cannot be written", token,
           label, sample.weights[i]);
    tokens_.push_back(token);
    mask_.push_back(!trained ? 0 : is_end ? 2 : 1);
  }
  documents_.push_back(static_cast<std::int64_t>(tokens_.size()));
  for (const std::string& image : images) {
    if (image.empty()) fail(ErrorCode::kInvalidArgument, "token shard: an image without a path");
    image_paths_ += image;
    image_ends_.push_back(static_cast<std::int64_t>(image_paths_.size()));
  }
  image_starts_.push_back(static_cast<std::int64_t>(image_ends_.size()));
}

void ShardWriter::write(const std::filesystem::path& path) const {
  if (documents() == 0) fail(ErrorCode::kInvalidArgument, "token shard: no documents for {}", path_text(path));
  std::vector<TensorSpec> specs;
  std::vector<std::span<const std::byte>> data;
  const auto put = [&](const char* name, DType dtype, const auto& values) {
    specs.push_back({name, dtype, Shape{static_cast<std::int64_t>(values.size())}});
    data.push_back(std::as_bytes(std::span(values)));
  };
  put("documents", DType::kI64, documents_);
  put("tokens", DType::kI32, tokens_);
  put("mask", DType::kU8, mask_);
  if (!image_ends_.empty()) {
    put("image_starts", DType::kI64, image_starts_);
    put("image_ends", DType::kI64, image_ends_);
    put("image_paths", DType::kU8, image_paths_);
  }
  SafetensorsWriter writer(
      path, specs,
      {{"format", kFormat}, {"vocab_size", std::to_string(vocab_size_)}, {"end_token", std::to_string(end_token_)}});
  for (const std::span<const std::byte> bytes : data) writer.write(bytes);
  writer.finish();
}

}  // namespace gov::train
