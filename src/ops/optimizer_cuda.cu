// What happens to gradients and weights at the end of a step: add_squares, adamw, mxfp4_quantize. Bound by memory.
#include <cmath>

#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kThreads = 256;

// --- squares ---------------------------------------------------------------------------------------------------------

// Sum over a block, in every thread, in a fixed order.
__device__ inline double block_sum_f64(double x, double* scratch) {
  const int warps = static_cast<int>(blockDim.x) / kWarp;
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = x;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < warps; ++i) sum += scratch[i];
  __syncthreads();
  return sum;
}

// partial[block] = sum of squares of the block's pieces of x. Reads x once.
template <int kCount, class T>
__global__ void __launch_bounds__(kThreads) square_parts(const T* __restrict__ x, std::int64_t n, double* partial) {
  __shared__ double scratch[kThreads / kWarp];
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads * kCount;
  double sum = 0;
#pragma unroll 4
  for (std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kCount; i < n; i += step) {
    float v[kCount];
    load_row(x + i, v);
#pragma unroll
    for (int j = 0; j < kCount; ++j) sum = fma(static_cast<double>(v[j]), static_cast<double>(v[j]), sum);
  }
  sum = block_sum_f64(sum, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) join_squares(const double* __restrict__ partial, int count, double* out) {
  __shared__ double scratch[kThreads / kWarp];
  grid_dependency_wait();
  grid_dependency_launch();
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) sum += partial[i];
  sum = block_sum_f64(sum, scratch);
  if (threadIdx.x == 0) out[0] += sum;
}

// --- AdamW -----------------------------------------------------------------------------------------------------------

struct Adamw {
  float lr, beta1, beta2, eps, decay, grad_scale;
  float m_scale, v_scale;  // 1 / (1 - beta^t)
};

// 28 bytes a parameter, 30 with a copy.
template <int kCount>
__global__ void __launch_bounds__(kThreads)
    adamw_elements(Adamw a, std::int64_t n, const float* __restrict__ grad, float* __restrict__ param,
                   float* __restrict__ ms, float* __restrict__ vs, bf16_t* __restrict__ copy) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kCount;
  if (i >= n) return;
  float g[kCount], p[kCount], m[kCount], v[kCount];
  load_row(grad + i, g);
  load_row(param + i, p);
  load_row(ms + i, m);
  load_row(vs + i, v);
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    const float scaled = g[j] * a.grad_scale;
    m[j] = a.beta1 * m[j] + (1.f - a.beta1) * scaled;
    v[j] = a.beta2 * v[j] + (1.f - a.beta2) * scaled * scaled;
    const float along = m[j] * a.m_scale / (sqrtf(v[j] * a.v_scale) + a.eps);
    p[j] -= a.lr * (along + a.decay * p[j]);
  }
  store_row(param + i, p);
  store_row(ms + i, m);
  store_row(vs + i, v);
  if (copy) store_row(copy + i, p);
}

// --- MXFP4 -----------------------------------------------------------------------------------------------------------

// base/mxfp4.h's e2m1_encode: the nearest code, ties to the even one, saturating at 6.
__device__ inline std::uint32_t e2m1_code(float x) {
  const float a = fabsf(x);
  std::uint32_t code = 7;
  if (a <= 0.25f) code = 0;
  else if (a < 0.75f) code = 1;
  else if (a <= 1.25f) code = 2;
  else if (a < 1.75f) code = 3;
  else if (a <= 2.5f) code = 4;
  else if (a < 3.5f) code = 5;
  else if (a <= 5.f) code = 6;
  return code | (signbit(x) ? 8u : 0u);
}

// Eight lanes a block of 32 values, four each. Memory: 4 bytes read, 0.53 written a value.
template <bool kAligned>
__global__ void __launch_bounds__(kThreads)
    quantize_blocks(const float* __restrict__ x, std::int64_t count, std::uint8_t* __restrict__ blocks,
                    std::uint8_t* __restrict__ scales) {
  constexpr int kLanes = 8, kOwn = 4;
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x, block = thread / kLanes;
  const int lane = static_cast<int>(thread % kLanes);
  const bool mine = block < count;
  float v[kOwn] = {};
  if (mine) {
    if constexpr (kAligned) {
      load_row(x + thread * kOwn, v);
    } else {
      for (int j = 0; j < kOwn; ++j) v[j] = x[thread * kOwn + j];
    }
  }
  float largest = 0;
#pragma unroll
  for (int j = 0; j < kOwn; ++j) largest = fmaxf(largest, fabsf(v[j]));
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, offset));
  if (!mine) return;
  int exponent = 0;
  if (largest > 0) exponent = max(ilogbf(largest) - 2, -127);
  std::uint32_t codes = 0;
#pragma unroll
  for (int j = 0; j < kOwn; ++j) codes |= e2m1_code(ldexpf(v[j], -exponent)) << (4 * j);
  blocks[block * 16 + lane * 2] = static_cast<std::uint8_t>(codes);
  blocks[block * 16 + lane * 2 + 1] = static_cast<std::uint8_t>(codes >> 8);
  if (lane == 0) scales[block] = static_cast<std::uint8_t>(exponent + 127);
}

}  // namespace

void add_squares(Context& ctx, const Tensor& x, const Tensor& out) {
  const std::int64_t n = x.elements();
  if (n == 0) return;
  dispatch_weight(x.dtype, [&](auto type) {
    using T = decltype(type);
    dispatch_vector(vectorizable(n, x), [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      const std::int64_t blocks =
          std::min<std::int64_t>(ceil_div(n, 4 * kThreads * kCount), 8 * device_of(ctx).multiprocessors);
      double* const partial = ctx.workspace.take<double>(blocks);
      launch(ctx, "add_squares", square_parts<kCount, T>,
             {dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, true}, static_cast<const T*>(x.data), n, partial);
      launch(ctx, "add_squares", join_squares, {dim3(1), dim3(kThreads), 0, true}, static_cast<const double*>(partial),
             static_cast<int>(blocks), static_cast<double*>(out.data));
    });
  });
}

void adamw(Context& ctx, const AdamwArgs& args, const Tensor& grad, const Tensor& param, const Tensor& m,
           const Tensor& v, const Tensor& copy) {
  const std::int64_t n = param.elements();
  if (n == 0) return;
  const double t = static_cast<double>(args.step);
  const auto scale = [&](float beta) { return static_cast<float>(1 / (1 - std::pow(static_cast<double>(beta), t))); };
  const Adamw a{args.lr,    args.beta1,      args.beta2,        args.eps,
                args.decay, args.grad_scale, scale(args.beta1), scale(args.beta2)};
  dispatch_vector(vectorizable(n, grad, param, m, v, copy), [&](auto count) {
    constexpr int kCount = decltype(count)::value;
    launch(ctx, "adamw", adamw_elements<kCount>,
           {dim3(static_cast<unsigned>(ceil_div(n, kThreads * kCount))), dim3(kThreads), 0, true}, a, n,
           grad.as<float>(), param.as<float>(), m.as<float>(), v.as<float>(), static_cast<bf16_t*>(copy.data));
  });
}

void mxfp4_quantize(Context& ctx, const Tensor& x, const Tensor& blocks, const Tensor& scales) {
  const std::int64_t count = scales.elements();
  if (count == 0) return;
  launch(ctx, "mxfp4_quantize", aligned16(x) ? quantize_blocks<true> : quantize_blocks<false>,
         {dim3(static_cast<unsigned>(ceil_div(count * 8, kThreads))), dim3(kThreads), 0, true}, x.as<float>(), count,
         static_cast<std::uint8_t*>(blocks.data), static_cast<std::uint8_t*>(scales.data));
}

}  // namespace gov::ops::cuda
