// rms_norm_backward and layer_norm_backward.
#include "ops/cuda/matmul.cuh"
#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHeld = 2;  // pieces of a row that a thread keeps in registers; what is beyond them is read again

// Neighbours of a weight whose type is known at run time only.
template <int kCount>
__device__ inline void load_weights(const void* from, DType dtype, std::int64_t i, float (&to)[kCount]) {
  switch (dtype) {
    case DType::kBF16: load_row(static_cast<const bf16_t*>(from) + i, to); return;
    case DType::kF16: load_row(static_cast<const f16_t*>(from) + i, to); return;
    default: load_row(static_cast<const float*>(from) + i, to);
  }
}

struct NormBack {
  const void* weight;  // [width]
  DType weight_type;
  std::int64_t rows, width;
  float eps;
  float* dx;                  // [rows, width], added to, or null
  float *dweights, *dbiases;  // [blocks, width] or null: each block's own sums
};

// Block b does rows b, b + blocks, ... and sums for weight and bias in registers, beyond what those hold in its own row
// of dweights and dbiases, where all of them end; they are added up in the order of blocks. Bound by memory: x and dout
// once (again where a row is wider than the block holds), dx twice, all asked for before the row's sums.
template <int kCount, bool kLayer, class In, class Out>
__global__ void __launch_bounds__(kThreads, 2)
    norm_back(NormBack a, const In* __restrict__ x, const Out* __restrict__ dout) {
  __shared__ float scratch[kWarp];
  float own_weight[kHeld][kCount] = {}, own_bias[kLayer ? kHeld : 1][kCount] = {};
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t width = a.width, step = static_cast<std::int64_t>(kThreads) * kCount;
  const std::int64_t first = static_cast<std::int64_t>(threadIdx.x) * kCount;
  const float per = 1.f / static_cast<float>(width);
  float* const dweight = a.dweights ? a.dweights + blockIdx.x * width : nullptr;
  float* const dbias = a.dbiases ? a.dbiases + blockIdx.x * width : nullptr;
  for (std::int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const In* const from = x + row * width;
    const Out* const slope = dout + row * width;
    float* const to = a.dx ? a.dx + row * width : nullptr;
    float xs[kHeld][kCount], ds[kHeld][kCount], outs[kHeld][kCount];
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      if (first + h * step >= width) continue;
      load_row(from + first + h * step, xs[h]);
      load_row(slope + first + h * step, ds[h]);
      if (to) load_row(to + first + h * step, outs[h]);
    }
    // Calls body(x, dout, place) for all pieces of this thread.
    const auto each = [&](auto&& body) {
#pragma unroll
      for (int h = 0; h < kHeld; ++h) {
        if (first + h * step < width) body(xs[h], ds[h], first + h * step);
      }
      for (std::int64_t i = first + kHeld * step; i < width; i += step) {
        float u[kCount], v[kCount];
        load_row(from + i, u);
        load_row(slope + i, v);
        body(u, v, i);
      }
    };
    float mean = 0;
    if constexpr (kLayer) {
      float sum = 0;
      each([&](const float(&v)[kCount], const float(&)[kCount], std::int64_t) {
#pragma unroll
        for (int j = 0; j < kCount; ++j) sum += v[j];
      });
      mean = block_sum(sum, scratch) * per;
    }
    float squares = 0, products = 0, slopes = 0;  // of (x - mean)^2, g (x - mean), g
    each([&](const float(&v)[kCount], const float(&d)[kCount], std::int64_t i) {
      float w[kCount];
      load_weights(a.weight, a.weight_type, i, w);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        const float g = d[j] * w[j], c = v[j] - mean;
        squares = fmaf(c, c, squares);
        products = fmaf(g, c, products);
        if constexpr (kLayer) slopes += g;
      }
    });
    const float r = 1.f / sqrtf(block_sum(squares, scratch) * per + a.eps);
    const float along = block_sum(products, scratch) * per * r;  // mean(g n)
    const float level = kLayer ? block_sum(slopes, scratch) * per : 0.f;
    // Of one piece: dx, and its share of the sums.
    const auto finish = [&](const float(&v)[kCount], const float(&d)[kCount], std::int64_t i, float(&out)[kCount],
                            float(&weight_sum)[kCount], float(&bias_sum)[kCount]) {
      float w[kCount];
      if (to) load_weights(a.weight, a.weight_type, i, w);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        const float n = (v[j] - mean) * r;
        weight_sum[j] = fmaf(d[j], n, weight_sum[j]);
        if constexpr (kLayer) bias_sum[j] += d[j];
        if (to) out[j] += r * (d[j] * w[j] - level - n * along);
      }
      if (to) store_row(to + i, out);
    };
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      if (first + h * step < width)
        finish(xs[h], ds[h], first + h * step, outs[h], own_weight[h], own_bias[kLayer ? h : 0]);
    }
    for (std::int64_t i = first + kHeld * step; i < width; i += step) {
      float u[kCount], v[kCount], out[kCount] = {}, weight_sum[kCount] = {}, bias_sum[kCount] = {};
      load_row(from + i, u);
      load_row(slope + i, v);
      if (to) load_row(to + i, out);
      const bool again = row != blockIdx.x;
      if (dweight && again) load_row(dweight + i, weight_sum);
      if (dbias && again) load_row(dbias + i, bias_sum);
      finish(u, v, i, out, weight_sum, bias_sum);
      if (dweight) store_row(dweight + i, weight_sum);
      if (dbias) store_row(dbias + i, bias_sum);
    }
  }
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    if (first + h * step >= width) continue;
    if (dweight) store_row(dweight + first + h * step, own_weight[h]);
    if (kLayer && dbias) store_row(dbias + first + h * step, own_bias[kLayer ? h : 0]);
  }
}

template <bool kLayer>
void norm_backward(Context& ctx, const char* op, const Tensor& x, const Tensor& weight, float eps, const Tensor& dout,
                   const Tensor& dx, const Tensor& dweight, const Tensor& dbias) {
  const std::int64_t rows = x.shape[0], width = x.shape[1];
  if (rows == 0 || width == 0) return;
  const std::int64_t blocks = std::min<std::int64_t>(rows, 4 * device_of(ctx).multiprocessors);
  NormBack args{weight.data, weight.dtype, rows, width, eps, static_cast<float*>(dx.data), nullptr, nullptr};
  if (dweight) args.dweights = ctx.workspace.take<float>(blocks * width);
  if (dbias) args.dbiases = ctx.workspace.take<float>(blocks * width);
  dispatch_act(x.dtype, [&](auto in) {
    dispatch_act(dout.dtype, [&](auto out) {
      dispatch_vector(vectorizable(width, x, weight, dout, dx), [&](auto count) {
        using In = decltype(in);
        using Out = decltype(out);
        launch(ctx, op, norm_back<decltype(count)::value, kLayer, In, Out>,
               {dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, true}, args, static_cast<const In*>(x.data),
               static_cast<const Out*>(dout.data));
      });
    });
  });
  const auto join = [&](const float* parts, const Tensor& to) {
    if (to) add_row_sums(ctx, op, {parts, DType::kF32, blocks, width, width}, {}, to.as<float>());
  };
  join(args.dweights, dweight);
  join(args.dbiases, dbias);
}

}  // namespace

void rms_norm_backward(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& dout,
                       const Tensor& dx, const Tensor& dweight) {
  norm_backward<false>(ctx, "rms_norm_backward", x, weight, eps, dout, dx, dweight, {});
}

void layer_norm_backward(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& dout,
                         const Tensor& dx, const Tensor& dweight, const Tensor& dbias) {
  norm_backward<true>(ctx, "layer_norm_backward", x, weight, eps, dout, dx, dweight, dbias);
}

}  // namespace gov::ops::cuda
