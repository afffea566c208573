#include "model/memory_plan.h"

#include <algorithm>

#include "model/activations.h"
#include "model/parameters.h"

namespace gov {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

// Scratch inside the largest op: the mixture of experts holds its permuted rows, both projections and their results.
std::uint64_t moe_workspace(const Config& c, std::int64_t rows) {
  const std::int64_t per_choice = c.hidden_size * 2 + c.intermediate_size * 3;
  return static_cast<std::uint64_t>(rows * c.num_experts_per_tok * per_choice) * sizeof(float);
}

}  // namespace

std::string MemoryPlan::str() const {
  const auto line = [](const char* what, std::uint64_t bytes) {
    return fmt::format("  {:<18}{:>10.3f} GiB\n", what, static_cast<double>(bytes) / kGiB);
  };
  return line("weights, mapped", weights_mapped) + line("weights, owned", weights_owned) + line("KV cache", kv_cache) +
         line("activations", activations) + line("workspace", workspace) + line("total", total()) +
         line("limit", limit);
}

std::uint64_t stored_weight_bytes(const Config& config) {
  const std::uint64_t element = config.dtype == "float32" ? 4 : 2;
  std::uint64_t bytes = 0;
  for (const ParameterSpec& spec : parameter_table(config)) {
    bytes += static_cast<std::uint64_t>(spec.shape.elements()) * (spec.storage == Storage::kU8 ? 1 : element);
  }
  return bytes;
}

KvCacheSpec kv_spec_for(const Config& config, const RunShape& shape) {
  KvCacheSpec spec;
  spec.block_size = shape.block_size;
  spec.dtype = shape.kv_dtype;
  spec.full_blocks = shape.sequences * full_blocks_needed(spec, shape.context);
  spec.sliding_blocks = shape.sequences * sliding_blocks_needed(spec, config, shape.context, shape.chunk);
  return spec;
}

MemoryPlan plan_memory(const Config& config, std::uint64_t weights_mapped, std::uint64_t weights_owned,
                       const RunShape& shape, std::uint64_t limit) {
  MemoryPlan plan;
  plan.weights_mapped = weights_mapped;
  plan.weights_owned = weights_owned;
  plan.kv_cache = kv_cache_bytes(config, kv_spec_for(config, shape));
  const std::int64_t logits_rows = shape.logits_rows > 0 ? shape.logits_rows : shape.sequences;
  plan.activations = Activations::bytes(config, shape.chunk, logits_rows);
  if (config.use_vision && shape.images > 0) plan.activations += VisionActivations::bytes(config, shape.images);
  plan.workspace = moe_workspace(config, shape.chunk);
  plan.limit = limit;
  return plan;
}

void require_fits(const MemoryPlan& plan) {
  if (plan.total() <= plan.limit) return;
  const auto size = [](std::uint64_t bytes) {
    const double gib = static_cast<double>(bytes) / kGiB;
    return gib < 1 ? fmt::format("{:.1f} MiB", gib * 1024) : fmt::format("{:.2f} GiB", gib);
  };
  fail(ErrorCode::kOutOfMemory,
       "the run needs {} (weights {}, KV cache {}, activations and workspace {}) and {} may be used: lower the "
       "context, the "
       "number of sequences or the chunk, or raise the memory limit",
       size(plan.total()), size(plan.weights_mapped + plan.weights_owned), size(plan.kv_cache),
       size(plan.activations + plan.workspace), size(plan.limit));
}

}  // namespace gov
