// Mixture of experts: the (token, k) pairs are sorted by expert, each expert's tokens go through its two projections as
// one matrix product, and the results are combined per token in ascending k.
#include "ops/cpu_support.h"
#include "ops/ops_list.h"

namespace gov::ops::cpu {
namespace {

constexpr std::int64_t kRowBlock = 64;    // weight rows per task; 64 gate/up rows are 32 activations: one MXFP4 block
constexpr std::int64_t kTokenBlock = 64;  // tokens per kernel call

// Pairs sorted by expert. "Slot" is a pair's place in that order.
struct Routing {
  std::int32_t* start;   // [E + 1]: first slot of each expert
  std::int32_t* token;   // [slots]: the token of a slot
  std::int32_t* slot;    // [T, K]: the slot of a pair
  std::int32_t* active;  // experts with at least one slot
  std::int64_t active_count;
};

Routing sort_by_expert(Context& ctx, const Tensor& indices, std::int64_t experts) {
  const std::int64_t tokens = indices.shape[0], count = indices.shape[1], slots = tokens * count;
  Workspace& workspace = ctx.workspace;
  Routing r{workspace.take<std::int32_t>(experts + 1), workspace.take<std::int32_t>(slots),
            workspace.take<std::int32_t>(slots), workspace.take<std::int32_t>(experts), 0};
  std::int32_t* next = workspace.take<std::int32_t>(experts);
  std::fill(next, next + experts, 0);
  const std::int32_t* expert = indices.as<std::int32_t>();
  for (std::int64_t i = 0; i < slots; ++i) {
    if (expert[i] < 0 || expert[i] >= experts) {
      fail(ErrorCode::kInvalidArgument, "moe: expert {} of token {} is outside [0, {})", expert[i], i / count, experts);
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
    r.token[r.slot[i]] = static_cast<std::int32_t>(i / count);
  }
  return r;
}

// A projection with the kernel that suits its weights.
struct Projection {
  const ExpertProjection& p;
  void (*kernel)(const LinearArgs&);
  bool mxfp4;
  std::int64_t in, out;

  Projection(const Kernels& table, const ExpertProjection& projection)
      : p(projection),
        kernel(projection.blocks ? table.linear_mxfp4 : dense_kernel(table, projection.weight.dtype)),
        mxfp4(static_cast<bool>(projection.blocks)),
        in(projection.in_features()),
        out(projection.out_features()) {}

  // Arguments for rows [row, row + rows) of one expert.
  LinearArgs rows_of(std::int64_t expert, std::int64_t row, std::int64_t rows, BiasBlock& bias) const {
    LinearArgs args{};
    const std::size_t index = static_cast<std::size_t>(expert * out + row);
    if (mxfp4) {
      args.weight = p.blocks.as<std::uint8_t>() + index * static_cast<std::size_t>(in / 2);
      args.scales = p.scales.as<std::uint8_t>() + index * static_cast<std::size_t>(in / 32);
    } else {
      args.weight =
          static_cast<const char*>(p.weight.data) + index * static_cast<std::size_t>(in) * dtype_size(p.weight.dtype);
    }
    args.in = in;
    args.x_stride = in;
    args.rows = rows;
    args.bias = bias.load(p.bias, expert * out + row, rows);
    return args;
  }
};

// Calls body(expert, row block) for every active expert and block of `rows` rows, in parallel.
template <class Body>
void for_expert_blocks(Context& ctx, const Routing& routing, std::int64_t rows, Body&& body) {
  const std::int64_t blocks = (rows + kRowBlock - 1) / kRowBlock;
  ctx.pool->parallel_for(routing.active_count * blocks, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) body(routing.active[i / blocks], i % blocks * kRowBlock);
  });
}

// activations [slots, I] = swiglu(gate_up x), packed for an MXFP4 down projection.
void gate_up_and_swiglu(Context& ctx, const Kernels& table, const Routing& routing, const Projection& gate_up,
                        const float* x, float alpha, float limit, bool pack_output, float* activations) {
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
      for (std::int64_t t = 0; t < args.tokens; ++t) {
        float* to = activations + (slot + t) * width + row / 2;
        table.swiglu(h + t * kRowBlock, args.rows / 2, alpha, limit, pack_output ? a : to);
        if (pack_output) table.pack(a, args.rows / 2, to);
      }
    }
  });
}

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

void moe(Context& ctx, const Tensor& x, const Tensor& indices, const Tensor& weights, const ExpertProjection& gate_up,
         const ExpertProjection& down, float alpha, float limit, const Tensor& out) {
  const Kernels& table = kernels(ctx.isa);
  const Projection up(table, gate_up), down_rows(table, down);
  const std::int64_t tokens = x.shape[0], hidden = x.shape[1], count = indices.shape[1], slots = tokens * count;
  const Routing routing = sort_by_expert(ctx, indices, gate_up.experts());
  const float* input = x.as<float>();
  if (up.mxfp4) {
    float* packed = ctx.workspace.take<float>(tokens * hidden);
    for_rows(ctx, tokens, hidden, [&](std::int64_t t) { table.pack(input + t * hidden, hidden, packed + t * hidden); });
    input = packed;
  }
  float* activations = ctx.workspace.take<float>(slots * down_rows.in);
  float* y = ctx.workspace.take<float>(slots * hidden);
  gate_up_and_swiglu(ctx, table, routing, up, input, alpha, limit, down_rows.mxfp4, activations);
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

}  // namespace gov::ops::cpu
