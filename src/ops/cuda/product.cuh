#pragma once
// Matrix products of derivatives in exact F32 arithmetic, for every type and size: what the tensor cores do not take.
//
// One kernel, c(m, n) = sum over k of a(m, k) b(n, k), over a description of where elements are: sums are FMA chains in
// ascending k. A block does 64 x 64 results, a thread 4 x 4; limit: the F32 multipliers.

#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda {

constexpr int kProductTile = 64, kProductDepth = 32, kProductThreads = 256;

// What a block has to do: results [first_m, end_m) x [first_n, end_n), at most a tile, summed over [begin_k, end_k).
struct ProductTile {
  std::int64_t first_m, end_m, first_n, end_n, begin_k, end_k;
  std::int64_t group;  // for the description's own use
};

// Which of an operand's axes is contiguous in memory: it decides who reads what.
enum class Along { kDepth, kRows };

template <Along kAlong>
struct ProductPlace {
  __device__ static int depth(int i) {
    return kAlong == Along::kDepth ? static_cast<int>(threadIdx.x) % 8 + i % 4 * 8
                                   : static_cast<int>(threadIdx.x) / kProductTile + i * 4;
  }
  __device__ static int row(int i) {
    return kAlong == Along::kDepth ? static_cast<int>(threadIdx.x) / 8 + i / 4 * 32
                                   : static_cast<int>(threadIdx.x) % kProductTile;
  }
};

// P: constexpr Along kAlongA, kAlongB; bool tile(ProductTile&), false: nothing to do (the same in all threads of a
// block); float a(tile, m, k), b(tile, n, k); void store(tile, m, n, sum).
template <class P>
__global__ void __launch_bounds__(kProductThreads) product_tiles(const __grid_constant__ P p) {
  constexpr int kPitch = kProductTile + 4, kLoads = kProductTile * kProductDepth / kProductThreads;
  using PlaceA = ProductPlace<P::kAlongA>;
  using PlaceB = ProductPlace<P::kAlongB>;
  __shared__ __align__(16) float as[kProductDepth][kPitch];
  __shared__ __align__(16) float bs[kProductDepth][kPitch];
  grid_dependency_wait();
  grid_dependency_launch();
  ProductTile t;
  if (!p.tile(t)) return;
  float held_a[kLoads], held_b[kLoads];
  const auto load = [&](std::int64_t k) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const std::int64_t m = t.first_m + PlaceA::row(i), ka = k + PlaceA::depth(i);
      held_a[i] = m < t.end_m && ka < t.end_k ? p.a(t, m, ka) : 0.f;
      const std::int64_t n = t.first_n + PlaceB::row(i), kb = k + PlaceB::depth(i);
      held_b[i] = n < t.end_n && kb < t.end_k ? p.b(t, n, kb) : 0.f;
    }
  };
  const int column = static_cast<int>(threadIdx.x) % 16 * 4, row = static_cast<int>(threadIdx.x) / 16 * 4;
  float sums[4][4] = {};
  load(t.begin_k);
  for (std::int64_t k = t.begin_k; k < t.end_k; k += kProductDepth) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      as[PlaceA::depth(i)][PlaceA::row(i)] = held_a[i];
      bs[PlaceB::depth(i)][PlaceB::row(i)] = held_b[i];
    }
    __syncthreads();
    if (k + kProductDepth < t.end_k) load(k + kProductDepth);
#pragma unroll
    for (int d = 0; d < kProductDepth; ++d) {
      const float4 u = *reinterpret_cast<const float4*>(&as[d][row]);
      const float4 v = *reinterpret_cast<const float4*>(&bs[d][column]);
      const float us[4] = {u.x, u.y, u.z, u.w}, vs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(us[i], vs[j], sums[i][j]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const std::int64_t m = t.first_m + row + i, n = t.first_n + column + j;
      if (m < t.end_m && n < t.end_n) p.store(t, m, n, sums[i][j]);
    }
  }
}

}  // namespace gov::ops::cuda
