#include "train/sample_rules.h"

#include <algorithm>

#include "base/base64.h"
#include "base/error.h"

namespace gov::train {
namespace {

HarmonyTokens plain_tokens(const Tokenizer& tokenizer) {
  const auto id = [&](std::string_view text) { return tokenizer.find_special(text).value_or(-1); };
  return {id("<|start|>"),     id("<|end|>"),    id("<|message|>"), id("<|channel|>"),
          id("<|constrain|>"), id("<|return|>"), id("<|call|>")};
}

bool choose_harmony(const SampleRules& rules, DataFormat format) {
  if (format == DataFormat::kPlain) return false;
  if (format == DataFormat::kHarmony && !rules.has_harmony_tokens)
    fail(ErrorCode::kInvalidArgument, "data.chat_format: the tokenizer lacks harmony's control tokens");
  return format == DataFormat::kHarmony || default_chat_format(rules.tokenizer) == ChatFormat::kHarmony;
}

}  // namespace

SampleRules sample_rules(const Config& model, Tokenizer tokenizer, const Preprocessor& preprocessor,
                         const DataConfig& data) {
  SampleRules rules{.tokenizer = std::move(tokenizer), .tokens = {}};
  rules.tokens = plain_tokens(rules.tokenizer);
  rules.has_harmony_tokens = HarmonyTokens::find(rules.tokenizer).has_value();
  rules.harmony = choose_harmony(rules, data.chat_format);
  rules.preprocessor = preprocessor;
  rules.vocab_size = model.vocab_size;
  if (rules.tokenizer.vocab_size() > model.vocab_size)
    fail(ErrorCode::kInvalidArgument, "the tokenizer has {} tokens, the model only {}", rules.tokenizer.vocab_size(),
         model.vocab_size);
  if (model.use_vision) {
    rules.image_rows = model.vision.tokens();
    const auto size = static_cast<int>(model.vision.image_size);
    if (preprocessor.out_height() != size || preprocessor.out_width() != size)
      fail(ErrorCode::kInvalidArgument, "the image preprocessor gives {} x {} pixels, the model takes {} x {}",
           preprocessor.out_width(), preprocessor.out_height(), size, size);
  }
  const bool has_token =
      model.image_token_id >= 0 && rules.tokenizer.has_token(static_cast<std::int32_t>(model.image_token_id));
  rules.inline_images = data.image_position == ImagePosition::kInline ||
                        (data.image_position == ImagePosition::kAuto && rules.harmony && has_token);
  if (rules.inline_images && !has_token)
    fail(ErrorCode::kInvalidArgument, "data.image_position: the model has no image token");
  if (rules.inline_images) rules.image_token_id = static_cast<std::int32_t>(model.image_token_id);
  rules.train_all = data.train_on == TrainOn::kAll;
  rules.reasoning = data.reasoning;
  rules.date = data.date;
  rules.end_of_text = rules.tokenizer.find_special("<|endoftext|>").value_or(-1);
  return rules;
}

SharedPixels read_pixels(const SampleRules& rules, std::span<const std::byte> file) {
  if (rules.image_rows == 0) fail(ErrorCode::kInvalidArgument, "an image, but the model has no vision");
  auto pixels = std::make_shared<std::vector<float>>(rules.pixels());
  rules.preprocessor.apply(decode_image(file, rules.preprocessor.decode_options()), pixels->data());
  return pixels;
}

SharedPixels read_image_reference(const SampleRules& rules, const std::string& reference,
                                  const std::filesystem::path& root) {
  if (reference.starts_with("data:")) {
    const std::size_t comma = reference.find(',');
    std::string bytes;
    if (comma == std::string::npos || !std::string_view(reference).substr(0, comma).ends_with(";base64") ||
        !base64_decode(std::string_view(reference).substr(comma + 1), bytes))
      fail(ErrorCode::kInvalidArgument, "image: a data: address must be \"data:image/...;base64,\" and valid base64");
    return read_pixels(rules, std::as_bytes(std::span(bytes)));
  }
  const std::filesystem::path path = reference;
  if (reference.empty() || reference.find("://") != std::string::npos || path.is_absolute() ||
      std::find(path.begin(), path.end(), "..") != path.end())
    fail(ErrorCode::kInvalidArgument, "image '{}': expected a data: address or a path below the data's folder",
         printable(reference, 80));
  if (rules.image_rows == 0) fail(ErrorCode::kInvalidArgument, "an image, but the model has no vision");
  auto pixels = std::make_shared<std::vector<float>>(rules.pixels());
  rules.preprocessor.apply(load_image(root / path, rules.preprocessor.decode_options()), pixels->data());
  return pixels;
}

}  // namespace gov::train
