// Positions and the cache: rope_table, rope and its derivative, kv_append. All bound by memory, or by latency where
// there are few rows.
#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kThreads = 256;

dim3 grid_for(std::int64_t threads) { return dim3(static_cast<unsigned>(ceil_div(threads, kThreads))); }
__device__ std::int64_t global_thread() { return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; }

// cos, sin [rows, half]; one thread an angle. The angle is the rounded F32 product, its functions are formed in F64:
// large positions then lose nothing, and there are few of them.
__global__ void __launch_bounds__(kThreads)
    table_kernel(const std::int32_t* __restrict__ positions, const float* __restrict__ inv_freq, float factor,
                 std::int64_t rows, std::int64_t half, float* __restrict__ cos, float* __restrict__ sin) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t i = global_thread();
  if (i >= rows * half) return;
  const float angle = __fmul_rn(static_cast<float>(positions[i / half]), inv_freq[i % half]);
  double s, c;
  sincos(static_cast<double>(angle), &s, &c);
  cos[i] = static_cast<float>(c) * factor;
  sin[i] = static_cast<float>(s) * factor;
}

// Rotates x [rows, heads, 2 * half] in place, with kBack the other way; a thread does kCount pairs.
template <int kCount, bool kBack, class T>
__global__ void __launch_bounds__(kThreads)
    rope_kernel(const float* __restrict__ cos, const float* __restrict__ sin, std::int64_t rows, std::int64_t heads,
                std::int64_t half, T* __restrict__ x) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t pieces = half / kCount, i = global_thread();
  if (i >= rows * heads * pieces) return;
  const std::int64_t head = i / pieces, row = head / heads, d = i % pieces * kCount;
  T* const first = x + head * 2 * half + d;
  T* const second = first + half;
  float a[kCount], b[kCount], c[kCount], s[kCount];
  load_row(first, a);
  load_row(second, b);
  load_row(cos + row * half + d, c);
  load_row(sin + row * half + d, s);
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    const float x0 = a[j], x1 = b[j], sine = kBack ? -s[j] : s[j];
    a[j] = x0 * c[j] - x1 * sine;
    b[j] = x1 * c[j] + x0 * sine;
  }
  store_row(first, a);
  store_row(second, b);
}

struct AppendShape {
  std::int64_t rows, kv_heads, dim, block_size, blocks;
};

// Row t of k and v [rows, kv_heads, dim] to its slot of the caches. blockIdx.y: 0 keys, 1 values; a thread moves kCount
// neighbours.
template <int kCount, class In, class Cache>
__global__ void __launch_bounds__(kThreads)
    append_kernel(AppendShape shape, const In* __restrict__ k, const In* __restrict__ v,
                  const std::int64_t* __restrict__ slots, Cache* __restrict__ k_cache, Cache* __restrict__ v_cache) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t pieces = shape.dim / kCount, i = global_thread();
  if (i >= shape.rows * shape.kv_heads * pieces) return;
  const std::int64_t vector = i / pieces, row = vector / shape.kv_heads, head = vector % shape.kv_heads;
  const std::int64_t d = i % pieces * kCount, slot = slots[row], block = slot / shape.block_size;
  if (slot < 0 || block >= shape.blocks) return;
  float values[kCount];
  load_row((blockIdx.y == 0 ? k : v) + vector * shape.dim + d, values);
  const std::int64_t to = (block * shape.kv_heads + head) * shape.block_size + slot % shape.block_size;
  store_row((blockIdx.y == 0 ? k_cache : v_cache) + to * shape.dim + d, values);
}

template <class In>
void append(Context& ctx, const AppendShape& shape, const Tensor& k, const Tensor& v, const Tensor& slots,
            const Tensor& k_cache, const Tensor& v_cache, In) {
  dispatch_cache(k_cache.dtype, [&](auto cache) {
    using Cache = decltype(cache);
    const auto run = [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      dim3 grid = grid_for(shape.rows * shape.kv_heads * (shape.dim / kCount));
      grid.y = 2;
      launch(ctx, "kv_append", append_kernel<kCount, In, Cache>, {grid, dim3(kThreads), 0, true}, shape,
             static_cast<const In*>(k.data), static_cast<const In*>(v.data), slots.as<std::int64_t>(),
             static_cast<Cache*>(k_cache.data), static_cast<Cache*>(v_cache.data));
    };
    // 16 values fill 16 bytes of F8, 8 do in BF16.
    constexpr int kWide = sizeof(Cache) == 1 ? 16 : kVector;
    if (shape.dim % kWide == 0 && vectorizable(shape.dim, k, v, k_cache, v_cache))
      run(std::integral_constant<int, kWide>{});
    else run(std::integral_constant<int, 1>{});
  });
}

template <bool kBack>
void rotate(Context& ctx, const char* op, const Tensor& cos, const Tensor& sin, const Tensor& x) {
  const std::int64_t rows = x.shape[0], heads = x.shape[1], half = x.shape[2] / 2;
  if (rows * heads * half == 0) return;
  dispatch_act(x.dtype, [&](auto type) {
    dispatch_vector(vectorizable(half, cos, sin, x), [&](auto count) {
      using T = decltype(type);
      constexpr int kCount = decltype(count)::value;
      launch(ctx, op, rope_kernel<kCount, kBack, T>,
             {grid_for(rows * heads * (half / kCount)), dim3(kThreads), 0, true}, cos.as<float>(), sin.as<float>(),
             rows, heads, half, static_cast<T*>(x.data));
    });
  });
}

}  // namespace

void rope_table(Context& ctx, const Tensor& positions, const Tensor& inv_freq, float factor, const Tensor& cos,
                const Tensor& sin) {
  const std::int64_t rows = positions.elements(), half = inv_freq.elements();
  if (rows * half == 0) return;
  launch(ctx, "rope_table", table_kernel, {grid_for(rows * half), dim3(kThreads), 0, true},
         positions.as<std::int32_t>(), inv_freq.as<float>(), factor, rows, half, cos.as<float>(), sin.as<float>());
}

void rope(Context& ctx, const Tensor& cos, const Tensor& sin, const Tensor& x) {
  rotate<false>(ctx, "rope", cos, sin, x);
}

void rope_backward(Context& ctx, const Tensor& cos, const Tensor& sin, const Tensor& dx) {
  rotate<true>(ctx, "rope_backward", cos, sin, dx);
}

void kv_append(Context& ctx, const Tensor& k, const Tensor& v, const Tensor& slots, const Tensor& k_cache,
               const Tensor& v_cache) {
  const AppendShape shape{k.shape[0], k.shape[1], k.shape[2], k_cache.shape[2], k_cache.shape[0]};
  if (k.elements() == 0 || k_cache.elements() == 0) return;
  if (k.dtype == v.dtype) {
    dispatch_act(k.dtype, [&](auto in) { append(ctx, shape, k, v, slots, k_cache, v_cache, in); });
    return;
  }
  // Two launches, each with one tensor in both places: it is written twice, to its own cache.
  dispatch_act(k.dtype, [&](auto in) { append(ctx, shape, k, k, slots, k_cache, k_cache, in); });
  dispatch_act(v.dtype, [&](auto in) { append(ctx, shape, v, v, slots, v_cache, v_cache, in); });
}

}  // namespace gov::ops::cuda
