#pragma once
// The logarithm of a sum of exponentials over a row that one block reads once.

#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda {

// A part of a row: the largest value and the sum of e^(x - largest).
struct SumPart {
  float largest, sum;
  __device__ double log() const { return ::log(static_cast<double>(sum)) + static_cast<double>(largest); }
};

// Values of -infinity add nothing, NaN stays.
__device__ inline SumPart join(SumPart a, SumPart b) {
  const float largest = fmaxf(a.largest, b.largest), base = largest == -INFINITY ? 0.f : largest;
  return {largest, a.sum * expf(a.largest - base) + b.sum * expf(b.largest - base)};
}

// The whole of row [count], a multiple of kCount, in every thread of a block of kThreads. Bound by memory.
template <int kThreads, int kCount>
__device__ SumPart block_sum_part(const float* row, std::int64_t count) {
  __shared__ SumPart parts[kThreads / kWarp];
  SumPart mine{-INFINITY, 0.f};
#pragma unroll 2
  for (std::int64_t i = static_cast<std::int64_t>(threadIdx.x) * kCount; i < count; i += kThreads * kCount) {
    float x[kCount];
    load_row(row + i, x);
    float largest = mine.largest;
#pragma unroll
    for (const float v : x) largest = fmaxf(largest, v);
    const float base = largest == -INFINITY ? 0.f : largest;
    mine.sum *= expf(mine.largest - base);
#pragma unroll
    for (const float v : x) mine.sum += expf(v - base);
    mine.largest = largest;
  }
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    mine = join(mine, {__shfl_xor_sync(kAllLanes, mine.largest, offset), __shfl_xor_sync(kAllLanes, mine.sum, offset)});
  }
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = mine;
  __syncthreads();
  SumPart all = parts[0];
  for (int i = 1; i < kThreads / kWarp; ++i) all = join(all, parts[i]);
  return all;
}

}  // namespace gov::ops::cuda
