#pragma once
// What is trained, and how: each parameter's learning rate, weight decay and whether it is frozen.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "train/config.h"

namespace gov::train {

// '*' is any text, dots included, '?' any one byte; everything else stands for itself. Linear in |pattern| * |text|.
bool glob_match(std::string_view pattern, std::string_view text);

struct ParameterRule {
  double lr_multiplier = 1;
  double decay = 0;
  bool frozen = false;
};

// The rule of each named parameter, in order. Without a group: no decay on norms, biases, sinks, router biases,
// embeddings and single tokens; with LoRA everything is frozen that no group with frozen = false names. The last group
// that matches decides. Error kInvalidArgument: a pattern that matches none of the names, nothing left to train while
// there is no LoRA.
std::vector<ParameterRule> parameter_rules(const TrainConfig& config, std::span<const std::string> names);

}  // namespace gov::train
