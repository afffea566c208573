#include "train/packed_batch.h"

#include <algorithm>

#include "base/error.h"

namespace gov::train {

BatchPacker::BatchPacker(std::int64_t tokens_per_batch, std::int64_t image_rows)
    : tokens_per_batch_(tokens_per_batch), image_rows_(image_rows) {
  batch_.cu_seqlens = {0};
}

bool BatchPacker::add(std::span<const Sample> samples) {
  std::int64_t rows = 0;
  for (const Sample& sample : samples) rows += sample.rows();
  if (rows > tokens_per_batch_)
    fail(ErrorCode::kInvalidArgument, "{} samples that belong together have {} rows, a batch holds {}", samples.size(),
         rows, tokens_per_batch_);
  if (batch_.rows() + rows > tokens_per_batch_) return false;
  for (const Sample& sample : samples) add_document(sample);
  return true;
}

std::int64_t BatchPacker::image_index(const SharedPixels& image) {
  const auto [it, is_new] = index_of_.try_emplace(image.get(), static_cast<std::int64_t>(batch_.images.size()));
  if (is_new) {
    batch_.images.push_back(image);
    uses_.push_back(0);
  }
  return it->second;
}

ImageCopy& BatchPacker::next_copy(std::int64_t image) {
  const std::size_t copy = uses_[static_cast<std::size_t>(image)]++;
  if (copy == batch_.image_copies.size()) batch_.image_copies.emplace_back();
  return batch_.image_copies[copy];
}

void BatchPacker::add_document(const Sample& sample) {
  const auto size = static_cast<std::size_t>(sample.rows());
  std::size_t next_image = 0;
  std::int64_t row_of_image = 0;
  std::int32_t source = 0;
  ImageCopy* copy = nullptr;
  for (std::size_t i = 0; i < size; ++i) {
    const bool is_image = sample.tokens[i] == kImageRow;
    if (is_image) {
      if (row_of_image == 0) {
        const std::int64_t image = image_index(sample.images[next_image++]);
        copy = &next_copy(image);
        source = static_cast<std::int32_t>(image * image_rows_);
      }
      copy->rows.push_back(static_cast<std::int32_t>(batch_.tokens.size()));
      copy->sources.push_back(source + static_cast<std::int32_t>(row_of_image));
      row_of_image = (row_of_image + 1) % image_rows_;
    }
    batch_.tokens.push_back(is_image ? 0 : sample.tokens[i]);
    batch_.positions.push_back(static_cast<std::int32_t>(i));
    batch_.modality.push_back(is_image ? 1 : 0);
    const bool trained = i + 1 < size && sample.weights[i + 1] > 0;
    batch_.targets.push_back(trained ? sample.labels[i + 1] : kNoTarget);
    batch_.row_weights.push_back(trained ? sample.weights[i + 1] : 0.f);
    batch_.trained += trained ? 1 : 0;
    batch_.weight_sum += static_cast<double>(batch_.row_weights.back());
  }
  batch_.cu_seqlens.push_back(static_cast<std::int32_t>(batch_.tokens.size()));
  batch_.max_rows = std::max(batch_.max_rows, sample.rows());
}

PackedBatch BatchPacker::take() {
  PackedBatch out = std::move(batch_);
  batch_ = {};
  batch_.cu_seqlens = {0};
  index_of_.clear();
  uses_.clear();
  return out;
}

}  // namespace gov::train
