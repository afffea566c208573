#pragma once
// What has to be known of a model to make samples for it.

#include <optional>
#include <string>

#include "image/preprocess.h"
#include "model/config.h"
#include "text/harmony.h"
#include "text/tokenizer.h"
#include "train/config.h"
#include "train/sample.h"

namespace gov::train {

struct SampleRules {
  Tokenizer tokenizer;
  // Control tokens by their texts; a plain tokenizer may lack constrain, return and call.
  HarmonyTokens tokens;
  bool has_harmony_tokens = false;  // all of them
  bool harmony = false;             // chats are rendered as harmony, else in the plain form
  bool inline_images = false;       // at image_token_id, else in front of all text
  std::optional<std::int32_t> image_token_id = std::nullopt;
  std::int64_t image_rows = 0;  // rows of an image, 0: the model has no vision
  Preprocessor preprocessor = {};
  bool train_all = false;
  std::string reasoning = "medium";
  std::string date = {};
  std::int32_t end_of_text = -1;  // put behind a document of plain text, -1: nothing
  std::int64_t vocab_size = 0;    // of the model

  std::size_t pixels() const {
    return 3 * static_cast<std::size_t>(preprocessor.out_height()) * static_cast<std::size_t>(preprocessor.out_width());
  }
};

// As the command and the server render for the same model. Error kInvalidArgument: a form or a place for images that
// the tokenizer or the model does not have, a tokenizer with more tokens than the model.
SampleRules sample_rules(const Config& model, Tokenizer tokenizer, const Preprocessor& preprocessor,
                         const DataConfig& data);

// Decodes and preprocesses an encoded picture; Error as decode_image.
SharedPixels read_pixels(const SampleRules& rules, std::span<const std::byte> file);
// A picture by reference: "data:image/...;base64,..." or a path below `root`. Error kInvalidArgument for an address on
// the network, an absolute path or one with "..", and what decode_image throws.
SharedPixels read_image_reference(const SampleRules& rules, const std::string& reference,
                                  const std::filesystem::path& root);

}  // namespace gov::train
