#pragma once
// Batch: one packed layout for prefill, decode and their mixture. S sequences, T rows in all, sequence after sequence.

#include <array>
#include <cstdint>
#include <vector>

#include "tensor/device.h"

namespace gov {

// Where one group of layers keeps its keys and values for the rows of a batch.
struct BatchCache {
  Tensor slots;         // I64 [T], block * block_size + row in the block, for each row's own key
  Tensor block_tables;  // I32 [S, max_blocks], physical block of each logical block, -1 where freed or unused
};

struct Batch {
  Tensor tokens;         // I32 [T]; rows that an image fills hold 0
  Tensor positions;      // I32 [T], from 0 within each sequence
  Tensor modality;       // U8 [T], 1 on image rows
  Tensor cu_seqlens;     // I32 [S + 1]
  Tensor kv_lens;        // I32 [S], keys of each sequence after this batch
  BatchCache full;       // layers that see everything
  BatchCache sliding;    // layers that see a window
  Tensor logits_rows;    // I32 [R], rows whose logits are wanted, ascending
  Tensor vision_rows;    // I32 [N], the image rows of the batch, ascending; may be empty
  Tensor vision_embeds;  // F32 [N, H], their embeddings, in the same order
  // What the host knows of the lengths, for the choice of kernels: most rows and keys of one sequence.
  std::int64_t max_rows = 0, max_keys = 0;
};

// Row `row` of an encoded image [rows, H], on the device of the batch.
struct ImageRow {
  const float* image = nullptr;
  std::int64_t row = 0;
};

// Owner of a batch on the host, filled row by row.
class BatchBuilder {
 public:
  // Starts an empty batch; max_blocks: entries of one block table row.
  void clear(std::int64_t max_blocks);
  // Starts the next sequence, which will have kv_len keys after this batch.
  void begin_sequence(std::int32_t kv_len, std::span<const std::int32_t> full_table,
                      std::span<const std::int32_t> sliding_table);
  // Appends a row to the current sequence: of an image, whose memory is read when the batch is made, or a text token.
  void add_row(std::int32_t token, std::int32_t position, std::int64_t full_slot, std::int64_t sliding_slot,
               ImageRow image = {});
  // Asks for the logits of the row added last.
  void want_logits();
  std::int64_t rows() const { return static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t logits_rows() const { return static_cast<std::int64_t>(logits_rows_.size()); }
  // Views of the vectors; valid until the next change.
  Batch view(std::int64_t hidden_size);

 private:
  friend class BatchUploader;
  Batch describe() const;  // without the embeddings

  std::int64_t max_blocks_ = 0, max_rows_ = 0;
  std::vector<std::int32_t> tokens_, positions_, cu_seqlens_, kv_lens_, logits_rows_, vision_rows_;
  std::vector<std::uint8_t> modality_;
  std::vector<std::int64_t> full_slots_, sliding_slots_;
  std::vector<std::int32_t> full_tables_, sliding_tables_;
  std::vector<ImageRow> image_rows_;  // [vision_rows_]
  std::vector<float> vision_embeds_;  // of view()
};

// Brings batches to a GPU: everything is put into one page-locked buffer and goes over in one copy.
class BatchUploader {
 public:
  // Memory on the device for batches of up to `rows` rows, `sequences` sequences and `max_blocks` entries a table, with
  // up to `rows` image rows.
  BatchUploader(std::int64_t rows, std::int64_t sequences, std::int64_t max_blocks, std::int64_t hidden_size);
  // The batch in device memory, valid for work in `stream` until the next call. Image rows are device memory, too.
  Batch upload(const BatchBuilder& builder, void* stream);
  static std::uint64_t bytes(std::int64_t rows, std::int64_t sequences, std::int64_t max_blocks,
                             std::int64_t hidden_size);

 private:
  struct Staging {
    PinnedBuffer buffer;
    Event copied;
  };
  Buffer device_, embeds_;
  std::array<Staging, 2> staging_;  // in turn: the host fills one while the other's copy may still wait
  std::int64_t hidden_size_;
};

}  // namespace gov
