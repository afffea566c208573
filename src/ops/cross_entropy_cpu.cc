#include <cmath>
#include <limits>

#include "ops/cpu_support.h"
#include "ops/ops_list.h"

namespace gov::ops::cpu {

void cross_entropy(Context& ctx, const Tensor& logits, const Tensor& targets, const Tensor& losses) {
  const Kernels& table = kernels(ctx.isa);
  const std::int64_t vocabulary = logits.shape[1];
  const std::int32_t* target = targets.as<std::int32_t>();
  for (std::int64_t t = 0; t < targets.elements(); ++t) {
    if (target[t] >= vocabulary) {
      fail(ErrorCode::kInvalidArgument, "cross_entropy: target {} at {} is outside the {} classes", target[t], t,
           vocabulary);
    }
  }
  for_rows(ctx, logits.shape[0], vocabulary, [&](std::int64_t t) {
    float& loss = losses.as<float>()[t];
    loss = 0.f;
    if (target[t] < 0) return;
    const float* row = logits.as<float>() + t * vocabulary;
    float largest = -std::numeric_limits<float>::infinity();
    for (std::int64_t i = 0; i < vocabulary; ++i) largest = row[i] > largest ? row[i] : largest;
    const double sum = table.exp_sum(row, vocabulary, largest, 1.f, nullptr);
    loss = static_cast<float>(std::log(sum) + static_cast<double>(largest) - static_cast<double>(row[target[t]]));
  });
}

}  // namespace gov::ops::cpu
