// Mixture of experts: the (token, k) pairs are sorted by expert, each expert's tokens go through its two projections as
// one matrix product, and the results are combined per token in ascending k.
#include "ops/moe_cpu.h"

#include "ops/ops_list.h"

namespace gov::ops {

using namespace moe_cpu;

Routing moe_cpu::sort_by_expert(Context& ctx, const char* op, const Tensor& indices, std::int64_t experts) {
  const std::int64_t tokens = indices.shape[0], count = indices.shape[1], slots = tokens * count;
  Workspace& workspace = ctx.workspace;
  Routing r{workspace.take<std::int32_t>(experts + 1), workspace.take<std::int32_t>(slots),
            workspace.take<std::int32_t>(slots),       workspace.take<std::int32_t>(slots),
            workspace.take<std::int32_t>(experts),     0};
  std::int32_t* next = workspace.take<std::int32_t>(experts);
  std::fill(next, next + experts, 0);
  const std::int32_t* expert = indices.as<std::int32_t>();
  for (std::int64_t i = 0; i < slots; ++i) {
    if (expert[i] < 0 || expert[i] >= experts) {
      fail(ErrorCode::kInvalidArgument, "{}: expert {} of token {} is outside [0, {})", op, expert[i], i / count,
           experts);
    }
    ++next[expert[i]];
  }
  std::int32_t total = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    r.start[e] = total;
    total += next[e];
    if (next[e] > 0) r.active[r.active_count++] = static_cast<std::int32_t>(e);
    next[e] = r.start[e];
  }
  r.start[experts] = total;
  for (std::int64_t i = 0; i < slots; ++i) {
    r.slot[i] = next[expert[i]]++;
    r.pair[r.slot[i]] = static_cast<std::int32_t>(i);
    r.token[r.slot[i]] = static_cast<std::int32_t>(i / count);
  }
  return r;
}

const float* moe_cpu::kernel_input(Context& ctx, const Projection& projection, const float* x, std::int64_t tokens) {
  if (!projection.mxfp4) return x;
  const Kernels& table = kernels(ctx.isa);
  const std::int64_t width = projection.in;
  float* packed = ctx.workspace.take<float>(tokens * width);
  for_rows(ctx, tokens, width, [&](std::int64_t t) { table.pack(x + t * width, width, packed + t * width); });
  return packed;
}

void moe_cpu::gate_up_and_swiglu(Context& ctx, const Routing& routing, const Projection& gate_up, const float* x,
                                 float alpha, float limit, const GateUpResults& results) {
  const Kernels& table = kernels(ctx.isa);
  const std::int64_t width = gate_up.out / 2;
  for_expert_blocks(ctx, routing, gate_up.out, [&](std::int64_t expert, std::int64_t row) {
    BiasBlock bias;
    float h[kTokenBlock * kRowBlock], a[kRowBlock / 2];
    LinearArgs args = gate_up.rows_of(expert, row, std::min(kRowBlock, gate_up.out - row), bias);
    args.x = x;
    args.out = h;
    args.out_stride = kRowBlock;
    const std::int64_t end = routing.start[expert + 1];
    for (std::int64_t slot = routing.start[expert]; slot < end; slot += kTokenBlock) {
      args.x_rows = routing.token + slot;
      args.tokens = std::min(kTokenBlock, end - slot);
      gate_up.kernel(args);
      for (std::int64_t t = 0; results.h && t < args.tokens; ++t) {
        const std::int64_t to = results.h_rows ? results.h_rows[slot + t] : slot + t;
        std::copy_n(h + t * kRowBlock, args.rows, results.h + to * gate_up.out + row);
      }
      for (std::int64_t t = 0; results.activations && t < args.tokens; ++t) {
        float* to = results.activations + (slot + t) * width + row / 2;
        table.swiglu(h + t * kRowBlock, args.rows / 2, alpha, limit, results.packed ? a : to);
        if (results.packed) table.pack(a, args.rows / 2, to);
      }
    }
  });
}

namespace {

void down_projection(Context& ctx, const Routing& routing, const Projection& down, const float* activations, float* y) {
  for_expert_blocks(ctx, routing, down.out, [&](std::int64_t expert, std::int64_t row) {
    BiasBlock bias;
    LinearArgs args = down.rows_of(expert, row, std::min(kRowBlock, down.out - row), bias);
    const std::int64_t end = routing.start[expert + 1];
    for (std::int64_t slot = routing.start[expert]; slot < end; slot += kTokenBlock) {
      args.x = activations + slot * down.in;
      args.tokens = std::min(kTokenBlock, end - slot);
      args.out = y + slot * down.out + row;
      args.out_stride = down.out;
      down.kernel(args);
    }
  });
}

}  // namespace

void cpu::moe_forward(Context& ctx, const Tensor& x, const Tensor& indices, const Tensor& weights,
                      const ExpertProjection& gate_up, const ExpertProjection& down, float alpha, float limit,
                      const Tensor& out, const Tensor& h) {
  const Kernels& table = kernels(ctx.isa);
  const Projection up(table, gate_up), down_rows(table, down);
  const std::int64_t tokens = x.shape[0], hidden = x.shape[1], count = indices.shape[1], slots = tokens * count;
  const Routing routing = sort_by_expert(ctx, "moe", indices, gate_up.experts());
  const float* input = kernel_input(ctx, up, x.as<float>(), tokens);
  float* activations = ctx.workspace.take<float>(slots * down_rows.in);
  float* y = ctx.workspace.take<float>(slots * hidden);
  gate_up_and_swiglu(ctx, routing, up, input, alpha, limit,
                     {activations, down_rows.mxfp4, h ? h.as<float>() : nullptr, routing.pair});
  down_projection(ctx, routing, down_rows, activations, y);
  for_rows(ctx, tokens, hidden * count, [&](std::int64_t t) {
    const float* w = weights.as<float>() + t * count;
    float* to = out.as<float>() + t * hidden;
    constexpr std::int64_t kRun = 256;  // columns whose sums stay in the first-level cache
    for (std::int64_t begin = 0; begin < hidden; begin += kRun) {
      const std::int64_t run = std::min(kRun, hidden - begin);
      float sum[kRun] = {};
      for (std::int64_t k = 0; k < count; ++k) {
        const float* row = y + routing.slot[t * count + k] * hidden + begin;
        for (std::int64_t i = 0; i < run; ++i) sum[i] += w[k] * row[i];
      }
      for (std::int64_t i = 0; i < run; ++i) to[begin + i] += sum[i];
    }
  });
}

void cpu::moe(Context& ctx, const Tensor& x, const Tensor& indices, const Tensor& weights,
              const ExpertProjection& gate_up, const ExpertProjection& down, float alpha, float limit,
              const Tensor& out) {
  cpu::moe_forward(ctx, x, indices, weights, gate_up, down, alpha, limit, out, {});
}

}  // namespace gov::ops
