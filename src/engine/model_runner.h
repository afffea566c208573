#pragma once
// Runs one step of the scheduler: images, then the rows through the model, then one token for each row that wants one.

#include <optional>

#include "engine/scheduler.h"
#include "model/activations.h"
#include "model/batch.h"
#include "model/transformer.h"

namespace gov {

struct Drawn {
  Sequence* sequence;
  ops::SampleResult result;  // token -1: the row had no finite logit
};

class ModelRunner {
 public:
  // `model` and `pool` must outlive the runner. Allocates the cache and all activations.
  ModelRunner(const Model& model, const KvCacheSpec& spec, const SchedulerLimits& limits, ThreadPool& pool);

  Context& context() { return ctx_; }

  // Encodes the images of the request whose rows are in `rows` and that are not encoded yet; frees their pixels.
  // Returns how many.
  std::int64_t encode_images(const ScheduledRows& rows);
  // Runs the step. The images of all rows must be encoded.
  std::vector<Drawn> run(const Step& step, const BlockManager& blocks);
  // Fills every free block with NaN, so that a test sees whether anything reads what no sequence owns.
  void poison_free_blocks(const BlockManager& blocks);

 private:
  void copy_block(const BlockCopy& copy);
  void add_rows(const ScheduledRows& rows, const BlockManager& blocks);
  std::vector<Drawn> sample(const Step& step);

  const Model& model_;
  Context ctx_;
  KvCache cache_;
  Activations acts_;
  std::optional<VisionActivations> vision_acts_;
  BatchBuilder batch_;
};

}  // namespace gov
