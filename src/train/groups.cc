#include "train/groups.h"

#include <algorithm>

#include "base/error.h"

namespace gov::train {
namespace {

// One-dimensional parameters and tables of vectors, which gain nothing from being pulled to zero.
constexpr const char* kNoDecay[] = {
    "*norm*", "*bias*", "*.sinks", "*embed_tokens*", "*_token", "*position_embeddings*", "*magnitude*"};

}  // namespace

bool glob_match(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, from = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      from = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++from;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::vector<ParameterRule> parameter_rules(const TrainConfig& config, std::span<const std::string> names) {
  std::vector<ParameterRule> rules;
  for (const std::string& name : names) {
    const bool no_decay =
        std::any_of(std::begin(kNoDecay), std::end(kNoDecay), [&](const char* p) { return glob_match(p, name); });
    rules.push_back({1, no_decay ? 0 : config.optimizer.decay, config.lora.rank > 0});
  }
  for (const GroupConfig& group : config.groups) {
    for (const std::string& pattern : group.match) {
      bool matched = false;
      for (std::size_t i = 0; i < names.size(); ++i) {
        if (!glob_match(pattern, names[i])) continue;
        matched = true;
        rules[i].lr_multiplier = group.lr;
        rules[i].frozen = group.frozen;
        if (group.decay >= 0) rules[i].decay = group.decay;
      }
      if (!matched)
        fail(ErrorCode::kInvalidArgument, "group: the pattern \"{}\" matches no parameter", printable(pattern));
    }
  }
  const bool all_frozen = std::all_of(rules.begin(), rules.end(), [](const ParameterRule& r) { return r.frozen; });
  if (all_frozen && config.lora.rank == 0) fail(ErrorCode::kInvalidArgument, "group: every parameter is frozen");
  return rules;
}

}  // namespace gov::train
