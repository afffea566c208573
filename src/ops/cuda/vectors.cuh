#pragma once
// Reading and writing rows of numbers in 16-byte pieces, widened to F32 in registers.

#include "ops/cuda/support.cuh"

namespace gov::ops::cuda {

// Loads kCount neighbours; in one or more 16-byte accesses where kCount * sizeof(T) is a multiple of 16, for which
// `from` must be aligned.
template <int kCount, class T>
__device__ inline void load_row(const T* from, float (&to)[kCount]) {
  constexpr int kBytes = kCount * static_cast<int>(sizeof(T));
  if constexpr (kBytes % 16 == 0) {
    constexpr int kPer = 16 / static_cast<int>(sizeof(T));
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) {
      const uint4 raw = reinterpret_cast<const uint4*>(from)[i];
      const T* part = reinterpret_cast<const T*>(&raw);
#pragma unroll
      for (int j = 0; j < kPer; ++j) to[i * kPer + j] = to_float(part[j]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = to_float(from[i]);
  }
}

// Rounds and writes kCount neighbours, as load_row reads them.
template <int kCount, class T>
__device__ inline void store_row(T* to, const float (&from)[kCount]) {
  constexpr int kBytes = kCount * static_cast<int>(sizeof(T));
  if constexpr (kBytes % 16 == 0) {
    constexpr int kPer = 16 / static_cast<int>(sizeof(T));
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) {
      uint4 raw;
      T* part = reinterpret_cast<T*>(&raw);
#pragma unroll
      for (int j = 0; j < kPer; ++j) part[j] = from_float<T>(from[i * kPer + j]);
      reinterpret_cast<uint4*>(to)[i] = raw;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = from_float<T>(from[i]);
  }
}

// Element i of a weight whose type is known at run time only.
__device__ inline float load_weight(const void* from, DType dtype, std::int64_t i) {
  switch (dtype) {
    case DType::kBF16: return to_float(static_cast<const bf16_t*>(from)[i]);
    case DType::kF16: return to_float(static_cast<const f16_t*>(from)[i]);
    default: return static_cast<const float*>(from)[i];
  }
}

// Whether rows of `width` elements can be read eight at a time: every row of every tensor starts at a multiple of 16
// bytes.
inline constexpr int kVector = 8;
template <class... Tensors>
bool vectorizable(std::int64_t width, const Tensors&... tensors) {
  return width % kVector == 0 && (aligned16(tensors) && ...);
}

// Calls f(integral_constant<int, kVector or 1>{}).
template <class F>
void dispatch_vector(bool vector, F&& f) {
  if (vector) f(std::integral_constant<int, kVector>{});
  else f(std::integral_constant<int, 1>{});
}

}  // namespace gov::ops::cuda
