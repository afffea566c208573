#pragma once
// What a run will hold in memory, known before anything large is allocated, and refused when it cannot fit.

#include <cstdint>
#include <string>

#include "model/activations.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/weights.h"

namespace gov {

// Bytes of weights by what they are for.
struct WeightForms {
  std::uint64_t experts = 0;     // as stored: MXFP4, or dense
  std::uint64_t expanded = 0;    // their second form in BF16, on a GPU
  std::uint64_t attention = 0;   // with norms and routers
  std::uint64_t embeddings = 0;  // and the head
  std::uint64_t vision = 0;
  std::uint64_t total() const { return experts + expanded + attention + embeddings + vision; }
};
// Of a model as written (stored_weight_bytes), or of these weights.
WeightForms weight_forms(const Config& config);
WeightForms weight_forms(const Config& config, const Weights& weights);

struct MemoryPlan {
  DeviceKind device = DeviceKind::kCpu;  // whose memory
  WeightForms forms;                     // on a GPU: the parts of weights_owned
  std::uint64_t weights_mapped = 0;      // in the page cache: shared, reclaimable, but must stay resident to be fast
  std::uint64_t weights_owned = 0;
  std::uint64_t kv_cache = 0;
  std::uint64_t activations = 0;  // text and vision, logits included
  std::uint64_t workspace = 0;    // estimate for the inside of the largest op
  std::uint64_t reserve = 0;      // on a GPU: for its driver and libraries
  std::uint64_t limit = 0;        // --memory-limit, or what the machine or the GPU has

  std::uint64_t total() const { return weights_mapped + weights_owned + kv_cache + activations + workspace + reserve; }
  std::string str() const;  // a table of several lines
};

struct RunShape {
  std::int64_t context = 0;    // most positions of one sequence
  std::int64_t sequences = 1;  // at once
  std::int64_t chunk = 512;    // most rows of one step
  std::int64_t images = 1;     // encoded at once
  DType kv_dtype = DType::kF32;
  std::int64_t block_size = 16;
  std::int64_t logits_rows = 0;  // 0 = sequences
  Place place;                   // of cache and activations; weights count as owned on a GPU
};

// Bytes of the tensors as stored when `config` is written (bf16, MXFP4 experts where quantised).
std::uint64_t stored_weight_bytes(const Config& config);
KvCacheSpec kv_spec_for(const Config& config, const RunShape& shape);
MemoryPlan plan_memory(const Config& config, std::uint64_t weights_mapped, std::uint64_t weights_owned,
                       const RunShape& shape, std::uint64_t limit);
// Throws Error kOutOfMemory with the total, the limit and what to reduce.
void require_fits(const MemoryPlan& plan);

}  // namespace gov
