#pragma once
// What the tests of training data share: rules of two models, files, reading of samples.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "base/error.h"
#include "io/mapped_file.h"
#include "train/sample_rules.h"

namespace gov::train::test {

inline const std::filesystem::path kNano = std::filesystem::path(GOV_SOURCE_DIR) / "models/nano";
inline const std::filesystem::path kPictures = kNano / "test_pictures";

// The embedded model's: plain chats, pictures in front of the text.
inline SampleRules nano_rules(const DataConfig& data = {}) {
  return sample_rules(parse_config(read_text_file(kNano / "config.json", 1 << 20)), Tokenizer::load(kNano),
                      Preprocessor::from_json(read_text_file(kNano / "preprocessor_config.json", 1 << 20)), data);
}

// gpt-oss' vocabulary, harmony, pictures of 16 rows at the image token.
inline SampleRules harmony_rules(const DataConfig& data = {}) {
  Config config;
  config.use_vision = true;
  config.vision.image_size = 56;
  config.image_token_id = 200014;
  static const Tokenizer tokenizer =
      Tokenizer::load(std::filesystem::path(GOV_UNPACKED_DIR) / "models/o200k/o200k_base.tiktoken");
  return sample_rules(config, tokenizer, Preprocessor::for_size(56), data);
}

inline std::filesystem::path fresh_folder(const std::string& name) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / ("gov_train_" + name);
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

inline std::string write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
  return path.string();
}

// The tokens as text; what is trained in [brackets], with the label instead of the token; a run of image rows as <n>.
inline std::string shown(const SampleRules& rules, const Sample& sample) {
  std::string out;
  bool open = false;
  for (std::size_t i = 0; i < sample.tokens.size();) {
    if (sample.tokens[i] == kImageRow) {
      std::size_t end = i;
      while (end < sample.tokens.size() && sample.tokens[end] == kImageRow) ++end;
      out += "<" + std::to_string(end - i) + ">";
      i = end;
      continue;
    }
    const bool trained = sample.weights[i] > 0;
    if (trained != open) out += trained ? "[" : "]";
    open = trained;
    out += rules.tokenizer.token_bytes(trained ? sample.labels[i] : sample.tokens[i]);
    ++i;
  }
  return out + (open ? "]" : "");
}

template <class Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace gov::train::test
