// Derivatives of the ops that move rows and of those that work element by element. All are bound by memory.
#include <cub/device/device_radix_sort.cuh>

#include <bit>

#include "ops/cuda/swiglu.cuh"
#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kThreads = 256;

dim3 grid_for(std::int64_t threads) { return dim3(static_cast<unsigned>(ceil_div(threads, kThreads))); }
__device__ std::int64_t global_thread() { return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; }

// --- embedding -------------------------------------------------------------------------------------------------------

// Rows outside of the table sort behind all others.
__global__ void __launch_bounds__(kThreads) number_rows(const std::int32_t* __restrict__ ids, int rows,
                                                        std::uint32_t vocabulary, std::uint32_t* keys, int* order) {
  grid_dependency_wait();
  const std::int64_t i = global_thread();
  if (i >= rows) return;
  const std::uint32_t id = static_cast<std::uint32_t>(ids[i]);
  keys[i] = id < vocabulary ? id : vocabulary;
  order[i] = static_cast<int>(i);
}

// keys: sorted ids, order: the rows they came from, ascending among equals. Grid (columns, rows): the block at the
// first of a run of equal ids adds the run's rows to the table, each in its turn. Bound by memory: a row of dout once,
// a row of the table twice; by latency where one id fills the batch: rows are asked for kAhead at a time, and what the
// next ones are before those have come.
template <int kCount, int kAhead, class T>
__global__ void __launch_bounds__(kThreads)
    add_runs(const std::uint32_t* __restrict__ keys, const int* __restrict__ order, int rows, std::uint32_t vocabulary,
             const T* __restrict__ dout, std::int64_t width, float* __restrict__ table) {
  const int first = static_cast<int>(blockIdx.y + blockIdx.z * gridDim.y);
  if (first >= rows) return;
  const std::uint32_t key = keys[first];
  if (key >= vocabulary || (first > 0 && keys[first - 1] == key)) return;
  const std::int64_t column = global_thread() * kCount;
  if (column >= width) return;
  float* const to = table + key * width + column;
  float sum[kCount];
  load_row(to, sum);
  int next[kAhead];  // rows of dout, -1: not of this run
  const auto find = [&](int r) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) next[i] = r + i < rows && keys[r + i] == key ? order[r + i] : -1;
  };
  find(first);
  for (int r = first; next[0] >= 0; r += kAhead) {
    float v[kAhead][kCount];
    bool mine[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      mine[i] = next[i] >= 0;
      if (mine[i]) load_row(dout + next[i] * width + column, v[i]);
    }
    find(r + kAhead);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (!mine[i]) break;
#pragma unroll
      for (int j = 0; j < kCount; ++j) sum[j] += v[i][j];
    }
  }
  store_row(to, sum);
}

// --- rows ------------------------------------------------------------------------------------------------------------

// dx[rows[i]] += dout[i]; one block row of threads a row.
template <int kCount, class T>
__global__ void __launch_bounds__(kThreads)
    add_to_rows(const std::int32_t* __restrict__ rows, std::int64_t count, std::int64_t limit, std::int64_t width,
                const T* __restrict__ dout, float* __restrict__ dx) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t pieces = width / kCount, i = global_thread();
  if (i >= count * pieces) return;
  const std::int64_t from = i / pieces, column = i % pieces * kCount, row = rows[from];
  if (row < 0 || row >= limit) return;
  float a[kCount], b[kCount];
  load_row(dout + from * width + column, a);
  load_row(dx + row * width + column, b);
#pragma unroll
  for (int j = 0; j < kCount; ++j) b[j] += a[j];
  store_row(dx + row * width + column, b);
}

// One thread a place of an image's rows [after, width]; images in turn.
template <class In, class Out>
__global__ void __launch_bounds__(kThreads)
    prepend_back(const In* __restrict__ dout, std::int64_t images, std::int64_t after, std::int64_t width, int skip,
                 float* dtoken, Out* dx, float* dpositions) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t i = global_thread(), row = i / width;
  if (row >= after) return;
  float sum = 0;
  for (std::int64_t n = 0; n < images; ++n) {
    const float v = to_float(dout[n * after * width + i]);
    sum += v;
    if (dx && row >= skip) dx[n * (after - skip) * width + i - skip * width] = from_float<Out>(v);
  }
  if (dtoken && row < skip) dtoken[i] += sum;
  if (dpositions) dpositions[i] += sum;
}

// --- elements --------------------------------------------------------------------------------------------------------

// h, dh [n, 2] of (gate, up); dout [n]. dh may be h.
template <int kCount, class In, class Out, class Dh>
__global__ void __launch_bounds__(kThreads)
    swiglu_back(const In* h, std::int64_t n, float alpha, float limit, const Out* __restrict__ dout, Dh* dh) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t i = global_thread() * kCount;
  if (i >= n) return;
  float pairs[2 * kCount], d[kCount];
  load_row(h + 2 * i, pairs);
  load_row(dout + i, d);
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    const SwigluSlopes s = swiglu_slopes(pairs[2 * j], pairs[2 * j + 1], alpha, limit);
    pairs[2 * j] = s.gate * d[j];
    pairs[2 * j + 1] = s.up * d[j];
  }
  store_row(dh + 2 * i, pairs);
}

template <Gelu kKind>
__device__ float gelu_slope(float x) {
  if constexpr (kKind == Gelu::kErf) {
    const float y = x * 0.70710678118654752f;
    const float phi = 0.5f * (x < 0 ? erfcf(-y) : 1.f + erff(y));  // 1 + erf would cancel below 0
    return fmaf(x * 0.39894228040143268f, expf(-0.5f * x * x), phi);
  } else if constexpr (kKind == Gelu::kTanh) {
    x = fminf(fmaxf(x, -16.f), 16.f);  // flat beyond; and no product of 0 and infinity
    const float z = x * fmaf(0.0713548162726f, x * x, 1.59576912160573f);
    const float s = 1.f / (1.f + expf(-z)), slope = fmaf(3 * 0.0713548162726f, x * x, 1.59576912160573f);
    return fmaf(x * s * (1.f - s), slope, s);
  } else {
    x = fminf(fmaxf(x, -80.f), 80.f);  // as above
    const float s = 1.f / (1.f + expf(-1.702f * x));
    return fmaf(1.702f * x * s, 1.f - s, s);
  }
}

template <int kCount, Gelu kKind, class In, class Out, class Dx>
__global__ void __launch_bounds__(kThreads) gelu_back(const In* x, std::int64_t n, const Out* dout, Dx* dx) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t i = global_thread() * kCount;
  if (i >= n) return;
  float v[kCount], d[kCount];
  load_row(x + i, v);
  load_row(dout + i, d);
#pragma unroll
  for (int j = 0; j < kCount; ++j) v[j] = gelu_slope<kKind>(v[j]) * d[j];
  store_row(dx + i, v);
}

template <Gelu kKind>
void gelu_back_of(Context& ctx, const Tensor& x, const Tensor& dout, const Tensor& dx) {
  const std::int64_t n = x.elements();
  if (n == 0) return;
  dispatch_act(x.dtype, [&](auto in) {
    dispatch_act(dout.dtype, [&](auto out) {
      dispatch_act(dx.dtype, [&](auto to) {
        dispatch_vector(vectorizable(n, x, dout, dx), [&](auto count) {
          using In = decltype(in);
          using Out = decltype(out);
          using Dx = decltype(to);
          constexpr int kCount = decltype(count)::value;
          launch(ctx, "gelu_backward", gelu_back<kCount, kKind, In, Out, Dx>,
                 {grid_for(n / kCount), dim3(kThreads), 0, true}, static_cast<const In*>(x.data), n,
                 static_cast<const Out*>(dout.data), static_cast<Dx*>(dx.data));
        });
      });
    });
  });
}

}  // namespace

void embedding_backward(Context& ctx, const Tensor& ids, const Tensor& dout, const Tensor& dtable) {
  constexpr const char* kOp = "embedding_backward";
  const std::int64_t rows = ids.elements(), vocabulary = dtable.shape[0], width = dtable.shape[1];
  if (rows == 0 || width == 0 || vocabulary == 0) return;
  if (rows > 0x7fffffff) fail(ErrorCode::kUnsupported, "{}: too many rows for one call: {}", kOp, rows);
  std::uint32_t *const keys = ctx.workspace.take<std::uint32_t>(rows), *const sorted =
                                                                           ctx.workspace.take<std::uint32_t>(rows);
  int *const order = ctx.workspace.take<int>(rows), *const sorted_order = ctx.workspace.take<int>(rows);
  const int count = static_cast<int>(rows);
  const std::uint32_t limit = static_cast<std::uint32_t>(vocabulary);
  launch(ctx, kOp, number_rows, {grid_for(rows), dim3(kThreads), 0, true}, ids.as<std::int32_t>(), count, limit, keys,
         order);
  std::size_t bytes = 0;
  const auto sort = [&](void* memory) {
    check(cub::DeviceRadixSort::SortPairs(memory, bytes, static_cast<const std::uint32_t*>(keys), sorted,
                                          static_cast<const int*>(order), sorted_order, count, 0,
                                          static_cast<int>(std::bit_width(limit)), stream_of(ctx)),
          kOp);
  };
  sort(nullptr);
  sort(ctx.workspace.take<std::byte>(static_cast<std::int64_t>(std::max<std::size_t>(bytes, 1))));
  dispatch_act(dout.dtype, [&](auto type) {
    using T = decltype(type);
    dispatch_vector(vectorizable(width, dout, dtable), [&](auto n) {
      constexpr int kCount = decltype(n)::value == 1 ? 1 : 16 / static_cast<int>(sizeof(T));
      constexpr int kAhead = 64 / (kCount < 4 ? 4 : kCount);
      constexpr std::int64_t kMostY = 32768;
      dim3 grid = grid_for(width / kCount);
      grid.y = static_cast<unsigned>(std::min(rows, kMostY));
      grid.z = static_cast<unsigned>(ceil_div(rows, kMostY));
      launch(ctx, kOp, add_runs<kCount, kAhead, T>, {grid, dim3(kThreads)}, static_cast<const std::uint32_t*>(sorted),
             static_cast<const int*>(sorted_order), count, limit, static_cast<const T*>(dout.data), width,
             dtable.as<float>());
    });
  });
}

void gather_rows_backward(Context& ctx, const Tensor& rows, const Tensor& dout, const Tensor& dx) {
  const std::int64_t count = rows.elements(), width = dx.shape[1];
  if (count == 0 || width == 0) return;
  dispatch_act(dout.dtype, [&](auto type) {
    using T = decltype(type);
    dispatch_vector(vectorizable(width, dout, dx), [&](auto n) {
      constexpr int kCount = decltype(n)::value;
      launch(ctx, "gather_rows_backward", add_to_rows<kCount, T>,
             {grid_for(count * (width / kCount)), dim3(kThreads), 0, true}, rows.as<std::int32_t>(), count, dx.shape[0],
             width, static_cast<const T*>(dout.data), dx.as<float>());
    });
  });
}

void prepend_token_backward(Context& ctx, bool with_token, const Tensor& dout, const Tensor& dtoken, const Tensor& dx,
                            const Tensor& dpositions) {
  const std::int64_t images = dout.shape[0], after = dout.shape[1], width = dout.shape[2];
  if (after * width == 0) return;
  dispatch_act(dout.dtype, [&](auto in) {
    dispatch_act(dx.dtype, [&](auto to) {
      using In = decltype(in);
      using Out = decltype(to);
      launch(ctx, "prepend_token_backward", prepend_back<In, Out>, {grid_for(after * width), dim3(kThreads), 0, true},
             static_cast<const In*>(dout.data), images, after, width, with_token ? 1 : 0,
             static_cast<float*>(dtoken.data), static_cast<Out*>(dx.data), static_cast<float*>(dpositions.data));
    });
  });
}

void swiglu_backward(Context& ctx, const Tensor& h, float alpha, float limit, const Tensor& dout, const Tensor& dh) {
  const std::int64_t n = dout.elements();
  if (n == 0) return;
  dispatch_act(h.dtype, [&](auto in) {
    dispatch_act(dout.dtype, [&](auto out) {
      dispatch_act(dh.dtype, [&](auto to) {
        dispatch_vector(vectorizable(n, h, dout, dh), [&](auto count) {
          using In = decltype(in);
          using Out = decltype(out);
          using Dh = decltype(to);
          constexpr int kCount = decltype(count)::value;
          launch(ctx, "swiglu_backward", swiglu_back<kCount, In, Out, Dh>,
                 {grid_for(n / kCount), dim3(kThreads), 0, true}, static_cast<const In*>(h.data), n, alpha, limit,
                 static_cast<const Out*>(dout.data), static_cast<Dh*>(dh.data));
        });
      });
    });
  });
}

void gelu_backward(Context& ctx, const Tensor& x, Gelu kind, const Tensor& dout, const Tensor& dx) {
  switch (kind) {
    case Gelu::kErf: return gelu_back_of<Gelu::kErf>(ctx, x, dout, dx);
    case Gelu::kTanh: return gelu_back_of<Gelu::kTanh>(ctx, x, dout, dx);
    case Gelu::kQuick: return gelu_back_of<Gelu::kQuick>(ctx, x, dout, dx);
  }
}

}  // namespace gov::ops::cuda
