// Moves the sequences of a decode step on by one position, where their next tokens are drawn on the device, too.
#include "ops/cuda/support.cuh"
#include "ops/device_only.h"

namespace gov::ops {
namespace {

using namespace cuda;

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
  launch(ctx, "advance_rows", advance_kernel, {dim3(static_cast<unsigned>(ceil_div(a.rows, 128))), dim3(128), 0, true},
         a);
}

}  // namespace gov::ops
