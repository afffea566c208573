#include <cstring>

#include "ops/cpu_support.h"
#include "ops/ops_list.h"

namespace gov::ops {

// Each patch as a row [C, p, p], the layout of a weight row: the convolution is then one linear.
const float* patch_rows(Context& ctx, const Tensor& pixels, std::int64_t patch) {
  const std::int64_t channels = pixels.shape[1], height = pixels.shape[2], width = pixels.shape[3];
  const std::int64_t across = width / patch, down = height / patch, patches = pixels.shape[0] * down * across;
  const std::int64_t in = channels * patch * patch;
  float* rows = ctx.workspace.take<float>(patches * in);
  for_rows(ctx, patches, in, [&](std::int64_t i) {
    const std::int64_t image = i / (down * across), y = i / across % down * patch, x = i % across * patch;
    float* to = rows + i * in;
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t r = 0; r < patch; ++r, to += patch) {
        const float* from = pixels.as<float>() + ((image * channels + c) * height + y + r) * width + x;
        std::memcpy(to, from, static_cast<std::size_t>(patch) * sizeof(float));
      }
    }
  });
  return rows;
}

void cpu::patch_embed(Context& ctx, const Tensor& pixels, const Tensor& weight, const Tensor& bias, const Tensor& out) {
  const std::int64_t patch = weight.shape[2], in = weight.row_elements();
  linear_all_rows(ctx, patch_rows(ctx, pixels, patch), out.shape[0] * out.shape[1], in, weight, weight.shape[0], bias,
                  out.as<float>(), false);
}

}  // namespace gov::ops
