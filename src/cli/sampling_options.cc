#include "cli/sampling_options.h"

#include <charconv>
#include <random>

namespace gov::cli {
namespace {

ops::LogitBias parse_logit_bias(const std::string& text) {
  ops::LogitBias bias{};
  const char* end = text.data() + text.size();
  const auto id = std::from_chars(text.data(), end, bias.token);
  if (id.ec == std::errc() && id.ptr != end && *id.ptr == '=') {
    const auto value = std::from_chars(id.ptr + 1, end, bias.bias);
    if (value.ec == std::errc() && value.ptr == end) return bias;
  }
  throw CLI::ValidationError("--logit-bias", "expected ID=VALUE, got '" + printable(text) + "'");
}

}  // namespace

const char* const kSamplingGroup = "Sampling (defaults: the model's generation_config.json, else greedy)";

void add_sampling_options(CLI::App& app, SamplingOptions& o) {
  const auto number = [&](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->type_name("X")->group(kSamplingGroup);
  };
  number("--temperature", o.temperature, "0 = greedy, the likeliest token");
  number("--top-k", o.top_k, "Only the K likeliest; 0 = off")->type_name("K");
  number("--top-p", o.top_p, "Smallest set whose probability reaches P; 1 = off");
  number("--min-p", o.min_p, "Only tokens of at least this share of the likeliest one's probability; 0 = off");
  number("--typical-p", o.typical_p, "Locally typical sampling; 1 = off");
  number("--repetition-penalty", o.repetition_penalty, "Divides the logits of tokens seen before; 1 = off");
  number("--presence-penalty", o.presence_penalty, "Subtracted once for tokens in the answer; 0 = off");
  number("--frequency-penalty", o.frequency_penalty, "Subtracted for each occurrence in the answer; 0 = off");
  number("--seed", o.seed, "Same seed, same text; default: a new one each time")->type_name("N");
  add_repeatable(app, "--logit-bias", o.logit_bias, "ID=VALUE, added to a token's logit; repeatable")
      ->type_name("ID=VALUE")
      ->group(kSamplingGroup);
}

ops::SamplingParams sampling_params(const SamplingOptions& o, ops::SamplingParams defaults) {
  const auto set = [](auto& field, const auto& given) {
    if (given) field = *given;
  };
  set(defaults.temperature, o.temperature);
  set(defaults.top_k, o.top_k);
  set(defaults.top_p, o.top_p);
  set(defaults.min_p, o.min_p);
  set(defaults.typical_p, o.typical_p);
  set(defaults.repetition_penalty, o.repetition_penalty);
  set(defaults.presence_penalty, o.presence_penalty);
  set(defaults.frequency_penalty, o.frequency_penalty);
  set(defaults.seed, o.seed);
  return defaults;
}

std::vector<ops::LogitBias> logit_bias(const SamplingOptions& o) {
  std::vector<ops::LogitBias> entries;
  for (const std::string& text : o.logit_bias) entries.push_back(parse_logit_bias(text));
  return entries;
}

std::uint64_t random_seed() { return std::random_device()(); }

}  // namespace gov::cli
