// MXFP4 experts as BF16, made once when a model is loaded, for the large batches whose products read them many times.
#include "ops/cuda/expand.cuh"
#include "ops/cuda/support.cuh"
#include "ops/device_only.h"

namespace gov::ops {
namespace {

using namespace cuda;

// An e2m1 code's value: its three low bits are exponent and mantissa of a tiny number.
__device__ inline float code_value(std::uint32_t code, float factor) {
  const float magnitude = __uint_as_float((code & 7) << 22) * 0x1p126f * factor;
  return code & 8 ? -magnitude : magnitude;
}

// One thread unpacks a quarter of a block: 4 bytes read, 16 written. Memory bound: 4.25 + 16 bits a value.
__global__ void expand_kernel(const std::uint32_t* blocks, const std::uint8_t* scales, uint4* out,
                              std::int64_t quarters) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  grid_dependency_wait();
  grid_dependency_launch();
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < quarters; i += stride) {
    const std::uint32_t packed = blocks[i];
    const std::uint32_t scale = scales[i / 4];
    const float factor = scale == 0 ? 0x1p-127f : __uint_as_float(scale << 23);
    std::uint32_t words[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const float low = code_value(packed >> (8 * w), factor), high = code_value(packed >> (8 * w + 4), factor);
      const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
      words[w] = reinterpret_cast<const std::uint32_t&>(pair);
    }
    out[i] = {words[0], words[1], words[2], words[3]};
  }
}

void expand(Context& ctx, const char* op, const void* blocks, const void* scales, std::int64_t count, void* out) {
  const std::int64_t quarters = count * 4;
  const std::int64_t grid = std::min<std::int64_t>(ceil_div(quarters, 256), 32 * device_of(ctx).multiprocessors);
  launch(ctx, op, expand_kernel, {dim3(static_cast<unsigned>(grid)), dim3(256), 0, true},
         static_cast<const std::uint32_t*>(blocks), static_cast<const std::uint8_t*>(scales), static_cast<uint4*>(out),
         quarters);
}

}  // namespace

void cuda::expand_experts(Context& ctx, const char* op, const ExpertProjection& p, std::int64_t first,
                          std::int64_t count, void* out) {
  const std::int64_t blocks = p.out_features() * p.in_features() / 32;
  expand(ctx, op, static_cast<const std::uint8_t*>(p.blocks.data) + first * blocks * 16,
         static_cast<const std::uint8_t*>(p.scales.data) + first * blocks, count * blocks, out);
}

void expand_mxfp4(Context& ctx, const Tensor& blocks, const Tensor& scales, const Tensor& out) {
  ctx.begin_op(static_cast<double>(blocks.bytes() + scales.bytes() + out.bytes()), 0);
  expand(ctx, "expand_mxfp4", blocks.data, scales.data, scales.elements(), out.data);
}

}  // namespace gov::ops
