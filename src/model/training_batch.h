#pragma once
// TrainingBatch: documents laid end to end, as model/batch.h lays out sequences, with what each row is to predict.

#include <span>
#include <vector>

#include "model/config.h"
#include "tensor/context.h"
#include "tensor/device.h"

namespace gov {

// Rows of the batch that rows of the encoded images fill, each list without repetitions: a picture that several
// documents show is encoded once, and its rows in the n-th of them are in the n-th of these.
struct ImageFill {
  Tensor rows;     // I32 [n], of the batch, ascending
  Tensor sources;  // I32 [n], of the encoder's output [images * config.vision.tokens()]
};

struct TrainingBatch {
  Tensor tokens;       // I32 [T]; rows that an image fills hold 0
  Tensor text_tokens;  // I32 [T]; there -1
  Tensor positions;    // I32 [T], from 0 within each document
  Tensor modality;     // U8 [T], 1 on image rows
  Tensor cu_seqlens;   // I32 [D + 1]
  Tensor lengths;      // I32 [D]
  std::vector<ImageFill> fills;
  Tensor loss_rows;           // I32 [R], rows that predict something, ascending
  Tensor targets;             // I32 [R]
  Tensor row_weights;         // F32 [R], of each loss in the sum: 1 / their number for the mean
  Tensor pixels;              // F32 [images, channels, side, side], or empty
  std::int64_t max_rows = 0;  // of one document

  std::int64_t rows() const { return tokens.rows(); }
  std::int64_t images() const { return pixels ? pixels.rows() : 0; }
};

// The same as a data pipeline has it, in the host's memory.
struct PackedRows {
  struct Fill {
    std::span<const std::int32_t> rows, sources;
  };
  std::span<const std::int32_t> tokens, positions;  // [T]
  std::span<const std::uint8_t> modality;           // [T]
  std::span<const std::int32_t> cu_seqlens;         // [D + 1]
  std::span<const std::int32_t> targets;            // [T], negative for nothing
  std::span<const float> row_weights;               // [T]
  std::vector<Fill> fills;
  std::vector<std::span<const float>> pixels;  // each [images, channels, side, side], one behind the other
};

// Owner of a batch where the context computes. Not set again while a pass still reads it. Pixels, which are nearly all
// there is to move, are copied once by all threads: to where they are used, on a GPU to page-locked memory before.
class TrainingRows {
 public:
  // `scale`: of row_weights, 1 / (sum of weights over all micro-batches and ranks). Error kInvalidArgument where the
  // arrays do not fit each other or the configuration.
  const TrainingBatch& set(Context& ctx, const Config& config, const PackedRows& rows, double scale);
  const TrainingBatch& batch() const { return batch_; }

 private:
  TrainingBatch batch_;
  Buffer memory_;
  PinnedBuffer staging_;  // on a GPU
};

}  // namespace gov
