// Packed projections to rotated queries and the cache's rows: one pass instead of four launches.
#include "ops/cuda/support.cuh"

namespace gov::ops::cuda {
namespace {

struct QkvArgs {
  const float *cos, *sin;  // null: nothing rotates
  const std::int64_t* slots;
  std::int64_t rows;
  int heads, kv_heads, half, block_size;
};

template <class T, int kVector>
struct alignas(sizeof(T) * kVector) Pack {
  T values[kVector];
};

// A thread takes kVector neighbouring elements of the first half of a head and their partners in the second. Threads
// run over the vectors of a head, then heads (queries, keys, values), then rows. Reads each element of qkv once, writes
// each of q, k and v once: bound by memory.
template <class In, class Out, class Cache, int kVector>
__global__ void __launch_bounds__(256) qkv_kernel(const In* __restrict__ qkv, Out* __restrict__ q,
                                                  Cache* __restrict__ k, Cache* __restrict__ v, QkvArgs a) {
  grid_dependency_wait();
  const int per_head = a.half / kVector, all_heads = a.heads + 2 * a.kv_heads;
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const std::int64_t head_row = index / per_head, row = head_row / all_heads;
  if (row >= a.rows) return;
  const int i = static_cast<int>(index % per_head) * kVector, head = static_cast<int>(head_row % all_heads);
  using InPack = Pack<In, kVector>;
  const In* from = qkv + head_row * 2 * a.half + i;
  const InPack first = *reinterpret_cast<const InPack*>(from), second = *reinterpret_cast<const InPack*>(from + a.half);
  const bool is_value = head >= a.heads + a.kv_heads;
  float x[kVector], y[kVector];
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    x[j] = to_float(first.values[j]);
    y[j] = to_float(second.values[j]);
    if (a.cos != nullptr && !is_value) {
      const float c = a.cos[row * a.half + i + j], s = a.sin[row * a.half + i + j], old = x[j];
      x[j] = old * c - y[j] * s;
      y[j] = y[j] * c + old * s;
    }
  }
  const auto store = [&](auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    Pack<T, kVector> low, high;
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      low.values[j] = from_float<T>(x[j]);
      high.values[j] = from_float<T>(y[j]);
    }
    *reinterpret_cast<Pack<T, kVector>*>(to) = low;
    *reinterpret_cast<Pack<T, kVector>*>(to + a.half) = high;
  };
  if (head < a.heads) {
    store(q + (row * a.heads + head) * 2 * a.half + i);
    return;
  }
  const std::int64_t slot = a.slots[row];
  if (slot < 0) return;
  const int kv_head = is_value ? head - a.heads - a.kv_heads : head - a.heads;
  const std::int64_t line = (slot / a.block_size * a.kv_heads + kv_head) * a.block_size + slot % a.block_size;
  store((is_value ? v : k) + line * 2 * a.half + i);
}

}  // namespace

void qkv_rope_append(Context& ctx, const Tensor& qkv, const Tensor& cos, const Tensor& sin, const Tensor& slots,
                     const Tensor& q, const Tensor& k_cache, const Tensor& v_cache) {
  QkvArgs a{};
  a.cos = static_cast<const float*>(cos.data);
  a.sin = static_cast<const float*>(sin.data);
  a.slots = static_cast<const std::int64_t*>(slots.data);
  a.rows = q.shape[0];
  a.heads = static_cast<int>(q.shape[1]);
  a.kv_heads = static_cast<int>(k_cache.shape[1]);
  a.half = static_cast<int>(q.shape[2] / 2);
  a.block_size = static_cast<int>(k_cache.shape[2]);
  const bool vectors = a.half % 4 == 0 && aligned16(qkv) && aligned16(q) && aligned16(k_cache) && aligned16(v_cache);
  const std::int64_t threads = a.rows * (a.heads + 2 * a.kv_heads) * (a.half / (vectors ? 4 : 1));
  if (threads == 0) return;
  const Launch how{dim3(static_cast<unsigned>(ceil_div(threads, 256))), dim3(256), 0, true};
  dispatch_act(qkv.dtype, [&](auto in) {
    dispatch_act(q.dtype, [&](auto out) {
      dispatch_cache(k_cache.dtype, [&](auto cache) {
        using In = decltype(in);
        using Out = decltype(out);
        using Cache = decltype(cache);
        const auto run = [&](auto kernel) {
          launch(ctx, "qkv_rope_append", kernel, how, static_cast<const In*>(qkv.data), static_cast<Out*>(q.data),
                 static_cast<Cache*>(k_cache.data), static_cast<Cache*>(v_cache.data), a);
        };
        if (vectors) run(qkv_kernel<In, Out, Cache, 4>);
        else run(qkv_kernel<In, Out, Cache, 1>);
      });
    });
  });
}

}  // namespace gov::ops::cuda
