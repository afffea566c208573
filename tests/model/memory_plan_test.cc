#include "model/memory_plan.h"

#include <gtest/gtest.h>

namespace gov {
namespace {

TEST(MemoryPlan, KvBytesOfTheReleasedModel) {
  const Config c = preset("gpt_oss_20b");
  RunShape shape;
  shape.context = 131072;
  shape.kv_dtype = DType::kBF16;
  shape.chunk = 1;
  const KvCacheSpec spec = kv_spec_for(c, shape);
  // 24,576 bytes a token in the full layers; the windows add about 3 MiB.
  const double full = 24576.0 * 131072;
  EXPECT_GT(static_cast<double>(kv_cache_bytes(c, spec)), full);
  EXPECT_LT(static_cast<double>(kv_cache_bytes(c, spec)), full + 4.5 * 1024 * 1024);
}

TEST(MemoryPlan, SlidingLayersNeedOnlyTheirWindow) {
  const Config c = preset("gpt_oss_20b");
  KvCacheSpec spec;
  EXPECT_EQ(sliding_blocks_needed(spec, c, 16, 1), 1);
  EXPECT_EQ(sliding_blocks_needed(spec, c, 131072, 1), 9);     // 128 positions in at most nine blocks of 16
  EXPECT_EQ(sliding_blocks_needed(spec, c, 131072, 512), 41);  // 639 positions
}

TEST(MemoryPlan, RefusesWithTheNumbers) {
  const Config c = preset("gpt_oss_20b");
  RunShape shape;
  shape.context = 131072;
  const std::uint64_t weights = stored_weight_bytes(c);
  const MemoryPlan plan = plan_memory(c, weights, 0, shape, std::uint64_t{16} << 30);
  EXPECT_GT(plan.total(), weights + (std::uint64_t{6} << 30));  // an F32 cache of 131,072 tokens is 6 GiB
  try {
    require_fits(plan);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(std::string(error.what()).find("16.00 GiB"), std::string::npos) << error.what();
  }
  EXPECT_NO_THROW(require_fits(plan_memory(c, weights, 0, shape, std::uint64_t{24} << 30)));
}

// The shapes that a GPU is to hold with the engine's defaults there.
RunShape device_shape(const Config& c) {
  RunShape shape;
  shape.context = c.max_position_embeddings;
  shape.chunk = 4096;
  shape.images = 4;
  shape.kv_dtype = DType::kBF16;
  shape.block_size = 64;
  shape.place = {DeviceKind::kCuda, DType::kBF16};
  return shape;
}

TEST(MemoryPlan, TheReleasedModelsFitTheirGpus) {
  const Config small = preset("gpt_oss_vision_20b"), large = preset("gpt_oss_vision_120b");
  const MemoryPlan a = plan_memory(small, 0, stored_weight_bytes(small), device_shape(small), std::uint64_t{24} << 30);
  EXPECT_NO_THROW(require_fits(a)) << a.str();
  EXPECT_EQ(a.activations > 0 && a.reserve > 0 && a.device == DeviceKind::kCuda, true);
  const MemoryPlan b =
      plan_memory(large, 0, stored_weight_bytes(large), device_shape(large), std::uint64_t{80'000'000'000});
  EXPECT_NO_THROW(require_fits(b)) << b.str();
}

TEST(MemoryPlan, FormsOfWeightsAddUp) {
  const Config c = preset("gpt_oss_vision_20b");
  const WeightForms forms = weight_forms(c);
  EXPECT_EQ(forms.total(), stored_weight_bytes(c));
  EXPECT_GT(forms.experts, forms.attention);
  EXPECT_GT(forms.vision, 0u);
  EXPECT_EQ(forms.expanded, 0u);
}

}  // namespace
}  // namespace gov
