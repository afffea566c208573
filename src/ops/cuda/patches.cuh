#pragma once
// A picture's patches as the rows of a matrix: patch_embed and its derivative are then products.

#include "ops/cuda/support.cuh"

namespace gov::ops::cuda {

struct PatchGrid {
  std::int64_t channels, height, width, patch, across, down, in;
};

inline PatchGrid patch_grid(const Tensor& pixels, std::int64_t patch) {
  return {pixels.shape[1],
          pixels.shape[2],
          pixels.shape[3],
          patch,
          pixels.shape[3] / patch,
          pixels.shape[2] / patch,
          pixels.shape[1] * patch * patch};
}

// Rows [patches, C p p] in the workspace, F32 or BF16: patch i of pixels [N, C, height, width], in the layout of a
// weight's row.
Tensor patch_rows(Context& ctx, const char* op, const Tensor& pixels, const PatchGrid& grid, DType dtype);

}  // namespace gov::ops::cuda
