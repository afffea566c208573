#include <cmath>

#include "ops/cpu_support.h"
#include "ops/ops_list.h"

namespace gov::ops::cpu {

void rope_table(Context& ctx, const Tensor& positions, const Tensor& inv_freq, float factor, const Tensor& cos,
                const Tensor& sin) {
  const std::int64_t half = inv_freq.elements();
  const std::int32_t* position = positions.as<std::int32_t>();
  const float* frequency = inv_freq.as<float>();
  for_rows(ctx, positions.elements(), half * 16, [&](std::int64_t t) {
    float* c = cos.as<float>() + t * half;
    float* s = sin.as<float>() + t * half;
    for (std::int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position[t]) * frequency[i];  // rounded here, as the reference model does
      c[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * factor;
      s[i] = static_cast<float>(std::sin(static_cast<double>(angle))) * factor;
    }
  });
}

void rope(Context& ctx, const Tensor& cos, const Tensor& sin, const Tensor& x) {
  const std::int64_t heads = x.shape[1], half = x.shape[2] / 2;
  for_rows(ctx, x.shape[0], heads * half * 2, [&](std::int64_t t) {
    const float* c = cos.as<float>() + t * half;
    const float* s = sin.as<float>() + t * half;
    for (std::int64_t h = 0; h < heads; ++h) {
      float* a = x.as<float>() + (t * heads + h) * 2 * half;
      float* b = a + half;
      for (std::int64_t i = 0; i < half; ++i) {
        const float first = a[i], second = b[i];
        a[i] = first * c[i] - second * s[i];
        b[i] = second * c[i] + first * s[i];
      }
    }
  });
}

}  // namespace gov::ops::cpu
