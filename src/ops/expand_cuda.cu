// MXFP4 experts as BF16, made once when a model is loaded, for the large batches whose products read them many times.
#include "ops/cuda/support.cuh"
#include "ops/device_only.h"

namespace gov::ops {
namespace {

using namespace cuda;

// e2m1 code to its value: sign, two bits of exponent, one of mantissa.
__device__ float code_value(std::uint32_t code) {
  const std::uint32_t exponent = code >> 1 & 3, mantissa = code & 1;
  const float magnitude = exponent == 0
                              ? 0.5f * static_cast<float>(mantissa)
                              : ldexpf(1.f + 0.5f * static_cast<float>(mantissa), static_cast<int>(exponent) - 1);
  return code & 8 ? -magnitude : magnitude;
}

// One thread unpacks a quarter of a block: 4 bytes read, 16 written. Memory bound: 4.25 + 16 bits a value.
__global__ void expand_kernel(const std::uint32_t* blocks, const std::uint8_t* scales, uint4* out,
                              std::int64_t quarters) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < quarters; i += stride) {
    const std::uint32_t packed = blocks[i];
    const int exponent = static_cast<int>(scales[i / 4]) - 127;
    std::uint32_t words[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const float low = ldexpf(code_value(packed >> (8 * w) & 15), exponent);
      const float high = ldexpf(code_value(packed >> (8 * w + 4) & 15), exponent);
      const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
      words[w] = reinterpret_cast<const std::uint32_t&>(pair);
    }
    out[i] = {words[0], words[1], words[2], words[3]};
  }
}

}  // namespace

void expand_mxfp4(Context& ctx, const Tensor& blocks, const Tensor& scales, const Tensor& out) {
  ctx.begin_op(static_cast<double>(blocks.bytes() + scales.bytes() + out.bytes()), 0);
  const std::int64_t quarters = scales.elements() * 4;
  const std::int64_t grid = std::min<std::int64_t>(ceil_div(quarters, 256), 32 * device_of(ctx).multiprocessors);
  launch(ctx, "expand_mxfp4", expand_kernel, {dim3(static_cast<unsigned>(grid)), dim3(256)},
         static_cast<const std::uint32_t*>(blocks.data), static_cast<const std::uint8_t*>(scales.data),
         static_cast<uint4*>(out.data), quarters);
}

}  // namespace gov::ops
