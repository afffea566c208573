#pragma once
// What a run will hold, by purpose, added up before anything large is there.

#include <string>
#include <utility>
#include <vector>

#include "model/training_activations.h"
#include "train/trained_model.h"

namespace gov::train {

struct MemoryTable {
  std::vector<std::pair<std::string, std::uint64_t>> rows;  // purpose, bytes where the model is
  std::uint64_t data = 0;                                   // samples and batches ahead, in the host's memory
  std::uint64_t limit = 0;                                  // what is free there
  std::uint64_t total() const;
};

// The largest batch of a run.
TrainingSizes training_sizes(const Config& model, const DataConfig& data, const Place& place);
Recompute recompute_of(RunConfig::Recompute recompute);

MemoryTable memory_table(const TrainConfig& config, const StartFiles& files, const ParameterPlan& plan,
                         const Place& place);
// Error kOutOfMemory with the total, the limit and what to reduce.
void require_fits(const MemoryTable& table);

}  // namespace gov::train
