// How a router is used, and its derivative.
#include <cmath>

#include "ops/cuda/matmul.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kWarps = 8;  // rows of a block at a time
constexpr int kThreads = kWarps * kWarp;

// A warp's softmax over a row of logits: lane l has logits l, l + 32, ...
struct RowSoftmax {
  float largest, sum;
  __device__ RowSoftmax(const float* row, int experts) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    largest = -INFINITY;
    for (int e = lane; e < experts; e += kWarp) largest = fmaxf(largest, row[e]);
    largest = warp_max(largest);
    sum = 0;
    for (int e = lane; e < experts; e += kWarp) sum += expf(row[e] - largest);
    sum = warp_sum(sum);
  }
  __device__ float probability(float logit) const { return expf(logit - largest) / sum; }
  __device__ float logsumexp() const { return largest + logf(sum); }
};

struct Load {
  const float* logits;           // [T, E]
  const std::int32_t* indices;   // [T, K]
  const std::uint8_t* modality;  // [T] or null
  std::int64_t rows, per_block;
  int experts, count;
  float *probabilities, *counts;  // [blocks, 2, E]
  float* z;                       // [blocks]
};

// A block does per_block rows: probabilities of kWarps rows pass through shared memory, then a thread a (kind, expert)
// adds its column in the order of rows. Shared: kWarps * E floats, kWarps * E counters, kWarps floats.
__global__ void __launch_bounds__(kThreads) load_parts(Load a) {
  extern __shared__ float load_memory[];
  float *const p = load_memory, *const lse = p + 2 * kWarps * a.experts;
  int* const chosen = reinterpret_cast<int*>(p + kWarps * a.experts);
  __shared__ int kinds[kWarps];
  grid_dependency_wait();
  grid_dependency_launch();
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t begin = blockIdx.x * a.per_block, end = min(begin + a.per_block, a.rows);
  float* const own_p = a.probabilities + static_cast<std::int64_t>(blockIdx.x) * 2 * a.experts;
  float* const own_c = a.counts + static_cast<std::int64_t>(blockIdx.x) * 2 * a.experts;
  for (int i = static_cast<int>(threadIdx.x); i < 2 * a.experts; i += kThreads) own_p[i] = own_c[i] = 0;
  float z = 0;
  for (std::int64_t first = begin; first < end; first += kWarps) {
    const std::int64_t row = first + warp;
    for (int e = lane; e < a.experts; e += kWarp) chosen[warp * a.experts + e] = 0;
    __syncwarp();
    if (row < end) {
      const float* const logits = a.logits + row * a.experts;
      const RowSoftmax softmax(logits, a.experts);
      for (int e = lane; e < a.experts; e += kWarp) p[warp * a.experts + e] = softmax.probability(logits[e]);
      if (lane == 0) {
        lse[warp] = softmax.logsumexp();
        kinds[warp] = a.modality && a.modality[row] != 0 ? 1 : 0;
        for (int k = 0; k < a.count; ++k) {
          const int e = a.indices[row * a.count + k];
          if (e >= 0 && e < a.experts) ++chosen[warp * a.experts + e];
        }
      }
    }
    __syncthreads();
    const int here = static_cast<int>(min(static_cast<std::int64_t>(kWarps), end - first));
    for (int i = static_cast<int>(threadIdx.x); i < 2 * a.experts; i += kThreads) {
      const int kind = i / a.experts, e = i % a.experts;
      float sum = own_p[i], count = own_c[i];
      for (int w = 0; w < here; ++w) {
        if (kinds[w] != kind) continue;
        sum += p[w * a.experts + e];
        count += static_cast<float>(chosen[w * a.experts + e]);
      }
      own_p[i] = sum;
      own_c[i] = count;
    }
    if (threadIdx.x == 0) {
      for (int w = 0; w < here; ++w) z = fmaf(lse[w], lse[w], z);
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) a.z[blockIdx.x] = z;
}

__global__ void __launch_bounds__(kThreads)
    join_load(Load a, int parts, float* __restrict__ counts, float* __restrict__ probabilities, float* __restrict__ z) {
  grid_dependency_wait();
  grid_dependency_launch();
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i < 2 * a.experts) {
    float p = 0, c = 0;
    for (int b = 0; b < parts; ++b) {
      p += a.probabilities[static_cast<std::int64_t>(b) * 2 * a.experts + i];
      c += a.counts[static_cast<std::int64_t>(b) * 2 * a.experts + i];
    }
    probabilities[i] += p;
    counts[i] += c;
  }
  if (i == 0) {
    float sum = 0;
    for (int b = 0; b < parts; ++b) sum += a.z[b];
    z[0] += sum;
  }
}

struct LogitSlopes {
  const float *logits, *weights, *dweights, *slopes;  // [T, E], [T, K], [T, K], [E] or null
  const std::int32_t* indices;                        // [T, K]
  std::int64_t rows;
  int experts, count;
  float z_slope;
  float* dlogits;  // [T, E]
};

// One warp a row. Bound by memory and latency: a row is 2 E + 3 K numbers.
__global__ void __launch_bounds__(kThreads) logit_slopes(LogitSlopes a) {
  grid_dependency_wait();
  grid_dependency_launch();
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
  if (row >= a.rows) return;
  const float* const logits = a.logits + row * a.experts;
  float* const dlogits = a.dlogits + row * a.experts;
  if (a.slopes || a.z_slope != 0) {
    const RowSoftmax softmax(logits, a.experts);
    float mean = 0;
    if (a.slopes) {
      for (int e = lane; e < a.experts; e += kWarp) mean = fmaf(softmax.probability(logits[e]), a.slopes[e], mean);
    }
    mean = warp_sum(mean);
    const float z = 2 * a.z_slope * softmax.logsumexp();
    for (int e = lane; e < a.experts; e += kWarp)
      dlogits[e] = softmax.probability(logits[e]) * ((a.slopes ? a.slopes[e] - mean : 0.f) + z);
  } else {
    for (int e = lane; e < a.experts; e += kWarp) dlogits[e] = 0;
  }
  __syncwarp();
  const std::int64_t first = row * a.count;
  float mean = 0;
  for (int k = lane; k < a.count; k += kWarp) mean = fmaf(a.weights[first + k], a.dweights[first + k], mean);
  mean = warp_sum(mean);
  for (int k = lane; k < a.count; k += kWarp) {  // a row's choices are distinct
    const int e = a.indices[first + k];
    if (e >= 0 && e < a.experts) dlogits[e] += a.weights[first + k] * (a.dweights[first + k] - mean);
  }
}

// out[row] = 1 where modality is not 0, else 0.
__global__ void __launch_bounds__(kThreads)
    modality_weights(const std::uint8_t* __restrict__ modality, std::int64_t rows, float* __restrict__ out) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < rows) out[i] = modality[i] != 0 ? 1.f : 0.f;
}

// v [rows, E] to parts [rows, 2 E], its BF16 value in the left half and what that lacks in the right.
__global__ void __launch_bounds__(kThreads)
    split_rows(const float* __restrict__ v, std::int64_t n, int experts, bf16_t* __restrict__ parts) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const std::int64_t row = i / experts, at = row * 2 * experts + (i - row * experts);
  const bf16_t high = from_float<bf16_t>(v[i]);
  parts[at] = high;
  parts[at + experts] = from_float<bf16_t>(v[i] - to_float(high));
}

// dx += dl W and dweight += dl^T x by the tensor cores. Both halves of dl together have 16 bits or more, so that the
// products are those of dl itself.
void multiply_halves(Context& ctx, const char* op, const Tensor& x, const Tensor& weight, const RouterGradients& out) {
  const std::int64_t rows = x.shape[0], hidden = x.shape[1], experts = weight.shape[0];
  bf16_t* const parts = ctx.workspace.take<bf16_t>(rows * 2 * experts);
  launch(ctx, op, split_rows,
         {dim3(static_cast<unsigned>(ceil_div(rows * experts, kThreads))), dim3(kThreads), 0, true},
         static_cast<const float*>(out.dlogits.data), rows * experts, static_cast<int>(experts), parts);
  if (out.dx) {  // [high, low] [W; W]
    bf16_t* const twice = ctx.workspace.take<bf16_t>(2 * experts * hidden);
    for (int i = 0; i < 2; ++i)
      copy_bytes(twice + i * experts * hidden, DeviceKind::kCuda, weight.data, DeviceKind::kCuda, weight.bytes(),
                 ctx.stream);
    multiply(ctx, op, {parts, DType::kBF16, rows, 2 * experts, 2 * experts}, false,
             {twice, DType::kBF16, 2 * experts, hidden, hidden}, false, out.dx.data, DType::kF32, true);
  }
  for (int half = 0; out.dweight && half < 2; ++half)
    multiply(ctx, op, {parts + half * experts, DType::kBF16, rows, experts, 2 * experts}, true, matrix_of(x), false,
             out.dweight.data, DType::kF32, true);
}

}  // namespace

void router_load(Context& ctx, const Tensor& logits, const Tensor& indices, const Tensor& modality,
                 const Tensor& counts, const Tensor& probabilities, const Tensor& z) {
  constexpr const char* kOp = "router_load";
  const std::int64_t rows = logits.shape[0], experts = logits.shape[1];
  if (rows == 0 || experts == 0) return;
  constexpr std::int64_t kMostExperts = 1024;
  if (experts > kMostExperts)
    fail(ErrorCode::kUnsupported, "{}: at most {} experts, there are {}", kOp, kMostExperts, experts);
  const std::int64_t wanted = std::min<std::int64_t>(ceil_div(rows, 4 * kWarps), 2 * device_of(ctx).multiprocessors);
  const std::int64_t per_block = ceil_div(ceil_div(rows, wanted), kWarps) * kWarps, blocks = ceil_div(rows, per_block);
  Load a{logits.as<float>(),
         indices.as<std::int32_t>(),
         static_cast<const std::uint8_t*>(modality.data),
         rows,
         per_block,
         static_cast<int>(experts),
         static_cast<int>(indices.shape[1]),
         ctx.workspace.take<float>(blocks * 2 * experts),
         ctx.workspace.take<float>(blocks * 2 * experts),
         ctx.workspace.take<float>(blocks)};
  const std::size_t shared = sizeof(float) * static_cast<std::size_t>(2 * kWarps * experts + kWarps);
  launch(ctx, kOp, load_parts, {dim3(static_cast<unsigned>(blocks)), dim3(kThreads), shared, true}, a);
  launch(ctx, kOp, join_load, {dim3(static_cast<unsigned>(ceil_div(2 * experts, kThreads))), dim3(kThreads), 0, true},
         a, static_cast<int>(blocks), counts.as<float>(), probabilities.as<float>(), z.as<float>());
}

// The products, 4 T E H FLOPs, are bound by the bytes of x and dx on the tensor cores.
void router_backward(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& modality, const Tensor& logits,
                     const Tensor& indices, const Tensor& weights, const Tensor& dweights, const Tensor& slopes,
                     float z_slope, const RouterGradients& out) {
  constexpr const char* kOp = "router_backward";
  const std::int64_t rows = logits.shape[0], experts = logits.shape[1];
  if (rows == 0 || experts == 0) return;
  const LogitSlopes a{logits.as<float>(),
                      weights.as<float>(),
                      dweights.as<float>(),
                      static_cast<const float*>(slopes.data),
                      indices.as<std::int32_t>(),
                      rows,
                      static_cast<int>(experts),
                      static_cast<int>(indices.shape[1]),
                      z_slope,
                      out.dlogits.as<float>()};
  launch(ctx, kOp, logit_slopes, {dim3(static_cast<unsigned>(ceil_div(rows, kWarps))), dim3(kThreads), 0, true}, a);
  const Matrix dl = matrix_of(out.dlogits);
  if (x.dtype == DType::kBF16 && weight.dtype == DType::kBF16 && experts % 8 == 0 && x.shape[1] % 8 == 0 &&
      aligned16(x)) {
    multiply_halves(ctx, kOp, x, weight, out);
  } else {
    if (out.dx) multiply(ctx, kOp, dl, false, matrix_of(weight), false, out.dx.data, DType::kF32, true);
    if (out.dweight) multiply(ctx, kOp, dl, true, matrix_of(x), false, out.dweight.data, DType::kF32, true);
  }
  if (out.dbias) add_row_sums(ctx, kOp, dl, {}, out.dbias.as<float>());
  if (out.dvision_bias && modality) {
    float* const pictures = ctx.workspace.take<float>(rows);
    launch(ctx, kOp, modality_weights, {dim3(static_cast<unsigned>(ceil_div(rows, kThreads))), dim3(kThreads), 0, true},
           static_cast<const std::uint8_t*>(modality.data), rows, pictures);
    add_row_sums(ctx, kOp, dl, {nullptr, nullptr, 1, pictures}, out.dvision_bias.as<float>());
  }
}

}  // namespace gov::ops::cuda
