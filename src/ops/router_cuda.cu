// router: few rows in one launch that computes and selects, many rows as a matrix product and a selection.
#include <cmath>

#include "ops/cuda/library.cuh"
#include "ops/cuda/linear.cuh"
#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kWarps = 8;  // experts a block of the fused kernel, rows a block of the selection

// Up to here one launch wins; beyond, a product that reads the weights once for many rows. It has tensor cores or not.
constexpr std::int64_t kFewRows = 64, kFewExactRows = 2048;

constexpr int kLoadThreads = 128, kLoadPairs = 4096;  // of a block of expert_load

struct RouterArgs {
  const void *bias, *vision_bias;  // [E], vision_bias may be null
  DType bias_type, vision_type;
  const std::uint8_t* modality;  // [T] or null
  float* logits;                 // [T, E]
  std::int32_t* indices;         // [T, K]
  float* weights;                // [T, K]
  std::int64_t rows, width;
  int experts, count;
};

__device__ inline bool is_vision(const RouterArgs& a, std::int64_t row) {
  return a.vision_bias && a.modality && a.modality[row] != 0;
}

// Larger keys are larger logits; -0 and 0 are one, NaN comes last.
__device__ inline std::uint32_t order_of(float x) {
  if (isnan(x)) return 1;
  const std::uint32_t bits = __float_as_uint(x + 0.f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ inline std::uint32_t largest_of(std::uint32_t x) {
#if __CUDA_ARCH__ >= 800
  return __reduce_max_sync(kAllLanes, x);
#else
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x = max(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
#endif
}

// One warp: the K largest of its row's logits, ties to the lower index, then softmax over the K. Lane l holds logits l,
// l + 32, ...
template <int kHeld>
__device__ void select_experts(const float (&logits)[kHeld], int experts, int count, std::int32_t* indices,
                               float* weights) {
  const int lane = threadIdx.x % kWarp;
  std::uint32_t keys[kHeld];
#pragma unroll
  for (int h = 0; h < kHeld; ++h) keys[h] = h * kWarp + lane < experts ? order_of(logits[h]) : 0;  // 0: not there
  float first = 0, sum = 0, low = 0, high = 0;  // of place `lane` and `lane` + 32
  for (int k = 0; k < count; ++k) {
    std::uint32_t best = 0;
    int held = 0;
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      if (keys[h] > best) {
        best = keys[h];
        held = h;
      }
    }
    const std::uint32_t all = largest_of(best);
    const std::uint32_t place = static_cast<std::uint32_t>(held * kWarp + lane);
    const std::uint32_t chosen = ~largest_of(best == all ? ~place : 0u);  // the lowest index among equals
    float value = 0;
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      if (static_cast<std::uint32_t>(h * kWarp + lane) == chosen) {
        keys[h] = 0;
        value = logits[h];
      }
    }
    value = __shfl_sync(kAllLanes, value, static_cast<int>(chosen % kWarp));
    if (k == 0) first = value;
    const float e = expf(value - first);
    sum += e;
    if (k == lane) low = e;
    if (k == lane + kWarp) high = e;
    if (lane == 0) indices[k] = static_cast<std::int32_t>(chosen);
  }
  if (lane < count) weights[lane] = low / sum;
  if (lane + kWarp < count) weights[lane + kWarp] = high / sum;
}

// A warp's row of logits into registers.
template <int kHeld>
__device__ void load_logits(const float* row, int experts, float (&logits)[kHeld]) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const int e = h * kWarp + lane;
    logits[h] = e < experts ? __ldcg(row + e) : 0.f;
  }
}

// One warp a row: adds the biases to logits that hold x W^T, selects. Bound by the latency of its loads.
template <int kHeld>
__global__ void __launch_bounds__(kWarps* kWarp) select_rows(RouterArgs a) {
  grid_dependency_wait();
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= a.rows) return;
  const int lane = threadIdx.x % kWarp;
  float* const own = a.logits + row * a.experts;
  float logits[kHeld];
  load_logits(own, a.experts, logits);
  const bool vision = is_vision(a, row);
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const int e = h * kWarp + lane;
    if (e >= a.experts) continue;
    logits[h] += load_weight(a.bias, a.bias_type, e);
    if (vision) logits[h] += load_weight(a.vision_bias, a.vision_type, e);
    own[e] = logits[h];
  }
  select_experts(logits, a.experts, a.count, a.indices + row * a.count, a.weights + row * a.count);
}

// Grid (ceil(E / kWarps), T): a warp computes one logit of one row, and the block that is last to finish a row selects.
// x [T, H], weight [E, H]. Bound by latency: the weights are few and shared by all rows through the L2 cache.
template <int kHeld, int kCount, class In, class Weight>
__global__ void __launch_bounds__(kWarps* kWarp)
    route_rows(RouterArgs a, const In* __restrict__ x, const Weight* __restrict__ weight, std::uint32_t* tickets) {
  __shared__ bool last;
  grid_dependency_wait();
  const int lane = threadIdx.x % kWarp, expert = static_cast<int>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  const std::int64_t row = blockIdx.y;
  if (expert < a.experts) {
    const In* const from = x + row * a.width;
    const Weight* const w = weight + static_cast<std::int64_t>(expert) * a.width;
    float sum = 0;
#pragma unroll 4
    for (std::int64_t i = lane * kCount; i < a.width; i += kWarp * kCount) {
      float u[kCount], v[kCount];
      load_row(from + i, u);
      load_row(w + i, v);
#pragma unroll
      for (int j = 0; j < kCount; ++j) sum = fmaf(u[j], v[j], sum);
    }
    sum = warp_sum(sum) + load_weight(a.bias, a.bias_type, expert);
    if (is_vision(a, row)) sum += load_weight(a.vision_bias, a.vision_type, expert);
    if (lane == 0) {
      a.logits[row * a.experts + expert] = sum;
      __threadfence();
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(tickets + row, 1u) == gridDim.x - 1;
    if (last) tickets[row] = 0;  // as the next kernel finds it
    __threadfence();
  }
  __syncthreads();
  if (!last || threadIdx.x >= kWarp) return;
  float logits[kHeld];
  load_logits(a.logits + row * a.experts, a.experts, logits);
  select_experts(logits, a.experts, a.count, a.indices + row * a.count, a.weights + row * a.count);
}

// Calls f(integral_constant<int, n>{}) with the power of two n of registers that hold a row of logits in a warp.
template <class F>
void dispatch_held(int experts, F&& f) {
  if (experts <= 32) f(std::integral_constant<int, 1>{});
  else if (experts <= 128) f(std::integral_constant<int, 4>{});
  else f(std::integral_constant<int, 32>{});
}

void route_few(Context& ctx, const RouterArgs& args, const Tensor& x, const Tensor& weight) {
  std::uint32_t* const tickets = counters(ctx, args.rows);
  const Launch how{dim3(static_cast<unsigned>(ceil_div(args.experts, kWarps)), static_cast<unsigned>(args.rows)),
                   dim3(kWarps * kWarp), 0, true};
  dispatch_held(args.experts, [&](auto held) {
    dispatch_act(x.dtype, [&](auto in) {
      dispatch_weight(weight.dtype, [&](auto w) {
        dispatch_vector(vectorizable(args.width, x, weight), [&](auto count) {
          using In = decltype(in);
          using Weight = decltype(w);
          launch(ctx, "router", route_rows<decltype(held)::value, decltype(count)::value, In, Weight>, how, args,
                 static_cast<const In*>(x.data), static_cast<const Weight*>(weight.data), tickets);
        });
      });
    });
  });
}

struct LoadArgs {
  const std::int32_t* indices;   // [L, T, K]
  const std::uint8_t* modality;  // [R]
  const std::int64_t* slots;     // [R]
  unsigned long long* counts;    // [2, L, E]
  std::int64_t stride, pairs;    // T * K, R * K
  int experts, chosen;
};

// Grid (blocks of pairs, L). Sums of integers: their order does not matter. Bound by latency.
__global__ void __launch_bounds__(kLoadThreads) count_rows(LoadArgs a) {
  extern __shared__ int counted[];  // [2, E]
  for (int i = threadIdx.x; i < 2 * a.experts; i += blockDim.x) counted[i] = 0;
  grid_dependency_wait();
  __syncthreads();
  const std::int64_t layer = blockIdx.y, begin = static_cast<std::int64_t>(blockIdx.x) * kLoadPairs;
  const std::int64_t end = min(begin + kLoadPairs, a.pairs);
  for (std::int64_t pair = begin + threadIdx.x; pair < end; pair += blockDim.x) {
    const std::int64_t row = pair / a.chosen;
    const std::int32_t expert = a.indices[layer * a.stride + pair];
    if (a.slots[row] < 0 || expert < 0 || expert >= a.experts) continue;
    atomicAdd(counted + (a.modality[row] != 0) * a.experts + expert, 1);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * a.experts; i += blockDim.x) {
    if (counted[i] == 0) continue;
    const std::int64_t kind = i / a.experts, expert = i % a.experts;
    atomicAdd(a.counts + (kind * gridDim.y + layer) * a.experts + expert, static_cast<unsigned long long>(counted[i]));
  }
}

}  // namespace

void expert_load(Context& ctx, const Tensor& indices, const Tensor& modality, const Tensor& slots,
                 const Tensor& counts) {
  const std::int64_t chosen = indices.shape[2];
  const LoadArgs args{indices.as<std::int32_t>(),
                      modality.as<std::uint8_t>(),
                      slots.as<std::int64_t>(),
                      static_cast<unsigned long long*>(counts.data),
                      indices.shape[1] * chosen,
                      modality.shape[0] * chosen,
                      static_cast<int>(counts.shape[2]),
                      static_cast<int>(chosen)};
  if (args.pairs == 0 || indices.shape[0] == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div(args.pairs, kLoadPairs)), static_cast<unsigned>(indices.shape[0]));
  const Launch how{grid, dim3(kLoadThreads), 2 * static_cast<std::size_t>(args.experts) * sizeof(int), true};
  launch(ctx, "expert_load", count_rows, how, args);
}

void router(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& vision_bias,
            const Tensor& modality, const Tensor& logits, const Tensor& indices, const Tensor& weights) {
  if (x.shape[0] == 0) return;
  const RouterArgs args{bias.data,
                        vision_bias.data,
                        bias.dtype,
                        vision_bias.dtype,
                        static_cast<const std::uint8_t*>(modality.data),
                        logits.as<float>(),
                        indices.as<std::int32_t>(),
                        weights.as<float>(),
                        x.shape[0],
                        x.shape[1],
                        static_cast<int>(weight.shape[0]),
                        static_cast<int>(indices.shape[1])};
  const bool tensor_cores = x.dtype == DType::kBF16 && weight.dtype == DType::kBF16;
  if (args.rows <= (tensor_cores ? kFewRows : kFewExactRows)) return route_few(ctx, args, x, weight);
  linear_rows(ctx, "router", x, weight, {}, logits, false);
  const Launch how{dim3(static_cast<unsigned>(ceil_div(args.rows, kWarps))), dim3(kWarps * kWarp), 0, true};
  dispatch_held(args.experts, [&](auto held) { launch(ctx, "router", select_rows<decltype(held)::value>, how, args); });
}

}  // namespace gov::ops::cuda
