// Feeds a decode step from the one before it: the likeliest tokens, and every sequence one position on.
#include "ops/cuda/support.cuh"
#include "ops/device_only.h"

namespace gov::ops {
namespace {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int kParts = 48;  // blocks that share a row of logits

struct Best {
  float value;
  std::int32_t index;
};
__device__ Best better(Best a, Best b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

__device__ Best block_best(Best best) {
  __shared__ Best warps[kThreads / kWarp];
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    best = better(best, {__shfl_xor_sync(kAllLanes, best.value, offset), __shfl_xor_sync(kAllLanes, best.index, offset)});
  }
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = best;
  __syncthreads();
  for (int i = 0; i < kThreads / kWarp; ++i) best = better(best, warps[i]);
  return best;
}

constexpr float kLowest = -3.402823466e38f;

// Grid (kParts, R). Reads each logit once; writes one candidate a block.
__global__ void __launch_bounds__(kThreads) candidates_kernel(const float* logits, std::int64_t columns, Best* out) {
  grid_dependency_wait();
  const float* row = logits + static_cast<std::int64_t>(blockIdx.y) * columns;
  const std::int64_t part = (columns + kParts - 1) / kParts;
  const std::int64_t begin = part * blockIdx.x, end = min(begin + part, columns);
  Best best{kLowest, 0x7fffffff};
#pragma unroll 4
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kThreads)
    best = better(best, {row[i], static_cast<std::int32_t>(i)});
  best = block_best(best);
  if (threadIdx.x == 0) out[blockIdx.y * kParts + blockIdx.x] = best;
}

// One block a row.
__global__ void __launch_bounds__(kThreads) winner_kernel(const Best* in, std::int32_t* tokens) {
  grid_dependency_wait();
  Best best{kLowest, 0x7fffffff};
  if (threadIdx.x < kParts) best = in[blockIdx.x * kParts + threadIdx.x];
  best = block_best(best);
  if (threadIdx.x == 0) tokens[blockIdx.x] = best.index == 0x7fffffff ? 0 : best.index;  // nothing finite: token 0
}

struct AdvanceArgs {
  std::int32_t *positions, *kv_lens;
  std::int64_t *full_slots, *sliding_slots;
  const std::int32_t *full_tables, *sliding_tables;
  std::int64_t rows, max_blocks, block_size;
};

__global__ void advance_kernel(AdvanceArgs a) {
  grid_dependency_wait();
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= a.rows || a.kv_lens[row] == 0) return;
  const std::int64_t position = a.positions[row] + 1;
  a.positions[row] = static_cast<std::int32_t>(position);
  a.kv_lens[row] = static_cast<std::int32_t>(position + 1);
  const std::int64_t entry = row * a.max_blocks + position / a.block_size, rest = position % a.block_size;
  a.full_slots[row] = a.full_tables[entry] * a.block_size + rest;
  a.sliding_slots[row] = a.sliding_tables[entry] * a.block_size + rest;
}

}  // namespace

void argmax_rows(Context& ctx, const Tensor& logits, const Tensor& tokens) {
  ctx.begin_op(static_cast<double>(logits.bytes() + tokens.bytes()), 0);
  const std::int64_t rows = logits.shape[0];
  if (rows == 0) return;
  Best* candidates = ctx.workspace.take<Best>(rows * kParts);
  const auto count = static_cast<unsigned>(rows);
  launch(ctx, "argmax_rows", candidates_kernel, {dim3(kParts, count), dim3(kThreads), 0, true},
         static_cast<const float*>(logits.data), logits.shape[1], candidates);
  launch(ctx, "argmax_rows", winner_kernel, {dim3(count), dim3(kThreads), 0, true}, candidates,
         static_cast<std::int32_t*>(tokens.data));
}

void advance_rows(Context& ctx, const DecodeArrays& arrays) {
  ctx.begin_op(0, 0);
  AdvanceArgs a{};
  a.positions = static_cast<std::int32_t*>(arrays.positions.data);
  a.kv_lens = static_cast<std::int32_t*>(arrays.kv_lens.data);
  a.full_slots = static_cast<std::int64_t*>(arrays.full_slots.data);
  a.sliding_slots = static_cast<std::int64_t*>(arrays.sliding_slots.data);
  a.full_tables = static_cast<const std::int32_t*>(arrays.full_tables.data);
  a.sliding_tables = static_cast<const std::int32_t*>(arrays.sliding_tables.data);
  a.rows = arrays.positions.shape[0];
  a.max_blocks = arrays.full_tables.shape[1];
  a.block_size = arrays.block_size;
  launch(ctx, "advance_rows", advance_kernel, {dim3(static_cast<unsigned>(ceil_div(a.rows, 128))), dim3(128), 0, true}, a);
}

}  // namespace gov::ops
