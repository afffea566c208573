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

// What is copied beside the weights; nothing where a path is empty.
struct ExportFiles {
  ExportFiles(std::filesystem::path folder = {}) : folder(folder), tokenizer(std::move(folder)) {}
  ExportFiles(std::filesystem::path folder, std::filesystem::path tokenizer)
      : folder(std::move(folder)), tokenizer(std::move(tokenizer)) {}

  std::filesystem::path folder;     // of the preprocessor and the generation config
  std::filesystem::path tokenizer;  // file, or folder with it and its chat template
};

// Writes config.json, the weights rounded to `form`, and the files. The folder appears complete and synced, or not at
// all.
// masters: F32 in the host's memory, every parameter of the model. Error kInvalidArgument: a parameter is missing, or a
// value is not finite once it is rounded; and the errors of CheckpointWriter.
void export_model(const std::filesystem::path& folder, const Config& config, const ParameterSet& masters,
                  ExportForm form, const ExportFiles& files, std::uint64_t max_shard_bytes = 5'000'000'000);

// Copies a tokenizer: a file with what belongs to it, or those files of a folder that are there.
void copy_tokenizer_files(CheckpointWriter& writer, const std::filesystem::path& from);

}  // namespace gov::train
