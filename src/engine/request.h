#pragma once
// What a client asks for and what it gets back.

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/sha256.h"
#include "ops/ops.h"
#include "text/token_constraint.h"

namespace gov {

struct GenerationOptions {
  ops::SamplingParams sampling;       // temperature 0 = greedy
  std::int64_t max_new_tokens = 256;  // at most; cut so that prompt + output fit the context
  std::int64_t min_new_tokens = 0;    // eos ids and stop_tokens are not drawn, stop strings not sought, before
  std::vector<std::string> stop;  // the text ends before the one that is complete first; UTF-8, <= 16 of 1..256 bytes
  std::vector<std::int32_t> stop_tokens;  // besides the model's eos ids
  bool ignore_eos = false;
  int logprobs = -1;  // -1 none; n >= 0: of the token drawn and the n (<= 20) likeliest
  std::vector<ops::LogitBias> logit_bias;
  // -1 none; n >= 0: for every prompt row but the first the log-probability of its token and the n (<= 20) likeliest,
  // at temperature 1, without bias and penalties. With max_new_tokens 0 the prompt is only scored.
  int prompt_logprobs = -1;
};

struct TokenLogprob {
  std::int32_t token;
  float logprob;
};

// One token of one choice, as it is produced. The texts of a choice's events, joined, are its completion's text. If
// text was still held back when an eos or stop token came, a last event brings it, with token -1 and no logprob.
struct TokenEvent {
  int choice = 0;
  std::int32_t token = 0;
  std::string_view text;  // new text, whole UTF-8 characters only; held back while it could begin a stop string
  float logprob = 0.f;    // with options.logprobs >= 0
  std::span<const TokenLogprob> top_logprobs;
};

struct Request {
  std::vector<std::int32_t> prompt;        // may hold config.image_token_id, one for each image, or none
  std::vector<std::vector<float>> images;  // pixel_values [3, image_size, image_size] each, in order
  // Of each image's values, all of which are finite then (digest_images); empty: the engine looks for itself.
  std::vector<Sha256Digest> image_digests;
  GenerationOptions options;
  int n = 1;                                        // independent choices; choice i uses stream i of the seed
  std::function<void(const TokenEvent&)> on_token;  // optional; called between steps, in order per choice
  const std::atomic<bool>* cancel = nullptr;        // optional; true ends the request within one step
  std::optional<TokenConstraint> constraint;        // what may be generated; each choice has a copy
  // Prefixes are shared only between requests of the same salt (a tenant, or what the client says).
  std::string cache_salt;
  std::string tenant;  // requests of different tenants take turns; "": one of its own
  int priority = 0;    // the larger goes first
  bool embed = false;  // no tokens: the mean of the final hidden states over the prompt
};

// What takes long about a request's pictures, so that it can be done on another thread than the engine's: their
// digests. None if a value is not finite, which submit() refuses.
void digest_images(Request& request);

enum class FinishReason { kStop, kLength, kCancelled };
const char* finish_reason_name(FinishReason reason);  // "stop", "length", "cancelled"

struct Completion {
  int choice = 0;
  std::vector<std::int32_t> tokens;  // without the eos or stop token that ended it; with those of a stop string
  std::string text;                  // decoded, special tokens left out, cut before a stop string
  FinishReason finish_reason = FinishReason::kStop;
  std::string stop_match;                               // the stop string that ended it, if one did
  std::int32_t stop_token = -1;                         // the eos or stop token that ended it, if one did
  std::vector<float> logprobs;                          // [tokens], with options.logprobs >= 0
  std::vector<std::vector<TokenLogprob>> top_logprobs;  // [tokens][<= n]
};

struct RequestResult {
  std::vector<Completion> choices;     // [n]
  std::int64_t prompt_tokens = 0;      // image rows included
  std::int64_t cached_tokens = 0;      // of these, rows that were taken from the prefix cache
  std::int64_t image_tokens = 0;       // of these, image rows
  std::vector<float> prompt_logprobs;  // [prompt rows], entry 0 is NaN; with options.prompt_logprobs
  std::vector<std::vector<TokenLogprob>> prompt_top_logprobs;  // [prompt rows][<= n], entry 0 is empty
  std::vector<float> embedding;                                // [hidden], with Request::embed
  double first_token_seconds = 0;                              // from submission
  double total_seconds = 0;
};

}  // namespace gov
