#pragma once
// The decode step: one row for each of several sequences. Here is the program's only virtual call, since on a GPU small
// batches are bound by memory and by the gaps between kernels, and there are several ways to close these.

#include <map>
#include <memory>
#include <string_view>

#include "model/transformer.h"
#include "tensor/device.h"

namespace gov {

// A way of running a batch that has one row for every sequence, as forward() does: appends to the cache and leaves the
// logits of row i in acts.logits[i]. Chosen once.
class DecodeStep {
 public:
  virtual ~DecodeStep() = default;
  virtual const char* path() const = 0;  // "ops", ...
  // On a GPU this is recorded in a graph: all work goes into ctx.stream, the host waits for nothing, and what the call
  // does depends on shapes, batch.max_rows and batch.max_keys only.
  virtual void run(Context& ctx, const Batch& batch) = 0;
};

// path: "auto", or one of those that path() names; Error kInvalidArgument for another. All must outlive the step.
//   ops         the composed ops
//   fused       one sequence: six kernels a layer (fused_decode.h); more: the composed ops
//   fused-int8  the same, attention and head matrices in int8
// auto takes fused where the model and the GPU allow it.
std::unique_ptr<DecodeStep> make_decode_step(const Model& model, const KvCache& cache, Activations& acts,
                                             std::string_view path = "auto");

// One sequence's part of a step.
struct DecodeRow {
  std::int32_t token = 0, position = 0;
  std::int64_t full_slot = 0, sliding_slot = 0;
  std::span<const std::int32_t> full_table, sliding_table;  // entries up to this position's block at least
};

struct DecodeStats {
  std::int64_t eager = 0, recorded = 0, replayed = 0;  // steps: run directly, recorded first, from a graph made before
};

// Runs decode steps on a GPU from graphs: one for each number of rows (rounded up, with padding) and each length of the
// longest sequence (rounded up to a power of two). The first step of a kind runs directly, the second is recorded, and
// later ones are replayed with the batch's arrays refreshed by one small copy.
class DecodeRunner {
 public:
  DecodeRunner(const Model& model, const KvCache& cache, Activations& acts, std::int64_t max_sequences,
               std::int64_t max_blocks, std::string_view path = "auto");

  const char* path() const { return step_->path(); }
  const DecodeStats& stats() const { return stats_; }

  // Brings the rows of the next step to the device. keep_tokens: the tokens are in tokens() already.
  void set(Context& ctx, std::span<const DecodeRow> rows, bool keep_tokens = false);
  // Runs the step of the rows that were set; logits of row i in acts.logits[i]. With `feed`, every sequence then moves
  // on by its likeliest token, on the device, and run() may be called again without set(): the block tables that were
  // set must reach that far. The tokens are in tokens().
  void run(Context& ctx, bool feed = false);
  Tensor tokens() const { return whole_.tokens.slice(0, rows_); }

 private:
  struct Kind {
    std::int64_t rows, keys;
    bool feed;
    auto operator<=>(const Kind&) const = default;
  };
  struct Recorded {
    Graph graph;
    std::int64_t generation = -1;  // of the workspace; -1: never ran
    Counters counters;             // of one step
  };
  void set_tables(Context& ctx, std::span<const DecodeRow> rows);
  void run_directly(Context& ctx, const Batch& batch, bool feed);

  Activations& acts_;
  std::int64_t block_size_, max_sequences_, max_blocks_;
  std::unique_ptr<DecodeStep> step_;
  Batch whole_;   // all arrays at full size, on the device
  Batch staged_;  // the same on the host
  Arena device_arena_;
  PinnedBuffer staging_;
  std::size_t header_bytes_ = 0;  // of the arrays before the tables
  Event copied_;
  std::int64_t rows_ = 0, longest_ = 0;  // of the step that was set
  std::map<Kind, Recorded> graphs_;
  DecodeStats stats_;
};

}  // namespace gov
