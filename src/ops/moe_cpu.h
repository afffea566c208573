#pragma once
// What both directions of the mixture of experts share: the (token, k) pairs sorted by expert, and the products of
// each expert's rows.

#include <algorithm>

#include "ops/cpu_support.h"
#include "ops/ops.h"

namespace gov::ops::moe_cpu {

inline constexpr std::int64_t kRowBlock =
    64;  // weight rows per task; 64 gate/up rows are 32 activations: one MXFP4 block
inline constexpr std::int64_t kTokenBlock = 64;  // tokens per kernel call

// Pairs sorted by expert. "Slot" is a pair's place in that order.
struct Routing {
  std::int32_t* start;   // [E + 1]: first slot of each expert
  std::int32_t* token;   // [slots]: the token of a slot
  std::int32_t* slot;    // [T, K]: the slot of a pair
  std::int32_t* pair;    // [slots]: the pair of a slot, t * K + k
  std::int32_t* active;  // experts with at least one slot
  std::int64_t active_count;
};

// op: for messages.
Routing sort_by_expert(Context& ctx, const char* op, const Tensor& indices, std::int64_t experts);

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

// x [T, H] as the kernel of `projection` takes it: in the op's own memory, or packed in the workspace.
const float* kernel_input(Context& ctx, const Projection& projection, const float* x, std::int64_t tokens);

// What gate_up_and_swiglu() leaves of the pairs; each may be null.
struct GateUpResults {
  float* activations = nullptr;  // [slots, I], packed for an MXFP4 down projection if `packed`
  bool packed = false;
  float* h = nullptr;                    // [slots, 2I]
  const std::int32_t* h_rows = nullptr;  // the row of h that a slot's values go to; null: its own
};
// x: of kernel_input().
void gate_up_and_swiglu(Context& ctx, const Routing& routing, const Projection& gate_up, const float* x, float alpha,
                        float limit, const GateUpResults& results);

}  // namespace gov::ops::moe_cpu
