#include <cstring>

#include "ops/cpu_support.h"
#include "ops/ops_list.h"

namespace gov::ops::cpu {

void patch_embed(Context& ctx, const Tensor& pixels, const Tensor& weight, const Tensor& bias, const Tensor& out) {
  const std::int64_t channels = pixels.shape[1], height = pixels.shape[2], width = pixels.shape[3];
  const std::int64_t patch = weight.shape[2], across = width / patch, down = height / patch;
  const std::int64_t patches = pixels.shape[0] * down * across, in = channels * patch * patch;
  // Each patch as a row [C, p, p], the layout of a weight row: the convolution is then one linear.
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
  linear_all_rows(ctx, rows, patches, in, weight, weight.shape[0], bias, out.as<float>(), false);
}

}  // namespace gov::ops::cpu
