// The derivative of the mixture of experts, on the pairs sorted by expert.
#include <vector>

#include "ops/moe_cpu.h"
#include "ops/ops_list.h"
#include "ops/product_cpu.h"
#include "tensor/device.h"

namespace gov::ops {
namespace {

using namespace moe_cpu;

// [slots, width] with the rows of x that the pairs read.
float* gather(Context& ctx, const float* x, std::int64_t width, const std::int32_t* rows, std::int64_t slots) {
  float* to = ctx.workspace.take<float>(slots * width);
  for_rows(ctx, slots, width, [&](std::int64_t s) { std::copy_n(x + rows[s] * width, width, to + s * width); });
  return to;
}

// Row 0 of an expert's matrix.
Factor factor_of(const ExpertProjection& p, std::int64_t expert) {
  const std::int64_t out = p.out_features(), in = p.in_features();
  if (!p.blocks) return Factor::of(p.weight, in, expert * out);
  return {p.blocks.as<std::uint8_t>() + expert * out * in / 2, DType::kU8,
          p.scales.as<std::uint8_t>() + expert * out * in / 32, in};
}

// dx [slots, in] = dout [slots, out] W of each slot's expert.
void input_gradient(Context& ctx, const Routing& routing, const ExpertProjection& p, const float* dout, float* dx) {
  const std::int64_t out = p.out_features(), in = p.in_features();
  std::vector<Product> products;
  for (std::int64_t i = 0; i < routing.active_count; ++i) {
    const std::int64_t expert = routing.active[i], begin = routing.start[expert];
    products.push_back(input_product(dout + begin * out, routing.start[expert + 1] - begin, out, factor_of(p, expert),
                                     in, dx + begin * in, false));
  }
  run_products(ctx, products);
}

void weight_gradients(Context& ctx, const Routing& routing, const ExpertProjection& p, const float* dout,
                      const float* x, const ExpertGradients& to) {
  for (const Tensor* t : {&to.dweight, &to.dbias})
    if (!to.accumulate && *t) fill_bytes(t->data, DeviceKind::kCpu, 0, t->bytes(), nullptr);
  const std::int64_t out = p.out_features(), in = p.in_features();
  std::vector<Product> products;
  std::vector<ColumnSum> sums;
  for (std::int64_t i = 0; i < routing.active_count; ++i) {
    const std::int64_t expert = routing.active[i], begin = routing.start[expert];
    const std::int64_t rows = routing.start[expert + 1] - begin;
    if (to.dweight)
      products.push_back(weight_product(dout + begin * out, rows, out, x + begin * in, in,
                                        to.dweight.as<float>() + expert * out * in));
    if (to.dbias) sums.push_back({dout + begin * out, rows, out, to.dbias.as<float>() + expert * out});
  }
  run_products(ctx, products);
  add_column_sums(ctx, sums);
}

// dweights of a slot, y . dout with y = W a + b: the product with W is in da already.
float weight_of_slot(const float* a, const float* da, std::int64_t inner, const float* bias, const float* dout,
                     std::int64_t hidden) {
  double sum = 0;
  for (std::int64_t i = 0; i < inner; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(da[i]);
  for (std::int64_t i = 0; bias && i < hidden; ++i) sum += static_cast<double>(bias[i]) * static_cast<double>(dout[i]);
  return static_cast<float>(sum);
}

}  // namespace

void cpu::moe_backward(Context& ctx, const Tensor& x, const Tensor& indices, const Tensor& weights,
                       const ExpertProjection& gate_up, const ExpertProjection& down, float alpha, float limit,
                       const Tensor& h, const Tensor& dout, const Tensor& dx, const Tensor& dweights,
                       const ExpertGradients& dgate_up, const ExpertGradients& ddown) {
  const Kernels& table = kernels(ctx.isa);
  const std::int64_t tokens = x.shape[0], hidden = x.shape[1], count = indices.shape[1], slots = tokens * count;
  const std::int64_t inner = down.in_features(), experts = gate_up.experts();
  const Routing routing = sort_by_expert(ctx, "moe_backward", indices, experts);
  std::int32_t* expert_of = ctx.workspace.take<std::int32_t>(slots);
  for (std::int64_t e = 0; e < experts; ++e)
    std::fill(expert_of + routing.start[e], expert_of + routing.start[e + 1], static_cast<std::int32_t>(e));

  float* dh = nullptr;  // first h itself
  if (h) {
    dh = gather(ctx, h.as<float>(), 2 * inner, routing.pair, slots);
  } else {
    const Projection up(table, gate_up);
    dh = ctx.workspace.take<float>(slots * 2 * inner);
    gate_up_and_swiglu(ctx, routing, up, kernel_input(ctx, up, x.as<float>(), tokens), alpha, limit,
                       {nullptr, false, dh, nullptr});
  }
  float* dy = gather(ctx, dout.as<float>(), hidden, routing.token, slots);  // not yet times the routing weight
  float* da = ctx.workspace.take<float>(slots * inner);
  float* activations = ctx.workspace.take<float>(slots * inner);
  input_gradient(ctx, routing, down, dy, da);
  const float* down_bias = down.bias ? widen(ctx, down.bias) : nullptr;
  for_rows(ctx, slots, 4 * (inner + hidden), [&](std::int64_t s) {
    const float w = weights.as<float>()[routing.pair[s]];
    float *a = activations + s * inner, *slope = da + s * inner, *row = dy + s * hidden;
    table.swiglu(dh + s * 2 * inner, inner, alpha, limit, a);
    dweights.as<float>()[routing.pair[s]] =
        weight_of_slot(a, slope, inner, down_bias ? down_bias + expert_of[s] * hidden : nullptr, row, hidden);
    for (std::int64_t i = 0; i < inner; ++i) slope[i] *= w;
    for (std::int64_t i = 0; i < hidden; ++i) row[i] *= w;
    table.swiglu_gradient(dh + s * 2 * inner, slope, inner, alpha, limit, dh + s * 2 * inner);
  });
  if (ddown.dweight || ddown.dbias) weight_gradients(ctx, routing, down, dy, activations, ddown);
  if (dgate_up.dweight || dgate_up.dbias) {
    const float* rows = dgate_up.dweight ? gather(ctx, x.as<float>(), hidden, routing.token, slots) : nullptr;
    weight_gradients(ctx, routing, gate_up, dh, rows, dgate_up);
  }
  if (!dx) return;
  input_gradient(ctx, routing, gate_up, dh, dy);
  for_rows(ctx, tokens, hidden * count, [&](std::int64_t t) {
    float* to = dx.as<float>() + t * hidden;
    for (std::int64_t k = 0; k < count; ++k) {
      const float* from = dy + routing.slot[t * count + k] * hidden;
      for (std::int64_t i = 0; i < hidden; ++i) to[i] = k == 0 ? from[i] : to[i] + from[i];
    }
  });
}

}  // namespace gov::ops
