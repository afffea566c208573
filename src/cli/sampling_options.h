#pragma once
// The options that say how tokens are drawn, for every command that draws some.

#include <optional>
#include <string>
#include <vector>

#include "cli/common.h"

namespace gov::cli {

struct SamplingOptions {  // what was given; the rest is the model's default
  std::optional<float> temperature, top_p, min_p, typical_p, repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<int> top_k;
  std::optional<std::uint64_t> seed;
  std::vector<std::string> logit_bias;
};

extern const char* const kSamplingGroup;  // of the help text
void add_sampling_options(CLI::App& app, SamplingOptions& o);
// `defaults` with what was given put over it; the seed is left as it is if none was given.
ops::SamplingParams sampling_params(const SamplingOptions& o, ops::SamplingParams defaults);
std::vector<ops::LogitBias> logit_bias(const SamplingOptions& o);
std::uint64_t random_seed();

}  // namespace gov::cli
