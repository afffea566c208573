#pragma once
// A model folder as a user has it: configuration, weights, tokenizer, image preprocessor, generation defaults.

#include <filesystem>
#include <optional>

#include "engine/request.h"
#include "image/preprocess.h"
#include "model/transformer.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace gov {

struct ModelPackage {
  std::filesystem::path folder;
  Model model;
  Tokenizer tokenizer;
  Preprocessor preprocessor;                 // preprocessor_config.json, or the default for the vision image size
  std::vector<std::int32_t> stop_ids;        // eos ids of config.json and generation_config.json together, in range
  std::optional<std::string> chat_template;  // text of the checkpoint's template; never executed, shown by `inspect`
  ChatFormat chat_format = ChatFormat::kPlain;
};

// Opens a folder. Errors name the file. A tokenizer that has ids the model lacks is refused.
ModelPackage load_package(const std::filesystem::path& folder, ThreadPool& pool, const Log& log = {});

// Sampling defaults of generation_config.json (do_sample false or absent = greedy, temperature, top_k, top_p, ...).
ops::SamplingParams default_sampling(const std::filesystem::path& folder);

}  // namespace gov
