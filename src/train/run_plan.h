#pragma once
// RunPlan: all that is known of a run before its weights are there.

#include "model/training_activations.h"
#include "train/loader.h"
#include "train/memory_table.h"

namespace gov::train {

struct RunPlan {
  TrainConfig config;
  StartFiles files;
  ParameterPlan parameters;
  std::shared_ptr<const SampleRules> rules;
  std::vector<Source> sources, eval_sources;
  Place place;  // where it computes, and the type of activations
  MemoryTable memory;
  std::int64_t steps = 0;
};

// device: where the run is to compute. Error: everything that is wrong with the training file, its model and its data,
// and kUnsupported naming the key that this version cannot do.
RunPlan make_run_plan(const TrainConfig& config, DeviceKind device, const Log& log);

}  // namespace gov::train
