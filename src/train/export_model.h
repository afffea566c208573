#pragma once
// A model folder in the Hugging Face layout from a trainer's weights, as `generate` and transformers read it.

#include <cstdint>
#include <filesystem>

#include "io/checkpoint.h"
#include "model/parameter_set.h"

namespace gov::train {

enum class ExportForm {
  kF32,
  kBf16,
  kMxfp4,  // expert matrices packed, the rest BF16
};

// The configuration of a model stored in that form.
Config export_config(Config config, ExportForm form);

// Writes config.json, the weights rounded to `form`, and copies tokenizer, chat template, preprocessor and generation
// config from the folder `files_from` (empty: none). The folder appears complete and synced, or not at all.
// masters: F32 in the host's memory, every parameter of the model. Error kInvalidArgument: a parameter is missing, or a
// value is not finite once it is rounded; and the errors of CheckpointWriter.
void export_model(const std::filesystem::path& folder, const Config& config, const ParameterSet& masters,
                  ExportForm form, const std::filesystem::path& files_from,
                  std::uint64_t max_shard_bytes = 5'000'000'000);

// Copies the files of a tokenizer from a folder, those that are there.
void copy_tokenizer_files(CheckpointWriter& writer, const std::filesystem::path& from);

}  // namespace gov::train
