// Random and constant contents for tensors on the device, for benchmarks with weights that no file holds.
#include "ops/cuda/support.cuh"
#include "ops/device_only.h"

namespace gov::ops {
namespace {

using namespace cuda;

// Philox4x32-10, as base/philox.h.
__device__ uint4 philox(std::uint64_t key, std::uint64_t counter) {
  std::uint32_t c0 = static_cast<std::uint32_t>(counter), c1 = static_cast<std::uint32_t>(counter >> 32), c2 = 0,
                c3 = 0;
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint32_t h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
    const std::uint32_t h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
    c0 = h1 ^ c1 ^ k0;
    c2 = h0 ^ c3 ^ k1;
    c1 = l1;
    c3 = l0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

// A thread makes elements 2i and 2i + 1. One pass of writes; the aim is the memory's write speed.
template <class T>
__global__ void normal_kernel(T* out, std::int64_t count, float deviation, std::uint64_t key) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; 2 * i < count; i += stride) {
    const uint4 words = philox(key, static_cast<std::uint64_t>(i));
    const float u = (static_cast<float>(words.x >> 8) + 1.f) * 0x1p-24f,
                v = static_cast<float>(words.y >> 8) * 0x1p-24f;
    const float radius = deviation * sqrtf(-2.f * logf(u));
    float sine, cosine;
    sincospif(2.f * v, &sine, &cosine);
    out[2 * i] = from_float<T>(radius * cosine);
    if (2 * i + 1 < count) out[2 * i + 1] = from_float<T>(radius * sine);
  }
}

__global__ void bytes_kernel(std::uint8_t* out, std::int64_t count, std::uint64_t key) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  const bool aligned = reinterpret_cast<std::uintptr_t>(out) % 16 == 0;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; 16 * i < count; i += stride) {
    const uint4 words = philox(key, static_cast<std::uint64_t>(i));
    if (aligned && 16 * i + 16 <= count) {
      reinterpret_cast<uint4*>(out)[i] = words;
    } else {
      const std::uint32_t all[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
      for (int b = 0; b < 16; ++b) {
        if (16 * i + b < count) out[16 * i + b] = static_cast<std::uint8_t>(all[b / 4] >> (8 * (b % 4)));
      }
    }
  }
}

template <class T>
__global__ void value_kernel(T* out, std::int64_t count, float value) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    if constexpr (std::is_same_v<T, std::uint8_t>) out[i] = static_cast<std::uint8_t>(value);
    else out[i] = from_float<T>(value);
  }
}

Launch grid_for(const Context& ctx, std::int64_t threads) {
  const std::int64_t blocks = std::min<std::int64_t>(ceil_div(threads, 256), 16 * device_of(ctx).multiprocessors);
  return {dim3(static_cast<unsigned>(blocks)), dim3(256)};
}

}  // namespace

void fill_random(Context& ctx, const Tensor& out, float deviation, std::uint64_t key) {
  ctx.begin_op(static_cast<double>(out.bytes()), 0);
  const std::int64_t count = out.elements();
  if (out.dtype == DType::kU8) {
    launch(ctx, "fill_random", bytes_kernel, grid_for(ctx, ceil_div(count, 16)), static_cast<std::uint8_t*>(out.data),
           count, key);
    return;
  }
  const auto normal = [&](auto type) {
    using T = decltype(type);
    launch(ctx, "fill_random", normal_kernel<T>, grid_for(ctx, ceil_div(count, 2)), static_cast<T*>(out.data), count,
           deviation, key);
  };
  if (out.dtype == DType::kF8E4M3) normal(f8_t{});
  else dispatch_weight(out.dtype, normal);
}

void fill_value(Context& ctx, const Tensor& out, float value) {
  ctx.begin_op(static_cast<double>(out.bytes()), 0);
  const auto fill = [&](auto type) {
    using T = decltype(type);
    launch(ctx, "fill_value", value_kernel<T>, grid_for(ctx, out.elements()), static_cast<T*>(out.data), out.elements(),
           value);
  };
  if (out.dtype == DType::kU8) fill(std::uint8_t{});
  else dispatch_weight(out.dtype, fill);
}

}  // namespace gov::ops
