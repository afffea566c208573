// linear_backward and patch_embed_backward: two products and a sum over rows.
#include "ops/cuda/matmul.cuh"
#include "ops/cuda/patches.cuh"

namespace gov::ops::cuda {

// 4 T in out FLOPs on the tensor cores where weight and activations are BF16: an F32 dout (a residual stream's) is then
// rounded once. Otherwise exact F32.
void linear_backward(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& dout, const Tensor& dx,
                     const Tensor& dweight, const Tensor& dbias, bool accumulate) {
  constexpr const char* kOp = "linear_backward";
  const std::int64_t rows = dout.shape[0], outputs = dout.shape[1];
  if (rows == 0 || outputs == 0) {
    if (dx && !accumulate) fill_bytes(dx.data, DeviceKind::kCuda, 0, dx.bytes(), ctx.stream);
    return;
  }
  if (dbias) add_row_sums(ctx, kOp, matrix_of(dout), {}, dbias.as<float>());
  const bool narrow_acts = (x && x.dtype == DType::kBF16) || (dx && dx.dtype == DType::kBF16);
  const Tensor from = narrow_acts && weight.dtype == DType::kBF16 ? narrow(ctx, kOp, dout) : dout;
  if (dx) multiply(ctx, kOp, matrix_of(from), false, matrix_of(weight), false, dx.data, dx.dtype, accumulate);
  if (dweight) multiply(ctx, kOp, matrix_of(from), true, matrix_of(x), false, dweight.data, DType::kF32, true);
}

// The convolution is a linear of gathered patches: 2 N patches C p^2 D FLOPs.
void patch_embed_backward(Context& ctx, const Tensor& pixels, std::int64_t patch, const Tensor& dout,
                          const Tensor& dweight, const Tensor& dbias) {
  constexpr const char* kOp = "patch_embed_backward";
  const PatchGrid grid = patch_grid(pixels, patch);
  const std::int64_t patches = pixels.shape[0] * grid.down * grid.across, outputs = dout.shape[2];
  if (patches == 0 || outputs == 0) return;
  const Tensor from = dout.view({patches, outputs});
  if (dbias) add_row_sums(ctx, kOp, matrix_of(from), {}, dbias.as<float>());
  if (!dweight || grid.in == 0) return;
  const Tensor rows = patch_rows(ctx, kOp, pixels, grid, dout.dtype);
  multiply(ctx, kOp, matrix_of(from), true, matrix_of(rows), false, dweight.data, DType::kF32, true);
}

}  // namespace gov::ops::cuda
