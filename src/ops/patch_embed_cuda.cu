#include "ops/cuda/linear.cuh"
#include "ops/cuda/support.cuh"

namespace gov::ops::cuda {
namespace {

struct PatchGrid {
  std::int64_t channels, height, width, patch, across, down, in;
};

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

void patch_embed(Context& ctx, const Tensor& pixels, const Tensor& weight, const Tensor& bias, const Tensor& out) {
  const std::int64_t patch = weight.shape[2], across = pixels.shape[3] / patch, down = pixels.shape[2] / patch;
  const std::int64_t patches = pixels.shape[0] * down * across, outputs = weight.shape[0];
  const PatchGrid grid{
      pixels.shape[1], pixels.shape[2], pixels.shape[3], patch, across, down, pixels.shape[1] * patch * patch};
  if (patches == 0) return;
  // An F32 result is exact: its pixels keep their digits. Otherwise they are rounded for the tensor cores.
  const bool narrow = out.dtype == DType::kBF16 && weight.dtype == DType::kBF16;
  const DType dtype = narrow ? DType::kBF16 : DType::kF32;
  void* const memory = ctx.workspace.take<std::byte>(patches * grid.in * static_cast<std::int64_t>(dtype_size(dtype)));
  const Tensor rows(memory, dtype, {patches, grid.in}, "patches", DeviceKind::kCuda);
  dispatch_act(dtype, [&](auto to) {
    using Out = decltype(to);
    launch(ctx, "patch_embed", gather_patches<Out>, {dim3(static_cast<unsigned>(patches)), dim3(256), 0, true}, grid,
           pixels.as<float>(), static_cast<Out*>(memory));
  });
  linear_rows(ctx, "patch_embed", rows, weight, bias, out.view({patches, outputs}), false);
}

}  // namespace gov::ops::cuda
