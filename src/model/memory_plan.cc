#include "model/memory_plan.h"

#include <algorithm>

#include "model/activations.h"
#include "model/batch.h"
#include "model/parameters.h"

namespace gov {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

// What the driver, the libraries and the kernels' code take of a GPU, and a margin for its allocator.
constexpr std::uint64_t kDeviceReserve = std::uint64_t{640} << 20;

// Scratch inside the largest op: the mixture of experts holds its permuted rows, both projections and their results. On
// a GPU the parts of attention over long contexts come to less.
std::uint64_t moe_workspace(const Config& c, const RunShape& shape) {
  const std::int64_t per_choice = c.hidden_size * 2 + c.intermediate_size * 3;
  return static_cast<std::uint64_t>(shape.chunk * c.num_experts_per_tok * per_choice) * sizeof(float);
}

void count(WeightForms& forms, Part part, std::uint64_t bytes) {
  switch (part) {
    case Part::kExperts: forms.experts += bytes; break;
    case Part::kEmbedding:
    case Part::kHead: forms.embeddings += bytes; break;
    case Part::kVision: forms.vision += bytes; break;
    case Part::kAttention:
    case Part::kRouter:
    case Part::kNorm: forms.attention += bytes; break;
  }
}

}  // namespace

std::string MemoryPlan::str() const {
  const auto line = [](const char* what, std::uint64_t bytes) {
    return fmt::format("  {:<18}{:>10.3f} GiB\n", what, static_cast<double>(bytes) / kGiB);
  };
  std::string text;
  if (device == DeviceKind::kCpu) {
    text += line("weights, mapped", weights_mapped) + line("weights, owned", weights_owned);
  } else {
    text += line("experts", forms.experts) + line("experts, bf16", forms.expanded) +
            line("attention", forms.attention) + line("embeddings, head", forms.embeddings) +
            line("vision", forms.vision);
  }
  text += line("KV cache", kv_cache) + line("activations", activations) + line("workspace", workspace);
  if (reserve > 0) text += line("reserve", reserve);
  return text + line("total", total()) + line("limit", limit);
}

WeightForms weight_forms(const Config& config) {
  const std::uint64_t element = config.dtype == "float32" ? 4 : 2;
  WeightForms forms;
  for (const ParameterSpec& spec : parameter_table(config)) {
    count(forms, spec.part,
          static_cast<std::uint64_t>(spec.shape.elements()) * (spec.storage == Storage::kU8 ? 1 : element));
  }
  return forms;
}

WeightForms weight_forms(const Config& config, const Weights& weights) {
  WeightForms forms;
  for_each_parameter(config, const_cast<Weights&>(weights),  // sized already, so nothing changes

                     [&](const ParameterSpec& spec, Tensor& t) { count(forms, spec.part, t.bytes()); });
  for (const LayerWeights& layer : weights.layers) {
    for (const ops::ExpertProjection* p : {&layer.moe.gate_up, &layer.moe.down}) {
      if (p->expanded) forms.expanded += p->expanded.bytes();
    }
  }
  return forms;
}

std::uint64_t stored_weight_bytes(const Config& config) { return weight_forms(config).total(); }

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
  plan.activations = Activations::bytes(config, shape.chunk, logits_rows, shape.place);
  if (config.use_vision && shape.images > 0)
    plan.activations += VisionActivations::bytes(config, shape.images, shape.place);
  plan.workspace = moe_workspace(config, shape);
  plan.device = shape.place.device;
  if (plan.device != DeviceKind::kCpu) {
    plan.activations += BatchUploader::bytes(shape.chunk, shape.sequences,
                                             full_blocks_needed({shape.block_size}, shape.context), config.hidden_size);
    plan.reserve = kDeviceReserve;
  }
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
