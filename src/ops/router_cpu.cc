#include <cmath>

#include "ops/cpu_support.h"
#include "ops/ops_list.h"

namespace gov::ops::cpu {
namespace {

// The K largest logits in descending order, ties to the lower index; NaN counts as the smallest. Then softmax over the
// K.
void select_experts(const float* logits, std::int64_t experts, std::int64_t count, std::int32_t* indices,
                    float* weights) {
  bool taken[1024] = {};
  for (std::int64_t k = 0; k < count; ++k) {
    std::int64_t best = -1;
    for (std::int64_t e = 0; e < experts; ++e) {
      if (taken[e]) continue;
      if (best < 0 || logits[e] > logits[best] || (std::isnan(logits[best]) && !std::isnan(logits[e]))) best = e;
    }
    taken[best] = true;
    indices[k] = static_cast<std::int32_t>(best);
    weights[k] = logits[best];
  }
  const float largest = weights[0];
  float sum = 0;
  for (std::int64_t k = 0; k < count; ++k) {
    weights[k] = std::exp(weights[k] - largest);
    sum += weights[k];
  }
  for (std::int64_t k = 0; k < count; ++k) weights[k] /= sum;
}

}  // namespace

void router(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& vision_bias,
            const Tensor& modality, const Tensor& logits, const Tensor& indices, const Tensor& weights) {
  const std::int64_t experts = weight.shape[0], count = indices.shape[1];
  const float* vision = vision_bias ? widen(ctx, vision_bias) : nullptr;
  linear_all_rows(ctx, x.as<float>(), x.shape[0], x.shape[1], weight, experts, bias, logits.as<float>(), false);
  for_rows(ctx, x.shape[0], experts * count, [&](std::int64_t t) {
    float* row = logits.as<float>() + t * experts;
    if (vision && modality && modality.as<std::uint8_t>()[t] != 0) {
      for (std::int64_t e = 0; e < experts; ++e) row[e] += vision[e];
    }
    select_experts(row, experts, count, indices.as<std::int32_t>() + t * count, weights.as<float>() + t * count);
  });
}

void expert_load(Context&, const Tensor& indices, const Tensor& modality, const Tensor& slots, const Tensor& counts) {
  const std::int64_t layers = indices.shape[0], chosen = indices.shape[2], experts = counts.shape[2];
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const std::int32_t* index = indices.slice(layer, 1).as<std::int32_t>();
    for (std::int64_t row = 0; row < modality.shape[0]; ++row, index += chosen) {
      if (slots.as<std::int64_t>()[row] < 0) continue;
      const std::int64_t kind = modality.as<std::uint8_t>()[row] != 0;
      std::int64_t* count = counts.as<std::int64_t>() + (kind * layers + layer) * experts;
      for (std::int64_t k = 0; k < chosen; ++k) {
        if (index[k] >= 0 && index[k] < experts) ++count[index[k]];
      }
    }
  }
}

}  // namespace gov::ops::cpu
