#pragma once
// PackedBatch: documents laid end to end without padding, as model/batch.h lays out sequences. cu_seqlens keeps
// attention inside each document, positions restart in each.

#include <span>
#include <unordered_map>
#include <vector>

#include "train/sample.h"

namespace gov::train {

// The rows that one copy of the images fills. A picture that several documents ask about is encoded once; its rows in
// the n-th of them are in copy n. Inside a copy both lists have each entry once, so its derivative is a plain gather.
struct ImageCopy {
  std::vector<std::int32_t> rows;     // of the batch, ascending
  std::vector<std::int32_t> sources;  // of the encoder's output [images * image_rows], in the same order
};

// T rows in D documents.
struct PackedBatch {
  std::vector<std::int32_t> tokens;      // [T]; rows that an image fills hold 0
  std::vector<std::int32_t> positions;   // [T], from 0 within each document
  std::vector<std::uint8_t> modality;    // [T], 1 on image rows
  std::vector<std::int32_t> cu_seqlens;  // [D + 1]
  std::vector<std::int32_t> targets;     // [T], what row t is to predict, kNoTarget for nothing
  std::vector<float> row_weights;        // [T], weight of that prediction, 0 where there is none
  std::vector<ImageCopy> image_copies;
  std::vector<SharedPixels> images;  // each picture once, in order of first use
  std::int64_t max_rows = 0;         // of one document
  std::int64_t trained = 0;          // rows with a target
  double weight_sum = 0;             // of row_weights, in row order

  std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()); }
  std::int64_t documents() const { return static_cast<std::int64_t>(cu_seqlens.size()) - 1; }
};

// Fills batches of at most `tokens_per_batch` rows, samples in the order given. No sample is split.
class BatchPacker {
 public:
  BatchPacker(std::int64_t tokens_per_batch, std::int64_t image_rows);
  // Adds samples that belong together; false, with nothing added, when they do not fit beside what is there. Error
  // kInvalidArgument when they would not fit into an empty batch either. Each has passed check_sample.
  bool add(std::span<const Sample> samples);
  bool empty() const { return batch_.tokens.empty(); }
  PackedBatch take();  // the packer is then empty

 private:
  void add_document(const Sample& sample);
  std::int64_t image_index(const SharedPixels& image);
  ImageCopy& next_copy(std::int64_t image);

  std::int64_t tokens_per_batch_, image_rows_;
  PackedBatch batch_;
  std::unordered_map<const void*, std::int64_t> index_of_;
  std::vector<std::size_t> uses_;  // of each image so far
};

}  // namespace gov::train
