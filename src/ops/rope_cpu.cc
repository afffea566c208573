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

// No path on the CPU packs its projections: this is the op's plain composition.
void qkv_rope_append(Context& ctx, const Tensor& qkv, const Tensor& cos, const Tensor& sin, const Tensor& slots,
                     const Tensor& q, const Tensor& k_cache, const Tensor& v_cache) {
  const std::int64_t rows = q.shape[0], q_size = q.shape[1] * q.shape[2], kv_size = k_cache.shape[1] * q.shape[2];
  const Shape kv_shape{rows, k_cache.shape[1], q.shape[2]};
  const std::size_t kv_bytes = static_cast<std::size_t>(rows * kv_size) * sizeof(float);
  const Buffer k(kv_bytes, DeviceKind::kCpu, "qkv_rope_append"), v(kv_bytes, DeviceKind::kCpu, "qkv_rope_append");
  const Tensor keys(k.data(), DType::kF32, kv_shape, "k"), values(v.data(), DType::kF32, kv_shape, "v");
  for_rows(ctx, rows, q_size + 2 * kv_size, [&](std::int64_t t) {
    const float* row = qkv.as<float>() + t * (q_size + 2 * kv_size);
    std::copy_n(row, q_size, q.as<float>() + t * q_size);
    std::copy_n(row + q_size, kv_size, keys.as<float>() + t * kv_size);
    std::copy_n(row + q_size + kv_size, kv_size, values.as<float>() + t * kv_size);
  });
  if (cos) {
    rope(ctx, cos, sin, q);
    rope(ctx, cos, sin, keys);
  }
  kv_append(ctx, keys, values, slots, k_cache, v_cache);
}

}  // namespace gov::ops::cpu
