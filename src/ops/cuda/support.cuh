#pragma once
// What the CUDA implementations share: checked launches, scalar conversions, dispatch on element types, warp and block
// reductions in a fixed order.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "ops/ops_list.h"
#include "tensor/device.h"

namespace gov::ops::cuda {

using bf16_t = __nv_bfloat16;
using f16_t = __half;
using f8_t = __nv_fp8_e4m3;

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that does not stick is not reported again
  fail(ErrorCode::kDevice, "CUDA: {}: {}", what, cudaGetErrorString(status));
}

inline cudaStream_t stream_of(const Context& ctx) { return static_cast<cudaStream_t>(ctx.stream); }
inline const DeviceInfo& device_of(const Context& ctx) { return cuda_device_info(ctx.ordinal); }

// How a kernel is launched. With `dependent`, it may start while the kernel before it in the stream still runs: it must
// call grid_dependency_wait() before it reads what that kernel wrote (programmatic dependent launch, sm_90 and newer).
struct Launch {
  dim3 grid, block;
  std::size_t shared = 0;
  bool dependent = false;
};

// Launches and reports errors by the op's name. Raises the limit of dynamic shared memory where more than 48 KB is asked.
template <class... Parameters, class... Args>
void launch(const Context& ctx, const char* op, void (*kernel)(Parameters...), const Launch& how, Args&&... args) {
  if (how.grid.x == 0 || how.grid.y == 0 || how.grid.z == 0) return;
  if (how.shared > 48 * 1024) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(how.shared)), op);
  }
  // Kernels that overlap must agree on how a multiprocessor divides its L1 memory: it drains before it changes that.
  if (how.dependent) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
          op);
  }
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = how.grid;
  config.blockDim = how.block;
  config.dynamicSmemBytes = how.shared;
  config.stream = stream_of(ctx);
  config.attrs = &attribute;
  config.numAttrs = how.dependent && device_of(ctx).capability >= 90 ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(args)...), op);
}

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline bool aligned16(const Tensor& t) { return reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0; }

// Calls f(T{}) with the element type of `dtype` among float, bf16_t, f16_t.
template <class F>
void dispatch_weight(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kBF16: f(bf16_t{}); return;
    case DType::kF16: f(f16_t{}); return;
    default: f(float{}); return;
  }
}
// ... among float and bf16_t.
template <class F>
void dispatch_act(DType dtype, F&& f) {
  if (dtype == DType::kBF16) f(bf16_t{});
  else f(float{});
}
// ... among float, bf16_t and f8_t.
template <class F>
void dispatch_cache(DType dtype, F&& f) {
  if (dtype == DType::kF8E4M3) f(f8_t{});
  else dispatch_act(dtype, f);
}

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16_t x) { return __bfloat162float(x); }
__device__ inline float to_float(f16_t x) { return __half2float(x); }
__device__ inline float to_float(f8_t x) { return static_cast<float>(x); }
// Rounds to nearest even; F8 saturates.
template <class T>
__device__ inline T from_float(float x) {
  if constexpr (std::is_same_v<T, float>) return x;
  else if constexpr (std::is_same_v<T, bf16_t>) return __float2bfloat16_rn(x);
  else if constexpr (std::is_same_v<T, f16_t>) return __float2half_rn(x);
  else return f8_t(x);
}

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Sum and maximum over the lanes of a warp, the same in every lane, in a fixed order.
__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}
__device__ inline float warp_max(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
}

// Sum over a block of whole warps, in every thread; `scratch` holds one float a warp. Ends with a barrier.
__device__ inline float block_sum(float x, float* scratch) {
  const int warps = (blockDim.x + kWarp - 1) / kWarp;
  x = warp_sum(x);
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = x;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < warps; ++i) sum += scratch[i];
  __syncthreads();
  return sum;
}

// Programmatic dependent launch: before this returns, nothing that the kernel before wrote may be read; and the next
// kernel may start early from here on. Both do nothing where a kernel was launched without the attribute.
__device__ inline void grid_dependency_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ inline void grid_dependency_launch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace gov::ops::cuda
