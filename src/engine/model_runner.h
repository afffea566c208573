#pragma once
// Runs one step of the scheduler: images, then the rows through the model, then one token for each row that wants one.

#include <array>
#include <deque>
#include <optional>

#include "engine/scheduler.h"
#include "model/activations.h"
#include "model/batch.h"
#include "model/decode.h"
#include "model/expert_load.h"
#include "model/transformer.h"
#include "ops/sample_device.h"
#include "tensor/device.h"

namespace gov {

struct Drawn {
  Sequence* sequence;
  ops::SampleResult result;     // token -1: the row had no finite logit
  std::int64_t logits_row = 0;  // that it was drawn from
  std::int64_t guessed = 0;     // rows of the sequence's step that are guesses
};

// A row of the last run's logits for the next token of a sequence.
struct DrawFrom {
  Sequence* sequence;
  std::int64_t logits_row;
  std::int64_t guessed;
};

class ModelRunner {
 public:
  // What a runner needs besides the model: the cache, the limits of a step, the most positions of a sequence, the type
  // of activations, the path of decode steps on a GPU.
  struct Plan {
    KvCacheSpec spec;
    SchedulerLimits limits;
    std::int64_t context = 0;
    DType dtype = DType::kF32;
    std::string decode_path = "auto";
  };
  // `model` and `pool` must outlive the runner. Allocates the cache and all activations where the model is.
  ModelRunner(const Model& model, const Plan& plan, ThreadPool& pool);

  // Pictures encoded at once.
  static std::int64_t most_images(DeviceKind device) { return device == DeviceKind::kCpu ? 1 : 4; }

  Context& context() { return ctx_; }
  // The rows that each expert has had so far, once everything started has run.
  void read_expert_load(ExpertLoad& load);
  // Spent on what constraints allow.
  double mask_seconds() const { return mask_seconds_; }
  // Null on the CPU.
  const DecodeRunner* decode() const { return decode_ ? &*decode_ : nullptr; }

  // Encodes the images of the request whose rows are in `rows` and that are not encoded yet; frees their pixels.
  // Returns how many.
  std::int64_t encode_images(const ScheduledRows& rows);
  // Runs the step. The images of all rows must be encoded. Draws a token for each sequence that wants one; of guessed
  // rows, only after the row before the first.
  std::vector<Drawn> run(const Step& step, const BlockManager& blocks);
  // Draws further tokens from the logits of that run.
  std::vector<Drawn> draw(std::span<const DrawFrom> rows);
  // What requests want of their prompts' rows in that run (prompt_rows.h). Nothing can be drawn from it afterwards.
  void read_prompts(const Step& step);
  // Whether the step can be started without waiting for it: one row of each sequence, on a GPU.
  bool can_start(const Step& step) const;
  // Starts such a step; finish() has its results later, in order. One step may be started ahead: before finish() of the
  // one before, with the same sequences, whose tokens it takes on the device.
  void start(const Step& step, const BlockManager& blocks, bool ahead);
  std::vector<Drawn> finish();
  void copy_blocks(std::span<const BlockCopy> copies);
  // Forgets what was started.
  void drop_started() { started_.clear(); }
  // Fills every free block with NaN, so that a test sees whether anything reads what no sequence owns.
  void poison_free_blocks(const BlockManager& blocks);

 private:
  void encode(RequestState& state, std::span<const std::size_t> images);
  void add_rows(const ScheduledRows& rows, const BlockManager& blocks);
  ops::SampleRow sample_row(Sequence& sequence, std::int64_t ahead);
  std::vector<Drawn> sample(const Step& step);

  const Model& model_;
  Stream stream_;
  Context ctx_;
  KvCache cache_;
  Activations acts_;
  Buffer expert_load_;  // acts_.expert_load
  std::optional<VisionActivations> vision_acts_;
  Buffer pixels_, embeds_;  // of the images encoded at once
  BatchBuilder batch_;
  std::optional<BatchUploader> uploader_;  // on a GPU
  std::optional<DecodeRunner> decode_;     // on a GPU
  struct Started {
    std::vector<Sequence*> sequences;
    std::size_t sampler;
  };
  std::deque<Started> started_;
  std::array<ops::DeviceSampler, 2> samplers_;  // in turn
  std::size_t turn_ = 0;
  double mask_seconds_ = 0;
};

}  // namespace gov
