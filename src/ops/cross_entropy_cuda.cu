#include <cmath>

#include "ops/cuda/log_sum_exp.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kThreads = 1024;

// One block a row, one pass: logits [gridDim.x, V] are read once, at the speed of memory.
template <int kCount>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_rows(const float* __restrict__ logits, const std::int32_t* __restrict__ targets,
                       std::int64_t vocabulary, float* __restrict__ losses) {
  grid_dependency_wait();
  const std::int32_t target = targets[blockIdx.x];
  if (target < 0) {
    if (threadIdx.x == 0) losses[blockIdx.x] = 0.f;
    return;
  }
  const float* const row = logits + blockIdx.x * vocabulary;
  const SumPart all = block_sum_part<kThreads, kCount>(row, vocabulary);
  if (threadIdx.x != 0) return;
  // A target outside the vocabulary cannot be reported: its loss is NaN.
  const float chosen = target < vocabulary ? row[target] : NAN;
  losses[blockIdx.x] = static_cast<float>(all.log() - static_cast<double>(chosen));
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
