// linear_cross_entropy: logits by chunks, their derivatives in their place, and the two products with those.
#include <algorithm>
#include <cmath>

#include "ops/cuda/log_sum_exp.cuh"
#include "ops/cuda/matmul.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kThreads = 1024;

// One block a row of logits [gridDim.x, V]: the loss, then with `derive` (softmax - onehot) * weight over the logits,
// rounded to BF16 where kNarrow (then the row's first half holds them): every piece is read by all threads before it is
// written. Bound by memory: 4 + 4 + 2 (4) bytes a logit; the second read partly comes from the L2 cache.
template <int kCount, bool kNarrow>
__global__ void __launch_bounds__(kThreads)
    loss_rows(float* logits, std::int64_t vocabulary, const std::int32_t* __restrict__ targets,
              const float* __restrict__ weights, bool derive, float* __restrict__ losses) {
  __shared__ float target_logit;
  grid_dependency_wait();
  grid_dependency_launch();
  float* const row = logits + blockIdx.x * vocabulary;
  bf16_t* const narrow_row = reinterpret_cast<bf16_t*>(row);
  const std::int32_t target = targets[blockIdx.x];
  constexpr std::int64_t kStep = static_cast<std::int64_t>(kThreads) * kCount;
  const std::int64_t first = static_cast<std::int64_t>(threadIdx.x) * kCount;
  const auto store = [&](std::int64_t i, const float(&v)[kCount]) {
    if constexpr (kNarrow) store_row(narrow_row + i, v);
    else store_row(row + i, v);
  };
  if (target < 0) {
    if (threadIdx.x == 0) losses[blockIdx.x] = 0.f;
    if (!derive) return;
    const float zeros[kCount] = {};
    for (std::int64_t i = first; i < vocabulary; i += kStep) store(i, zeros);
    return;
  }
  // A target outside the vocabulary cannot be reported: its loss is NaN.
  if (threadIdx.x == 0) target_logit = target < vocabulary ? row[target] : NAN;
  const SumPart all = block_sum_part<kThreads, kCount>(row, vocabulary);
  if (threadIdx.x == 0) losses[blockIdx.x] = static_cast<float>(all.log() - static_cast<double>(target_logit));
  if (!derive) return;
  const float weight = weights[blockIdx.x], factor = weight / all.sum;
  for (std::int64_t begin = 0; begin < vocabulary; begin += kStep) {
    const std::int64_t i = begin + first;
    float x[kCount] = {};
    if (i < vocabulary) {
      load_row(row + i, x);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        x[j] = expf(x[j] - all.largest) * factor;
        if (i + j == target) x[j] -= weight;
      }
    }
    if (kNarrow) __syncthreads();  // what is written lies at or before what has been read
    if (i < vocabulary) store(i, x);
  }
}

}  // namespace

// 6 R V H FLOPs on the tensor cores where x and weight are BF16, else exact F32. dweight is read and written once a
// chunk: chunks of 4,096 rows and more keep that under a tenth of the time.
void linear_cross_entropy(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& targets,
                          const Tensor& row_weights, const Tensor& logits, const Tensor& losses, const Tensor& dx,
                          const Tensor& dweight) {
  constexpr const char* kOp = "linear_cross_entropy";
  const std::int64_t rows = x.shape[0], hidden = x.shape[1], vocabulary = weight.shape[0], chunk = logits.shape[0];
  if (vocabulary == 0 || hidden == 0) {
    fill_bytes(losses.data, DeviceKind::kCuda, 0, losses.bytes(), ctx.stream);
    return;
  }
  const bool narrow = x.dtype == DType::kBF16 && weight.dtype == DType::kBF16;
  for (std::int64_t first = 0; first < rows; first += chunk) {
    const std::int64_t count = std::min(chunk, rows - first);
    const Tensor own = x.slice(first, count);
    multiply(ctx, kOp, matrix_of(own), false, matrix_of(weight), true, logits.data, DType::kF32, false);
    dispatch_vector(vectorizable(vocabulary, logits), [&](auto n) {
      constexpr int kCount = decltype(n)::value;
      launch(ctx, kOp, narrow ? loss_rows<kCount, true> : loss_rows<kCount, false>,
             {dim3(static_cast<unsigned>(count)), dim3(kThreads), 0, true}, logits.as<float>(), vocabulary,
             targets.as<std::int32_t>() + first, row_weights.as<float>() + first, static_cast<bool>(dx),
             losses.as<float>() + first);
    });
    if (!dx) continue;
    const Matrix slopes{logits.data, narrow ? DType::kBF16 : DType::kF32, count, vocabulary,
                        narrow ? 2 * vocabulary : vocabulary};
    multiply(ctx, kOp, slopes, false, matrix_of(weight), false, dx.slice(first, count).data, dx.dtype, false);
    if (dweight) multiply(ctx, kOp, slopes, true, matrix_of(own), false, dweight.data, DType::kF32, true);
  }
}

}  // namespace gov::ops::cuda
