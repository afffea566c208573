// Every row that is computed is counted once for each of its experts, in every layer, by what it is.
#include <gtest/gtest.h>

#include <numeric>

#include "model/device_weights.h"
#include "tests/engine/test_support.h"
#include "tests/test_device.h"

namespace gov::test {
namespace {

// Rows that each layer counts; fails where it counts other than `experts_per_row` experts for a row.
std::vector<std::int64_t> rows_by_layer(const Config& config, const std::vector<std::int64_t>& counts) {
  const auto experts = static_cast<std::ptrdiff_t>(config.num_local_experts);
  std::vector<std::int64_t> rows;
  EXPECT_EQ(static_cast<std::int64_t>(counts.size()), config.num_hidden_layers * config.num_local_experts);
  for (auto at = counts.begin(); at != counts.end(); at += experts) {
    const std::int64_t sum = std::accumulate(at, at + experts, std::int64_t{0});
    EXPECT_EQ(sum % config.num_experts_per_tok, 0);
    rows.push_back(sum / config.num_experts_per_tok);
  }
  return rows;
}

void expect_rows(const Config& config, const EngineStats& stats, std::int64_t image_rows) {
  const std::int64_t all = stats.prompt_rows + stats.decode_rows;
  const auto layers = static_cast<std::size_t>(config.num_hidden_layers);
  EXPECT_EQ(rows_by_layer(config, stats.experts.image), std::vector<std::int64_t>(layers, image_rows));
  EXPECT_EQ(rows_by_layer(config, stats.experts.text), std::vector<std::int64_t>(layers, all - image_rows));
}

EngineOptions options() {
  EngineOptions o;
  o.context = 128;
  o.chunk = 24;
  o.block_size = 8;
  o.max_sequences = 16;
  return o;
}

TEST(ExpertLoadOfTheEngine, IsTheRowsComputed) {
  ThreadPool pool(1);
  for (const bool vision : {false, true}) {
    const Model model = random_model(small_config(vision), 5, pool);
    EngineOptions o = options();
    o.draft_tokens = 3;
    Engine engine(model, nullptr, {}, o, pool);
    EXPECT_EQ(engine.stats().experts.text.size(), 12u);
    std::vector<Request> requests;
    for (std::uint64_t i = 0; i < 6; ++i) {
      requests.push_back(make_request(random_prompt(3 + 9 * static_cast<std::int64_t>(i), i), sampled(20, i)));
      if (vision && i % 2) requests.back().images = {random_image(model.config, i), random_image(model.config, i + 9)};
      requests.back().n = i == 2 ? 3 : 1;
    }
    generate(engine, requests);
    expect_rows(model.config, engine.stats(), vision ? 3 * 2 * model.config.vision.tokens() : 0);
  }
}

// Nine sequences decode in a graph for sixteen.
TEST(ExpertLoadOfTheEngine, LeavesPaddingOut) {
  GOV_NEEDS_TEST_DEVICE();
  ThreadPool pool(2);
  const Model model = to_device(random_model(small_config(true), 5, pool), {test_ordinal(), false, {}}, pool);
  Engine engine(model, nullptr, {}, options(), pool);
  std::vector<Request> requests;
  for (std::uint64_t i = 0; i < 9; ++i) {
    requests.push_back(make_request(random_prompt(5, i), sampled(30, i)));
    if (i == 4) requests.back().images = {random_image(model.config, i)};
  }
  generate(engine, requests);
  EXPECT_GT(engine.stats().decode.replayed, 0);
  expect_rows(model.config, engine.stats(), model.config.vision.tokens());
}

}  // namespace
}  // namespace gov::test
