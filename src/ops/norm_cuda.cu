// rms_norm and layer_norm.
#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda {
namespace {

// Pieces of a row that a thread keeps in registers; what is beyond them is read again.
constexpr int kHeld = 2;

struct NormArgs {
  const void *weight, *bias;  // [width]
  DType weight_type, bias_type;
  std::int64_t width;
  float eps;
};

// One block a row: x, out [gridDim.x, width]. A row is read once (twice where it is wider than the block holds), which
// is the limit for many rows; for few, the latency of two block sums. Each thread writes only what it has read: in
// place is allowed.
template <int kCount, bool kLayer, class In, class Weight, class Out>
__global__ void __launch_bounds__(1024) norm_rows(NormArgs args, const In* x, Out* out) {
  __shared__ float scratch[kWarp];
  const std::int64_t width = args.width, step = static_cast<std::int64_t>(blockDim.x) * kCount;
  const std::int64_t first = static_cast<std::int64_t>(threadIdx.x) * kCount;
  x += blockIdx.x * width;
  out += blockIdx.x * width;
  grid_dependency_wait();
  grid_dependency_launch();

  float held[kHeld][kCount];
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    if (first + h * step < width) load_row(x + first + h * step, held[h]);
  }
  // Calls body(values, place) for all pieces of this thread.
  const auto each = [&](auto&& body) {
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      if (first + h * step < width) body(held[h], first + h * step);
    }
    for (std::int64_t i = first + kHeld * step; i < width; i += step) {
      float piece[kCount];
      load_row(x + i, piece);
      body(piece, i);
    }
  };
  float mean = 0;
  if constexpr (kLayer) {
    float sum = 0;
    each([&](const float(&v)[kCount], std::int64_t) {
#pragma unroll
      for (int j = 0; j < kCount; ++j) sum += v[j];
    });
    mean = block_sum(sum, scratch) / static_cast<float>(width);
  }
  float squares = 0;
  each([&](const float(&v)[kCount], std::int64_t) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) squares += (v[j] - mean) * (v[j] - mean);
  });
  const float inverse = 1.f / sqrtf(block_sum(squares, scratch) / static_cast<float>(width) + args.eps);
  each([&](const float(&v)[kCount], std::int64_t i) {
    float w[kCount], y[kCount];
    load_row(static_cast<const Weight*>(args.weight) + i, w);
#pragma unroll
    for (int j = 0; j < kCount; ++j) y[j] = (v[j] - mean) * inverse * w[j];
    if constexpr (kLayer) {
      if (args.bias_type == args.weight_type) {
        load_row(static_cast<const Weight*>(args.bias) + i, w);
      } else {
#pragma unroll
        for (int j = 0; j < kCount; ++j) w[j] = load_weight(args.bias, args.bias_type, i + j);
      }
#pragma unroll
      for (int j = 0; j < kCount; ++j) y[j] += w[j];
    }
    store_row(out + i, y);
  });
}

template <bool kLayer>
void norm(Context& ctx, const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias, float eps,
          const Tensor& out) {
  const std::int64_t rows = x.shape[0], width = x.shape[1];
  if (rows == 0 || width == 0) return;
  const bool vector = vectorizable(width, x, weight, bias, out);
  // Few rows: as many threads as the row has pieces. Many: several pieces a thread, several blocks a multiprocessor.
  const std::int64_t pieces = vector ? width / kVector : width;
  const std::int64_t most = rows <= 2 * device_of(ctx).multiprocessors ? 1024 : 256;
  const std::int64_t threads = std::min<std::int64_t>(ceil_div(pieces, kWarp) * kWarp, most);
  const Launch how{dim3(static_cast<unsigned>(rows)), dim3(static_cast<unsigned>(threads)), 0, true};
  const NormArgs args{weight.data, bias.data, weight.dtype, bias.dtype, width, eps};
  dispatch_act(x.dtype, [&](auto in) {
    dispatch_act(out.dtype, [&](auto to) {
      dispatch_weight(weight.dtype, [&](auto w) {
        dispatch_vector(vector, [&](auto count) {
          using In = decltype(in);
          using Out = decltype(to);
          launch(ctx, op, norm_rows<decltype(count)::value, kLayer, In, decltype(w), Out>, how, args,
                 static_cast<const In*>(x.data), static_cast<Out*>(out.data));
        });
      });
    });
  });
}

}  // namespace

void rms_norm(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& out) {
  norm<false>(ctx, "rms_norm", x, weight, {}, eps, out);
}

void layer_norm(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, const Tensor& out) {
  norm<true>(ctx, "layer_norm", x, weight, bias, eps, out);
}

}  // namespace gov::ops::cuda
