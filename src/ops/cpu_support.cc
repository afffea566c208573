#include "ops/cpu_support.h"

#include <cstring>

namespace gov::ops {

void widen_range(const Tensor& weight, std::int64_t offset, std::int64_t count, float* out) {
  if (weight.dtype == DType::kF32) {
    std::memcpy(out, weight.as<float>() + offset, static_cast<std::size_t>(count) * sizeof(float));
  } else if (weight.dtype == DType::kBF16) {
    const bf16* in = weight.as<bf16>() + offset;
    for (std::int64_t i = 0; i < count; ++i) out[i] = to_f32(in[i]);
  } else {
    const f16* in = weight.as<f16>() + offset;
    for (std::int64_t i = 0; i < count; ++i) out[i] = to_f32(in[i]);
  }
}

const float* widen(Context& ctx, const Tensor& weight) {
  if (weight.dtype == DType::kF32) return weight.as<float>();
  float* copy = ctx.workspace.take<float>(weight.elements());
  widen_range(weight, 0, weight.elements(), copy);
  return copy;
}

void (*dense_kernel(const Kernels& table, DType dtype))(const LinearArgs&) {
  if (dtype == DType::kF32) return table.linear_f32;
  return dtype == DType::kBF16 ? table.linear_bf16 : table.linear_f16;
}

}  // namespace gov::ops
