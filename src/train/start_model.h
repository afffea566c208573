#pragma once
// What a run starts from: the configuration, the tokenizer and the preprocessor that its training file names, and the
// weights.

#include <filesystem>

#include "base/log.h"
#include "base/thread_pool.h"
#include "model/transformer.h"
#include "train/config.h"
#include "train/sample_rules.h"

namespace gov::train {

struct StartFiles {
  Config config;                    // of the base, or of model.config
  std::filesystem::path folder;     // that holds it
  std::filesystem::path tokenizer;  // file or folder
  bool random = false;              // weights are drawn, not read
};

// Error kNotFound, kInvalidArgument or kCorrupt, naming the key of the training file or the file.
StartFiles start_files(const TrainConfig& config, const Log& log);

// What samples have to know of the model.
std::shared_ptr<const SampleRules> rules_of(const StartFiles& files, const DataConfig& data);

// The weights in the host's memory: the checkpoint as stored, or dense F32 values drawn from the seed.
Model start_weights(const TrainConfig& config, const StartFiles& files, ThreadPool& pool, const Log& log);

}  // namespace gov::train
