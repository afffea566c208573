#include "train/sample.h"

#include <algorithm>

#include "base/error.h"

namespace gov::train {

void Sample::add(std::int32_t token, std::int32_t label, float weight) {
  tokens.push_back(token);
  labels.push_back(label);
  weights.push_back(weight);
}

void Sample::add_image(SharedPixels pixels, std::int64_t rows) {
  images.push_back(std::move(pixels));
  for (std::int64_t i = 0; i < rows; ++i) add(kImageRow, kNoTarget, 0);
}

bool truncate(Sample& sample, std::int64_t max_length, std::int64_t image_rows) {
  if (sample.rows() <= max_length) return false;
  const auto kept_images = [&](std::int64_t rows) {
    return std::count(sample.tokens.begin(), sample.tokens.begin() + rows, kImageRow);
  };
  std::int64_t rows = max_length;
  if (image_rows > 0) {
    for (std::int64_t inside = kept_images(rows) % image_rows; inside > 0; --inside) --rows;
    sample.images.resize(static_cast<std::size_t>(kept_images(rows) / image_rows));
  }
  const auto size = static_cast<std::size_t>(rows);
  sample.tokens.resize(size);
  sample.labels.resize(size);
  sample.weights.resize(size);
  return true;
}

void check_sample(const Sample& sample, std::int64_t vocab_size, std::int64_t image_rows, std::size_t pixels) {
  const std::size_t rows = sample.tokens.size();
  if (sample.labels.size() != rows || sample.weights.size() != rows)
    fail(ErrorCode::kInvalidArgument, "{} tokens, but {} labels and {} weights", rows, sample.labels.size(),
         sample.weights.size());
  std::int64_t images = 0;
  bool trained = false;
  for (std::size_t i = 0; i < rows; ++i) {
    const bool is_image = sample.tokens[i] == kImageRow;
    images += is_image ? 1 : 0;
    if (!is_image && (sample.tokens[i] < 0 || sample.tokens[i] >= vocab_size))
      fail(ErrorCode::kInvalidArgument, "token {} is outside 0..{}", sample.tokens[i], vocab_size - 1);
    if (!(sample.weights[i] > 0)) continue;
    if (sample.labels[i] < 0 || sample.labels[i] >= vocab_size)
      fail(ErrorCode::kInvalidArgument, "label {} is outside 0..{}", sample.labels[i], vocab_size - 1);
    trained = trained || i > 0;
  }
  if (images != static_cast<std::int64_t>(sample.images.size()) * image_rows)
    fail(ErrorCode::kInvalidArgument, "{} image rows for {} images of {} rows", images, sample.images.size(),
         image_rows);
  for (const SharedPixels& image : sample.images) {
    if (!image || image->size() != pixels)
      fail(ErrorCode::kInvalidArgument, "an image of {} values, expected {}", image ? image->size() : 0, pixels);
  }
  if (!trained) fail(ErrorCode::kInvalidArgument, "nothing to predict: no text of an assistant");
}

}  // namespace gov::train
