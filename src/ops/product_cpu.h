#pragma once
// Products of the derivatives on the CPU: dx = dout W and dW = dout^T x, which run along the rows of the weight and of
// the tokens. Blocks are packed on the way, so that nothing needs a transposed copy.

#include <span>

#include "ops/cpu_support.h"
#include "ops/ops.h"

namespace gov::ops {

// The right factor: k rows of n elements, dense, or MXFP4 with `scales` (data: the blocks).
struct Factor {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  const std::uint8_t* scales = nullptr;
  std::int64_t stride = 0;  // elements between rows

  // Row 0 at `index` rows of `tensor` [.., width].
  static Factor of(const Tensor& tensor, std::int64_t width, std::int64_t index = 0);
  static Factor of(const float* rows, std::int64_t width) { return {rows, DType::kF32, nullptr, width}; }
};

// c [m, n] = A b over k, or added to c; A's element (i, j) at a + i * a_row + j * a_step, c's rows n apart.
struct Product {
  std::int64_t m, n, k;
  const float* a;
  std::int64_t a_row, a_step;
  Factor b;
  float* c;
  bool accumulate;
};

// All of them in parallel. Every element is summed in one order, whatever the sizes and the threads.
void run_products(Context& ctx, std::span<const Product> products);

// dx [rows, in] = dout [rows, out] weight.
inline Product input_product(const float* dout, std::int64_t rows, std::int64_t out, const Factor& weight,
                             std::int64_t in, float* dx, bool accumulate) {
  return {rows, in, out, dout, out, 1, weight, dx, accumulate};
}
// dweight [out, in] += dout^T x.
inline Product weight_product(const float* dout, std::int64_t rows, std::int64_t out, const float* x, std::int64_t in,
                              float* dweight) {
  return {out, in, rows, dout, 1, out, Factor::of(x, in), dweight, true};
}

// out[i] += sum over rows of x[row, i], in ascending order.
struct ColumnSum {
  const float* x;
  std::int64_t rows, width;
  float* out;
};
void add_column_sums(Context& ctx, std::span<const ColumnSum> sums);

}  // namespace gov::ops
