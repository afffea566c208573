#pragma once
// The product of the derivatives: C [rows, columns] = A B over `steps`, with B's rows contiguous. A tile of C stays in
// registers while A's elements are broadcast; every element of C is one chain of additions in ascending step.

#include "ops/kernels.h"

namespace gov::ops::GOV_ISA {
namespace {

inline constexpr int kProductRows = kLanes == 16 ? 8 : 4, kProductVecs = kLanes == 4 ? 2 : 3;

template <int M, int N>
void product_tile(const ProductArgs& p, std::int64_t row, std::int64_t column) {
  Vec acc[M][N];
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) acc[m][n] = zero();
  const float* a = p.a + row * p.a_row;
  const float* b = p.b + column;
  for (std::int64_t s = 0; s < p.steps; ++s, a += p.a_step, b += p.b_stride) {
    Vec v[N];
    for (int n = 0; n < N; ++n) v[n] = load(b + n * kLanes);
    for (int m = 0; m < M; ++m) {
      const Vec factor = splat(a[m * p.a_row]);
      for (int n = 0; n < N; ++n) acc[m][n] = fma(factor, v[n], acc[m][n]);
    }
  }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) {
      float* c = p.c + (row + m) * p.c_stride + column + n * kLanes;
      const std::int64_t rest = p.columns - column - n * kLanes;
      if (rest >= kLanes) {
        store(c, p.accumulate ? add(load(c), acc[m][n]) : acc[m][n]);
      } else {
        const int count = static_cast<int>(rest);
        store_partial(c, p.accumulate ? add(load_partial(c, count), acc[m][n]) : acc[m][n], count);
      }
    }
}

template <int M>
void product_rows(const ProductArgs& p, std::int64_t row) {
  for (std::int64_t column = 0; column < p.columns;) {
    const std::int64_t vectors = (p.columns - column + kLanes - 1) / kLanes;
    if (kProductVecs >= 3 && vectors >= 3 &&
        vectors != 4) {  // four are two and two: a single one would wait for itself
      product_tile<M, kProductVecs>(p, row, column);
      column += kProductVecs * kLanes;
    } else if (vectors >= 2) {
      product_tile<M, 2>(p, row, column);
      column += 2 * kLanes;
    } else {
      product_tile<M, 1>(p, row, column);
      column += kLanes;
    }
  }
}

void product(const ProductArgs& p) {
  std::int64_t row = 0;
  for (; row + kProductRows <= p.rows; row += kProductRows) product_rows<kProductRows>(p, row);
  for (; row < p.rows; ++row) product_rows<1>(p, row);
}

}  // namespace
}  // namespace gov::ops::GOV_ISA
