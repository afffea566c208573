#include <cmath>

#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kThreads = 1024;

// A part of a row: the largest value and the sum of e^(x - largest).
struct Part {
  float largest, sum;
};

// Values of -infinity add nothing, NaN stays.
__device__ inline Part join(Part a, Part b) {
  const float largest = fmaxf(a.largest, b.largest), base = largest == -INFINITY ? 0.f : largest;
  return {largest, a.sum * expf(a.largest - base) + b.sum * expf(b.largest - base)};
}

// One block a row, one pass: logits [gridDim.x, V] are read once, at the speed of memory.
template <int kCount>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_rows(const float* __restrict__ logits, const std::int32_t* __restrict__ targets,
                       std::int64_t vocabulary, float* __restrict__ losses) {
  __shared__ Part parts[kThreads / kWarp];
  grid_dependency_wait();
  const std::int32_t target = targets[blockIdx.x];
  if (target < 0) {
    if (threadIdx.x == 0) losses[blockIdx.x] = 0.f;
    return;
  }
  const float* const row = logits + blockIdx.x * vocabulary;
  Part mine{-INFINITY, 0.f};
  for (std::int64_t i = static_cast<std::int64_t>(threadIdx.x) * kCount; i < vocabulary; i += kThreads * kCount) {
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
    const Part other{__shfl_xor_sync(kAllLanes, mine.largest, offset), __shfl_xor_sync(kAllLanes, mine.sum, offset)};
    mine = join(mine, other);
  }
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = mine;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < kThreads / kWarp; ++i) mine = join(mine, parts[i]);
  // A target outside the vocabulary cannot be reported: its loss is NaN.
  const float chosen = target < vocabulary ? row[target] : NAN;
  losses[blockIdx.x] = static_cast<float>(log(static_cast<double>(mine.sum)) + static_cast<double>(mine.largest) -
                                          static_cast<double>(chosen));
}

}  // namespace

void cross_entropy(Context& ctx, const Tensor& logits, const Tensor& targets, const Tensor& losses) {
  const std::int64_t vocabulary = logits.shape[1];
  dispatch_vector(vectorizable(vocabulary, logits), [&](auto count) {
    const Launch how{dim3(static_cast<unsigned>(logits.shape[0])), dim3(kThreads), 0, true};
    launch(ctx, "cross_entropy", cross_entropy_rows<decltype(count)::value>, how, logits.as<float>(),
           targets.as<std::int32_t>(), vocabulary, losses.as<float>());
  });
}

}  // namespace gov::ops::cuda
