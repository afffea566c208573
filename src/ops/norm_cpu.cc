#include "ops/cpu_support.h"
#include "ops/ops_list.h"

namespace gov::ops::cpu {

void rms_norm(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& out) {
  const Kernels& table = kernels(ctx.isa);
  const float* w = widen(ctx, weight);
  const std::int64_t width = x.shape[1];
  for_rows(ctx, x.shape[0], width, [&](std::int64_t t) {
    table.rms_norm(x.as<float>() + t * width, w, width, eps, out.as<float>() + t * width);
  });
}

void layer_norm(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, const Tensor& out) {
  const Kernels& table = kernels(ctx.isa);
  const float* w = widen(ctx, weight);
  const float* b = widen(ctx, bias);
  const std::int64_t width = x.shape[1];
  for_rows(ctx, x.shape[0], width, [&](std::int64_t t) {
    table.layer_norm(x.as<float>() + t * width, w, b, width, eps, out.as<float>() + t * width);
  });
}

}  // namespace gov::ops::cpu
