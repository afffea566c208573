#pragma once
// Sample: one document of training data, ready to be packed into a batch.

#include <cstdint>
#include <memory>
#include <vector>

namespace gov::train {

inline constexpr std::int32_t kImageRow = -1;  // in Sample::tokens: a row that an image fills
inline constexpr std::int32_t kNoTarget = -1;

// Pixels of one image as the vision tower takes it, [3, height, width]. Shared by samples that ask about one picture.
using SharedPixels = std::shared_ptr<const std::vector<float>>;

struct Sample {
  std::vector<std::int32_t> tokens;  // [rows], kImageRow where an image stands
  // [rows] what the row before is to predict here, kNoTarget on image rows. Mostly the token itself; at the end of an
  // answer that further turns follow the text has <|end|>, but the model is to write its end-of-sequence token.
  std::vector<std::int32_t> labels;
  std::vector<float> weights;        // [rows] weight of the label in the loss; 0: not trained
  std::vector<SharedPixels> images;  // in order; each fills the same number of rows

  std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()); }
  void add(std::int32_t token, float weight) { add(token, token, weight); }
  void add(std::int32_t token, std::int32_t label, float weight);
  void add_image(SharedPixels pixels, std::int64_t rows);
};

// Cuts a sample that is longer than max_length behind its last row that fits, an image as a whole or not at all.
// Whether it was cut.
bool truncate(Sample& sample, std::int64_t max_length, std::int64_t image_rows);

// Error kInvalidArgument, saying what is wrong: arrays of unequal lengths, a token or label outside 0..vocab_size-1,
// image rows that do not match the images, an image of other than `pixels` values, nothing to predict.
void check_sample(const Sample& sample, std::int64_t vocab_size, std::int64_t image_rows, std::size_t pixels);

}  // namespace gov::train
