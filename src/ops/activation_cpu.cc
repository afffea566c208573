#include "ops/cpu_support.h"
#include "ops/ops_list.h"

namespace gov::ops::cpu {

void swiglu(Context& ctx, const Tensor& h, float alpha, float limit, const Tensor& out) {
  const Kernels& table = kernels(ctx.isa);
  const std::int64_t width = out.shape[1];
  for_rows(ctx, out.shape[0], width * 4, [&](std::int64_t t) {
    table.swiglu(h.as<float>() + t * 2 * width, width, alpha, limit, out.as<float>() + t * width);
  });
}

void gelu(Context& ctx, const Tensor& x, Gelu kind, const Tensor& out) {
  const Kernels& table = kernels(ctx.isa);
  const auto kernel = kind == Gelu::kErf ? table.gelu_erf : kind == Gelu::kTanh ? table.gelu_tanh : table.gelu_quick;
  constexpr std::int64_t kRun = 1024;  // a multiple of every vector length: no element changes its place in a vector
  const std::int64_t count = x.elements();
  for_rows(ctx, (count + kRun - 1) / kRun, kRun * 4, [&](std::int64_t run) {
    const std::int64_t begin = run * kRun;
    kernel(x.as<float>() + begin, std::min(kRun, count - begin), out.as<float>() + begin);
  });
}

}  // namespace gov::ops::cpu
