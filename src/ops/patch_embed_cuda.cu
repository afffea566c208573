#include "ops/cuda/patches.cuh"

#include "ops/cuda/linear.cuh"

namespace gov::ops::cuda {
namespace {

// Row i of `rows` [patches, C p p] is patch i of pixels [N, C, height, width], the layout of a weight row: the
// convolution is then one linear. One block a patch; bound by memory.
template <class Out>
__global__ void gather_patches(PatchGrid g, const float* __restrict__ pixels, Out* __restrict__ rows) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t index = blockIdx.x, image = index / (g.down * g.across);
  const std::int64_t y = index / g.across % g.down * g.patch, x = index % g.across * g.patch;
  const float* const from = pixels + image * g.channels * g.height * g.width;
  for (std::int64_t i = threadIdx.x; i < g.in; i += blockDim.x) {
    const std::int64_t column = i % g.patch, line = i / g.patch % g.patch, channel = i / g.patch / g.patch;
    rows[index * g.in + i] = from_float<Out>(from[(channel * g.height + y + line) * g.width + x + column]);
  }
}

}  // namespace

Tensor patch_rows(Context& ctx, const char* op, const Tensor& pixels, const PatchGrid& grid, DType dtype) {
  const std::int64_t patches = pixels.shape[0] * grid.down * grid.across;
  void* const memory = ctx.workspace.take<std::byte>(patches * grid.in * static_cast<std::int64_t>(dtype_size(dtype)));
  dispatch_act(dtype, [&](auto to) {
    using Out = decltype(to);
    launch(ctx, op, gather_patches<Out>, {dim3(static_cast<unsigned>(patches)), dim3(256), 0, true}, grid,
           pixels.as<float>(), static_cast<Out*>(memory));
  });
  return Tensor(memory, dtype, {patches, grid.in}, "patches", DeviceKind::kCuda);
}

void patch_embed(Context& ctx, const Tensor& pixels, const Tensor& weight, const Tensor& bias, const Tensor& out) {
  const PatchGrid grid = patch_grid(pixels, weight.shape[2]);
  const std::int64_t patches = pixels.shape[0] * grid.down * grid.across, outputs = weight.shape[0];
  if (patches == 0) return;
  // An F32 result is exact: its pixels keep their digits. Otherwise they are rounded for the tensor cores.
  const bool narrow = out.dtype == DType::kBF16 && weight.dtype == DType::kBF16;
  const Tensor rows = patch_rows(ctx, "patch_embed", pixels, grid, narrow ? DType::kBF16 : DType::kF32);
  linear_rows(ctx, "patch_embed", rows, weight, bias, out.view({patches, outputs}), false);
}

}  // namespace gov::ops::cuda
