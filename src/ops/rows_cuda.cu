// Ops that move rows: embedding, gather_rows, scatter_rows, add, prepend_token. All are bound by memory, or by latency
// where there are few rows.
#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kThreads = 256;

// Blocks of kThreads threads, as many along a row as it can use, the others on further rows.
Launch row_launch(std::int64_t rows, std::int64_t pieces) {
  int along = kWarp;
  while (along < kThreads && along < pieces) along *= 2;
  const int beside = kThreads / along;
  return {dim3(static_cast<unsigned>(ceil_div(rows, beside))),
          dim3(static_cast<unsigned>(along), static_cast<unsigned>(beside)), 0, true};
}

// Row i of `to` is row index[i] of `from`, or with kScatter the other way round. from [limit or rows, width], to [rows
// or limit, width]. An index outside [0, limit) cannot be reported: it reads NaN, or writes nothing.
template <int kCount, bool kScatter, class In, class Out>
__global__ void move_rows(const In* __restrict__ from, const std::int32_t* __restrict__ index, std::int64_t limit,
                          std::int64_t rows, std::int64_t width, Out* __restrict__ to) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const std::int64_t other = index[row];
  const bool inside = other >= 0 && other < limit;
  if (kScatter && !inside) return;
  const In* const source = from + (kScatter ? row : other) * width;
  Out* const target = to + (kScatter ? other : row) * width;
  for (std::int64_t i = static_cast<std::int64_t>(threadIdx.x) * kCount; i < width; i += blockDim.x * kCount) {
    float values[kCount];
    if (inside) {
      load_row(source + i, values);
    } else {
#pragma unroll
      for (float& v : values) v = __int_as_float(0x7fffffff);
    }
    store_row(target + i, values);
  }
}

template <bool kScatter, class In>
void move(Context& ctx, const char* op, const Tensor& from, const Tensor& index, std::int64_t limit, const Tensor& to,
          In) {
  const std::int64_t rows = index.elements(), width = to.shape[1];
  if (rows == 0 || width == 0) return;
  dispatch_act(to.dtype, [&](auto out) {
    dispatch_vector(vectorizable(width, from, to), [&](auto count) {
      using Out = decltype(out);
      constexpr int kCount = decltype(count)::value;
      launch(ctx, op, move_rows<kCount, kScatter, In, Out>, row_launch(rows, width / kCount),
             static_cast<const In*>(from.data), index.as<std::int32_t>(), limit, rows, width,
             static_cast<Out*>(to.data));
    });
  });
}

// out += x, n elements.
template <int kCount>
__global__ void add_elements(const float* __restrict__ x, std::int64_t n, float* __restrict__ out) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kCount;
  if (i >= n) return;
  float a[kCount], b[kCount];
  load_row(x + i, a);
  load_row(out + i, b);
#pragma unroll
  for (int j = 0; j < kCount; ++j) b[j] += a[j];
  store_row(out + i, b);
}

// out[n, p] = (p == 0 with a token: token, else the next row of x[n]) + positions[p].  x [rows / after, after - skip,
// D], out [rows, D], `after` rows an image.
struct Prepend {
  const void *token, *positions;  // weights or null
  DType token_type, position_type;
  std::int64_t rows, after, width;
};

template <class In, class Out>
__global__ void prepend_rows(Prepend p, const In* __restrict__ x, Out* __restrict__ out) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= p.rows) return;
  const std::int64_t image = row / p.after, place = row % p.after, skip = p.token ? 1 : 0;
  const In* const source = x + (image * (p.after - skip) + place - skip) * p.width;
  for (std::int64_t i = threadIdx.x; i < p.width; i += blockDim.x) {
    float value = place < skip ? load_weight(p.token, p.token_type, i) : to_float(source[i]);
    if (p.positions) value += load_weight(p.positions, p.position_type, place * p.width + i);
    out[row * p.width + i] = from_float<Out>(value);
  }
}

}  // namespace

void embedding(Context& ctx, const Tensor& table, const Tensor& ids, const Tensor& out) {
  dispatch_weight(table.dtype, [&](auto in) { move<false>(ctx, "embedding", table, ids, table.shape[0], out, in); });
}

void gather_rows(Context& ctx, const Tensor& x, const Tensor& rows, const Tensor& out) {
  dispatch_act(x.dtype, [&](auto in) { move<false>(ctx, "gather_rows", x, rows, x.shape[0], out, in); });
}

void scatter_rows(Context& ctx, const Tensor& x, const Tensor& rows, const Tensor& out) {
  dispatch_act(x.dtype, [&](auto in) { move<true>(ctx, "scatter_rows", x, rows, out.shape[0], out, in); });
}

void add(Context& ctx, const Tensor& x, const Tensor& out) {
  const std::int64_t n = x.elements();
  dispatch_vector(vectorizable(n, x, out), [&](auto count) {
    constexpr int kCount = decltype(count)::value;
    const dim3 grid(static_cast<unsigned>(ceil_div(n, kThreads * kCount)));
    launch(ctx, "add", add_elements<kCount>, {grid, dim3(kThreads), 0, true}, x.as<float>(), n, out.as<float>());
  });
}

void prepend_token(Context& ctx, const Tensor& token, const Tensor& x, const Tensor& positions, const Tensor& out) {
  const Prepend p{token.data,   positions.data, token.dtype, positions.dtype, out.shape[0] * out.shape[1],
                  out.shape[1], out.shape[2]};
  if (p.rows == 0 || p.width == 0) return;
  dispatch_act(x.dtype, [&](auto in) {
    dispatch_act(out.dtype, [&](auto to) {
      using In = decltype(in);
      using Out = decltype(to);
      launch(ctx, "prepend_token", prepend_rows<In, Out>, row_launch(p.rows, p.width), p,
             static_cast<const In*>(x.data), static_cast<Out*>(out.data));
    });
  });
}

}  // namespace gov::ops::cuda
