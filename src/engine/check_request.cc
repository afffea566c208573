#include "engine/check_request.h"

#include <algorithm>
#include <cmath>

#include "base/utf8.h"

namespace gov {
namespace {

void require(bool ok, const char* field, std::string_view rule) {
  if (!ok) fail(ErrorCode::kInvalidArgument, "{} must be {}", field, rule);
}

bool all_finite(const std::vector<float>& pixels) {
  return std::all_of(pixels.begin(), pixels.end(), [](float x) { return std::isfinite(x); });
}

// Written so that NaN is outside of every range.
void check_sampling(const ops::SamplingParams& p) {
  require(p.temperature >= 0 && std::isfinite(p.temperature), "temperature", "0 or more");
  require(p.top_k >= 0, "top_k", "0 (off) or more");
  require(p.top_p > 0 && p.top_p <= 1, "top_p", "more than 0 and at most 1");
  require(p.min_p >= 0 && p.min_p <= 1, "min_p", "0 to 1");
  require(p.typical_p > 0 && p.typical_p <= 1, "typical_p", "more than 0 and at most 1");
  require(p.repetition_penalty > 0 && std::isfinite(p.repetition_penalty), "repetition_penalty", "more than 0");
  require(std::isfinite(p.presence_penalty), "presence_penalty", "a finite number");
  require(std::isfinite(p.frequency_penalty), "frequency_penalty", "a finite number");
}

void check_stops(const DecodingRules& rules, const GenerationOptions& o) {
  require(o.stop.size() <= kMostStops, "stop", fmt::format("at most {} strings", kMostStops));
  require(o.stop.empty() || rules.tokenizer, "stop", "empty: there is no tokenizer, so there is no text");
  for (const std::string& stop : o.stop) {
    require(!stop.empty() && stop.size() <= kLongestStop, "stop",
            fmt::format("strings of 1 to {} bytes", kLongestStop));
    require(utf8_valid(stop), "stop", "valid UTF-8");
  }
}

void check_ids(const Config& config, const GenerationOptions& o) {
  const auto known = [&](std::int32_t id) { return id >= 0 && id < config.vocab_size; };
  require(o.stop_tokens.size() <= kMostStopTokens, "stop_tokens", fmt::format("at most {} ids", kMostStopTokens));
  for (const std::int32_t id : o.stop_tokens) {
    require(known(id), "stop_tokens", fmt::format("ids of 0 to {}, not {}", config.vocab_size - 1, id));
  }
  require(o.logit_bias.size() <= kMostLogitBias, "logit_bias", fmt::format("at most {} entries", kMostLogitBias));
  for (const ops::LogitBias& entry : o.logit_bias) {
    require(known(entry.token), "logit_bias",
            fmt::format("for ids of 0 to {}, not {}", config.vocab_size - 1, entry.token));
    require(std::isfinite(entry.bias), "logit_bias", "finite");
  }
}

void check_options(const Config& config, const DecodingRules& rules, const GenerationOptions& o) {
  check_sampling(o.sampling);
  require(o.max_new_tokens >= 0, "max_new_tokens", "0 or more");
  require(o.min_new_tokens >= 0 && o.min_new_tokens <= o.max_new_tokens, "min_new_tokens", "0 to max_new_tokens");
  require(o.logprobs >= -1 && o.logprobs <= kMostLogprobs, "logprobs", fmt::format("-1 (none) to {}", kMostLogprobs));
  require(o.prompt_logprobs >= -1 && o.prompt_logprobs <= kMostLogprobs, "prompt_logprobs",
          fmt::format("-1 (none) to {}", kMostLogprobs));
  check_stops(rules, o);
  check_ids(config, o);
}

void check_images(const Config& config, const Request& request, std::int64_t places) {
  const std::int64_t images = static_cast<std::int64_t>(request.images.size());
  if (images > 0 && !config.use_vision) {
    fail(ErrorCode::kInvalidArgument, "images: {} given, but this model has no vision", images);
  }
  if (places != images && places > 0) {
    fail(ErrorCode::kInvalidArgument, "images: the prompt has {} image tokens, but {} images were given", places,
         images);
  }
  const bool digested = !request.image_digests.empty();
  require(!digested || request.image_digests.size() == request.images.size(), "image_digests", "one for each image");
  const std::int64_t side = config.vision.image_size;
  const std::size_t values = static_cast<std::size_t>(config.vision.num_channels * side * side);
  for (std::size_t i = 0; i < request.images.size(); ++i) {
    const std::vector<float>& pixels = request.images[i];
    if (pixels.size() != values) {
      fail(ErrorCode::kInvalidArgument, "images: image {} has {} values, the model takes {} ({} x {} x {})", i + 1,
           pixels.size(), values, config.vision.num_channels, side, side);
    }
    if (!digested && !all_finite(pixels)) {
      fail(ErrorCode::kInvalidArgument, "images: image {} has a value that is not finite", i + 1);
    }
  }
}

}  // namespace

void digest_images(Request& request) {
  if (!request.image_digests.empty()) return;
  if (!std::all_of(request.images.begin(), request.images.end(), all_finite)) return;
  for (const std::vector<float>& pixels : request.images)
    request.image_digests.push_back(sha256(std::as_bytes(std::span(pixels))));
}

void check_request(const Config& config, const DecodingRules& rules, const Request& request, std::int64_t context) {
  require(request.n >= 1 && request.n <= kMostChoices, "n", fmt::format("1 to {}", kMostChoices));
  require(!request.embed || request.n == 1, "n", "1: an embedding has no choices");
  check_options(config, rules, request.options);
  if (request.prompt.empty() && request.images.empty()) fail(ErrorCode::kInvalidArgument, "the prompt is empty");
  std::int64_t places = 0;
  for (std::size_t i = 0; i < request.prompt.size(); ++i) {
    const std::int32_t id = request.prompt[i];
    if (id < 0 || id >= config.vocab_size) {
      fail(ErrorCode::kInvalidArgument, "prompt: token {} has id {}, the vocabulary is 0 to {}", i, id,
           config.vocab_size - 1);
    }
    places += id == config.image_token_id;
  }
  check_images(config, request, places);
  const std::int64_t image_rows = static_cast<std::int64_t>(request.images.size()) * config.vision.tokens();
  const std::int64_t rows = static_cast<std::int64_t>(request.prompt.size()) - places + image_rows;
  if (rows > context) {
    fail(ErrorCode::kContextLength, "the prompt takes {} tokens, but the context has {}", rows, context);
  }
  if (rows == context && request.options.max_new_tokens > 0 && !request.embed) {
    fail(ErrorCode::kContextLength, "the prompt takes {} tokens and the answer at least 1, but the context has {}",
         rows, context);
  }
}

}  // namespace gov
