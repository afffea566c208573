#pragma once
// Helpers shared by the CPU ops.

#include <algorithm>

#include "ops/kernels.h"
#include "tensor/context.h"

namespace gov::ops {

// out[0, count) = the weight's elements from `offset` on, as F32.
void widen_range(const Tensor& weight, std::int64_t offset, std::int64_t count, float* out);

// All elements as F32: the tensor's own memory, or a copy in the workspace.
const float* widen(Context& ctx, const Tensor& weight);

// A run of at most 64 widened elements, for the biases of a block of rows.
struct BiasBlock {
  float values[64];
  // Null for an empty tensor.
  const float* load(const Tensor& bias, std::int64_t offset, std::int64_t count) {
    if (!bias) return nullptr;
    widen_range(bias, offset, count, values);
    return values;
  }
};

// Rows per task such that each thread gets several, since threads do not run equally fast; at least enough work per
// task to pay for handing it out.
inline std::int64_t rows_per_task(const Context& ctx, std::int64_t rows, std::int64_t elements_per_row) {
  const std::int64_t fair = rows / (4 * ctx.pool->size()), paying = 4096 / std::max<std::int64_t>(elements_per_row, 1);
  return std::max<std::int64_t>({fair, paying, 1});
}

// Calls body(row) for all rows in parallel.
template <class Body>
void for_rows(Context& ctx, std::int64_t rows, std::int64_t elements_per_row, Body&& body) {
  ctx.pool->parallel_for(rows, rows_per_task(ctx, rows, elements_per_row),
                         [&](std::int64_t begin, std::int64_t end, int) {
                           for (std::int64_t row = begin; row < end; ++row) body(row);
                         });
}

// out [tokens, rows] = x [tokens, in] weight^T + bias, or added to out. weight [rows, in] (any shape of that many
// elements).
void linear_all_rows(Context& ctx, const float* x, std::int64_t tokens, std::int64_t in, const Tensor& weight,
                     std::int64_t rows, const Tensor& bias, float* out, bool accumulate);

// The patches of all pictures as rows [N * patches, C * p * p], in the workspace.
const float* patch_rows(Context& ctx, const Tensor& pixels, std::int64_t patch);

// The kernel for a dense weight of this dtype.
void (*dense_kernel(const Kernels& table, DType dtype))(const LinearArgs&);

}  // namespace gov::ops
