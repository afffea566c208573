#pragma once
// Dense products of derivatives, and sums over rows: what several backward ops share.

#include "ops/cuda/support.cuh"

namespace gov::ops::cuda {

// A matrix [rows, columns] in memory, row-major, `pitch` elements from row to row.
struct Matrix {
  const void* data;
  DType dtype;
  std::int64_t rows, columns, pitch;
};
inline Matrix matrix_of(const Tensor& t) {
  const std::int64_t columns = t.shape.back();
  return {t.data, t.dtype, columns == 0 ? 0 : t.elements() / columns, columns, columns};
}

// c [M, N] (+)= op(a) op(b), with op(a) [M, K] = a or its transpose, op(b) [K, N] likewise; c row-major without gaps,
// F32 if added to. BF16 a and b: the tensor cores, by cublasLt. Otherwise exact F32 sums (a F32 or BF16, b F32, BF16 or
// F16).
void multiply(Context& ctx, const char* op, const Matrix& a, bool transposed_a, const Matrix& b, bool transposed_b,
              void* c, DType c_type, bool accumulate);

// Runs of rows whose sums are wanted apart. begins, counts: [groups] on the device, or null: one group, all rows.
// weights: of each row, on the device, or null.
struct RowGroups {
  const int *begins = nullptr, *counts = nullptr;
  std::int64_t groups = 1;
  const float* weights = nullptr;
};
// sums[g, column] += sum over the rows r of group g of weights[r] x[r, column], rows in a fixed order. x F32 or BF16
// [rows, columns]; sums F32 [groups, columns].
void add_row_sums(Context& ctx, const char* op, const Matrix& x, const RowGroups& groups, float* sums);

// x rounded to BF16, in the workspace; x itself where it is BF16.
Tensor narrow(Context& ctx, const char* op, const Tensor& x);

}  // namespace gov::ops::cuda
