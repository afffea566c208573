// swiglu and gelu: elementwise, bound by memory. The exponentials are the accurate ones; they cost less than the bytes.
#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kThreads = 256;

// h [n, 2] of (gate, up) -> out [n].
template <int kCount, class In, class Out>
__global__ void swiglu_elements(const In* __restrict__ h, std::int64_t n, float alpha, float limit,
                                Out* __restrict__ out) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kCount;
  if (i >= n) return;
  float pairs[2 * kCount], y[kCount];
  load_row(h + 2 * i, pairs);
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    float g = pairs[2 * j], u = pairs[2 * j + 1];  // compared such that NaN stays NaN
    g = g > limit ? limit : g;
    u = u > limit ? limit : u < -limit ? -limit : u;
    // g is bounded above only: far below, the exponential overflows and the quotient is the -0 that it should be.
    y[j] = (u + 1.f) * (g / (1.f + expf(-alpha * g)));
  }
  store_row(out + i, y);
}

template <Gelu kKind>
__device__ float gelu_of(float x) {
  if constexpr (kKind == Gelu::kErf) {
    const float y = x * 0.70710678118654752f;
    // Below 0, 1 + erf would cancel: erfc keeps the tail's digits.
    return 0.5f * x * (x < 0 ? erfcf(-y) : 1.f + erff(y));
  } else if constexpr (kKind == Gelu::kTanh) {
    // 2 sqrt(2 / pi) (x + 0.044715 x^3); the tanh form is x times a sigmoid of twice the argument.
    const float z = x * fmaf(0.0713548162726f, x * x, 1.59576912160573f);
    return x / (1.f + expf(-z));
  } else {
    return x / (1.f + expf(-1.702f * x));
  }
}

template <int kCount, Gelu kKind, class In, class Out>
__global__ void gelu_elements(const In* x, std::int64_t n, Out* out) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kCount;
  if (i >= n) return;
  float v[kCount];
  load_row(x + i, v);
#pragma unroll
  for (int j = 0; j < kCount; ++j) v[j] = gelu_of<kKind>(v[j]);
  store_row(out + i, v);
}

template <Gelu kKind>
void gelu_of_kind(Context& ctx, const Tensor& x, const Tensor& out) {
  const std::int64_t n = x.elements();
  dispatch_act(x.dtype, [&](auto in) {
    dispatch_act(out.dtype, [&](auto to) {
      dispatch_vector(vectorizable(n, x, out), [&](auto count) {
        using In = decltype(in);
        using Out = decltype(to);
        constexpr int kCount = decltype(count)::value;
        const dim3 grid(static_cast<unsigned>(ceil_div(n, kThreads * kCount)));
        launch(ctx, "gelu", gelu_elements<kCount, kKind, In, Out>, {grid, dim3(kThreads), 0, true},
               static_cast<const In*>(x.data), n, static_cast<Out*>(out.data));
      });
    });
  });
}

}  // namespace

void swiglu(Context& ctx, const Tensor& h, float alpha, float limit, const Tensor& out) {
  const std::int64_t n = out.elements();
  dispatch_act(h.dtype, [&](auto in) {
    dispatch_act(out.dtype, [&](auto to) {
      dispatch_vector(vectorizable(n, h, out), [&](auto count) {
        using In = decltype(in);
        using Out = decltype(to);
        constexpr int kCount = decltype(count)::value;
        const dim3 grid(static_cast<unsigned>(ceil_div(n, kThreads * kCount)));
        launch(ctx, "swiglu", swiglu_elements<kCount, In, Out>, {grid, dim3(kThreads), 0, true},
               static_cast<const In*>(h.data), n, alpha, limit, static_cast<Out*>(out.data));
      });
    });
  });
}

void gelu(Context& ctx, const Tensor& x, Gelu kind, const Tensor& out) {
  switch (kind) {
    case Gelu::kErf: return gelu_of_kind<Gelu::kErf>(ctx, x, out);
    case Gelu::kTanh: return gelu_of_kind<Gelu::kTanh>(ctx, x, out);
    case Gelu::kQuick: return gelu_of_kind<Gelu::kQuick>(ctx, x, out);
  }
}

}  // namespace gov::ops::cuda
