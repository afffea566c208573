// The engine on a GPU beside the engine on the CPU: the same tokens, and log-probabilities that differ by rounding,
// whatever the chunk, the block size and the company in the batch. Free blocks are filled with NaN before each step.
#include <gtest/gtest.h>

#include <cmath>
#include <future>

#include "engine/engine_loop.h"
#include "model/device_weights.h"
#include "tensor/device.h"
#include "tests/engine/test_support.h"
#include "tests/test_device.h"

namespace gov::test {
namespace {

class OnDevice : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    GOV_NEEDS_TEST_DEVICE();
    host.emplace(random_model(small_config(GetParam()), 5, pool));
    device.emplace(to_device(random_model(small_config(GetParam()), 5, pool), {test_ordinal(), false, {}}, pool));
  }

  EngineOptions options(std::int64_t chunk, std::int64_t block_size) const {
    EngineOptions o;
    o.context = 128;
    o.chunk = chunk;
    o.block_size = block_size;
    o.check_blocks = true;
    return o;
  }
  std::vector<Request> requests() const {
    std::vector<Request> all;
    const std::int64_t lengths[] = {23, 1, 70, 8, 7, 40};
    for (std::uint64_t i = 0; i < 6; ++i) {
      const GenerationOptions o = i % 2 ? sampled(20 + static_cast<std::int64_t>(i), i) : greedy(24);
      all.push_back(make_request(random_prompt(lengths[i], 100 + i), o));
      if (GetParam() && i % 3 == 0)
        all.back().images = {random_image(host->config, i), random_image(host->config, i + 50)};
      if (i == 4) all.back().n = 3;
    }
    return all;
  }
  std::vector<RequestResult> run(const Model& model, const EngineOptions& o) {
    Engine engine(model, nullptr, {}, o, pool);
    std::vector<RequestResult> results = generate(engine, requests());
    stats = engine.stats();
    EXPECT_EQ(stats.free_full_blocks, stats.full_blocks);
    EXPECT_EQ(stats.free_sliding_blocks, stats.sliding_blocks);
    return results;
  }
  static void expect_close(const std::vector<RequestResult>& a, const std::vector<RequestResult>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      ASSERT_EQ(a[i].choices.size(), b[i].choices.size());
      for (std::size_t c = 0; c < a[i].choices.size(); ++c) {
        SCOPED_TRACE(testing::Message() << "request " << i << ", choice " << c);
        const Completion &x = a[i].choices[c], &y = b[i].choices[c];
        EXPECT_EQ(x.tokens, y.tokens);
        ASSERT_EQ(x.logprobs.size(), y.logprobs.size());
        for (std::size_t t = 0; t < x.logprobs.size(); ++t) ASSERT_NEAR(x.logprobs[t], y.logprobs[t], 1e-3) << t;
      }
    }
  }

  ThreadPool pool{2};
  std::optional<Model> host, device;
  EngineStats stats;
};

TEST_P(OnDevice, EqualsTheCpuForEveryChunkAndBlockSize) {
  const std::vector<RequestResult> expected = run(*host, options(16, 8));
  for (const std::int64_t chunk : {1, 7, 512}) {
    for (const std::int64_t block_size : {8, 64}) {
      SCOPED_TRACE(testing::Message() << "chunk " << chunk << ", block " << block_size);
      expect_close(run(*device, options(chunk, block_size)), expected);
      EXPECT_EQ(stats.decode_path, "ops");
      EXPECT_GT(stats.decode.replayed, 0);
    }
  }
}

TEST_P(OnDevice, PreemptionDoesNotChangeTheText) {
  const std::vector<RequestResult> expected = run(*device, options(16, 8));
  EngineOptions o = options(16, 8);
  o.prefix_cache = false;  // shared prefixes and room for snapshots would make the cache large enough
  o.memory_limit = std::uint64_t{1} << 34;
  const Engine whole(*device, nullptr, {}, o, pool);
  const MemoryPlan plan = whole.plan();
  o.memory_limit = plan.total() - plan.kv_cache + plan.kv_cache * 3 / 10;
  expect_close(run(*device, o), expected);
  EXPECT_GT(stats.preemptions, 0);
}

TEST_P(OnDevice, TheSameRequestsTwiceGiveTheSameBits) {
  const std::vector<RequestResult> first = run(*device, options(16, 8)), second = run(*device, options(16, 8));
  for (std::size_t i = 0; i < first.size(); ++i) {
    for (std::size_t c = 0; c < first[i].choices.size(); ++c)
      expect_same(first[i].choices[c], second[i].choices[c], fmt::format("request {}, choice {}", i, c));
  }
}

TEST_P(OnDevice, FastTypesRun) {
  EngineOptions o = options(64, 64);
  o.dtype = DType::kBF16;
  for (const DType kv : {DType::kBF16, DType::kF8E4M3}) {
    o.kv_dtype = kv;
    for (const RequestResult& result : run(*device, o)) {
      for (const Completion& c : result.choices) EXPECT_GE(c.tokens.size(), 20u);
    }
  }
}

TEST_P(OnDevice, ScoresAndEmbeddingsAreTheCpus) {
  std::vector<Request> all = requests();
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].options.prompt_logprobs = static_cast<int>(i % 3);
    if (i % 2 == 0) all[i].options.max_new_tokens = 0;
    all[i].embed = i == 2;
  }
  Engine on_host(*host, nullptr, {}, options(16, 8), pool), on_device(*device, nullptr, {}, options(7, 8), pool);
  const std::vector<RequestResult> expected = generate(on_host, all), results = generate(on_device, all);
  for (std::size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE(i);
    ASSERT_EQ(results[i].prompt_logprobs.size(), expected[i].prompt_logprobs.size());
    for (std::size_t k = 0; k < expected[i].prompt_logprobs.size(); ++k) {
      const float a = results[i].prompt_logprobs[k], b = expected[i].prompt_logprobs[k];
      ASSERT_TRUE(std::isnan(b) ? std::isnan(a) : std::fabs(a - b) < 1e-3f) << k << ": " << a << ", " << b;
      ASSERT_EQ(results[i].prompt_top_logprobs[k].size(), expected[i].prompt_top_logprobs[k].size());
    }
    ASSERT_EQ(results[i].embedding.size(), expected[i].embedding.size());
    for (std::size_t k = 0; k < expected[i].embedding.size(); ++k)
      ASSERT_NEAR(results[i].embedding[k], expected[i].embedding[k], 1e-3) << k;
  }
  EXPECT_FALSE(results[2].embedding.empty());
}

// Rows under a mask beside rows without, and tokens without a draw, which break the steps started ahead.
TEST_P(OnDevice, ConstrainedTextsAreTheCpus) {
  const Tokenizer tokenizer = byte_tokenizer();
  OutputRules rules;
  rules.in_header = false;
  rules.final_format = Grammar::regex("[a-z]{6} (is|was) the one that I had in mind [0-9]{8}");
  const std::vector<std::int32_t> ends = {0};
  std::vector<Request> all = requests();
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i % 3 != 2) all[i].constraint.emplace(tokenizer, std::nullopt, ends, rules);
    all[i].options.max_new_tokens = 56;
  }
  Engine on_host(*host, &tokenizer, ends, options(16, 8), pool),
      on_device(*device, &tokenizer, ends, options(16, 8), pool);
  expect_close(generate(on_device, all), generate(on_host, all));
  EXPECT_GT(on_device.stats().forced_tokens, 100);
}

// A thread starts on the first GPU; the engine's thread has to go to the model's.
TEST_P(OnDevice, TheLoopsThreadUsesTheModelsGpu) {
  if (cuda_device_count() < 2) GTEST_SKIP() << "there is one GPU";
  const Model second = to_device(random_model(small_config(GetParam()), 5, pool), {1, false, {}}, pool);
  const std::vector<RequestResult> expected = run(*device, options(16, 8));
  Engine engine(second, nullptr, {}, options(16, 8), pool);
  std::vector<std::promise<RequestResult>> promises(expected.size());
  EngineLoop loop(engine);
  const std::vector<Request> all = requests();
  for (std::size_t i = 0; i < all.size(); ++i) {
    loop.submit(all[i], [&promise = promises[i]](RequestResult result, std::exception_ptr error) {
      if (error) promise.set_exception(error);
      else promise.set_value(std::move(result));
    });
  }
  std::vector<RequestResult> results;
  for (std::promise<RequestResult>& promise : promises) results.push_back(promise.get_future().get());
  expect_close(results, expected);
}

INSTANTIATE_TEST_SUITE_P(Models, OnDevice, testing::Bool(),
                         [](const auto& info) { return info.param ? "vision" : "text"; });

}  // namespace
}  // namespace gov::test
