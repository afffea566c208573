#include "model/parameters.h"

#include <gtest/gtest.h>

#include <set>

#include "model/memory_plan.h"

namespace gov {
namespace {

// The figures of the model card's arithmetic.
TEST(Parameters, CountsOfThePresets) {
  struct Row {
    const char* name;
    std::int64_t total, active;
  };
  // active without the embedding table: 3.608 B and 5.133 B.
  const Row rows[] = {{"gpt_oss_20b", 20914757184, 3608},
                      {"gpt_oss_120b", 116829156672, 5133},
                      {"gpt_oss_vision_20b", 21220891776, 3608},
                      {"gpt_oss_vision_120b", 117135295104, 5133}};
  for (const Row& row : rows) {
    const ParameterCount count = count_parameters(preset(row.name));
    EXPECT_EQ(count.total, row.total) << row.name;
    EXPECT_NEAR(static_cast<double>(count.active) / 1e6, static_cast<double>(row.active), 0.5) << row.name;
    std::int64_t sum = 0;
    for (const std::int64_t part : count.by_part) sum += part;
    EXPECT_EQ(sum, count.total);
  }
}

TEST(Parameters, TensorsAndBytesOfTheReleasedFiles) {
  EXPECT_EQ(parameter_table(preset("gpt_oss_20b")).size(), 459u);
  EXPECT_EQ(parameter_table(preset("gpt_oss_120b")).size(), 687u);
  EXPECT_NEAR(static_cast<double>(stored_weight_bytes(preset("gpt_oss_20b"))) / 1e9, 13.761, 0.001);
  EXPECT_NEAR(static_cast<double>(stored_weight_bytes(preset("gpt_oss_120b"))) / 1e9, 65.249, 0.001);
  Config wide = preset("gpt_oss_20b");
  wide.mxfp4_experts = false;
  EXPECT_NEAR(static_cast<double>(stored_weight_bytes(wide)) / 1e9, 41.83, 0.005);
}

TEST(Parameters, NamesAreDistinctAndShapesPositive) {
  for (const std::string_view name : preset_names()) {
    std::set<std::string> names;
    for (const ParameterSpec& spec : parameter_table(preset(name))) {
      EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
      EXPECT_GT(spec.shape.elements(), 0) << spec.name;
    }
  }
}

TEST(Parameters, OptionalPartsFollowTheConfig) {
  Config c = preset("gpt_oss_vision_20b");
  const std::size_t all = parameter_table(c).size();
  c.vision.pool_token = false;
  c.vision.class_token = false;
  c.vision.patch_bias = false;
  c.vision.final_layernorm = false;
  EXPECT_EQ(parameter_table(c).size(), all - 5);
  c.vision.pre_layernorm = true;
  EXPECT_EQ(parameter_table(c).size(), all - 3);
  c.attention_bias = false;
  EXPECT_EQ(parameter_table(c).size(), all - 3 - 4 * 24);
  c.tie_word_embeddings = true;
  EXPECT_EQ(parameter_table(c).size(), all - 4 - 4 * 24);
}

}  // namespace
}  // namespace gov
