// Scores of prompts and embeddings: equal to what decoding and a plain forward pass give, however the rows are cut.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "tests/engine/test_support.h"

namespace gov::test {
namespace {

EngineOptions checked(std::int64_t chunk, std::int64_t max_sequences = 8) {
  EngineOptions o;
  o.context = 128;
  o.chunk = chunk;
  o.block_size = 8;
  o.max_sequences = max_sequences;
  o.check_blocks = true;
  return o;
}

GenerationOptions scored(int top, std::int64_t max_new_tokens = 0) {
  GenerationOptions o = greedy(max_new_tokens);
  o.prompt_logprobs = top;
  return o;
}

double weight(const Tensor& t, std::size_t i) {
  return static_cast<double>(t.dtype == DType::kF32 ? t.as<float>()[i] : to_f32(t.as<bf16>()[i]));
}

std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }

void expect_same_scores(const RequestResult& a, const RequestResult& b, const std::string& what) {
  ASSERT_EQ(a.prompt_logprobs.size(), b.prompt_logprobs.size()) << what;
  for (std::size_t i = 0; i < a.prompt_logprobs.size(); ++i) {
    ASSERT_EQ(bits(a.prompt_logprobs[i]), bits(b.prompt_logprobs[i])) << what << ", row " << i;
    ASSERT_EQ(a.prompt_top_logprobs[i].size(), b.prompt_top_logprobs[i].size()) << what << ", row " << i;
    for (std::size_t k = 0; k < a.prompt_top_logprobs[i].size(); ++k) {
      ASSERT_EQ(a.prompt_top_logprobs[i][k].token, b.prompt_top_logprobs[i][k].token) << what << ", row " << i;
      ASSERT_EQ(bits(a.prompt_top_logprobs[i][k].logprob), bits(b.prompt_top_logprobs[i][k].logprob)) << what;
    }
  }
}

class PromptRows : public testing::Test {
 protected:
  // Without a tokenizer no id is forbidden: what is drawn has the model's own probabilities.
  RequestResult run(const EngineOptions& o, const Request& request) {
    Engine engine(model, nullptr, {}, o, pool);
    RequestResult result = generate(engine, std::vector<Request>(1, request))[0];
    EXPECT_EQ(engine.stats().free_full_blocks, engine.stats().full_blocks);
    EXPECT_EQ(engine.stats().free_sliding_blocks, engine.stats().sliding_blocks);
    return result;
  }

  ThreadPool pool{1};
  Model model = random_model(small_config(), 5, pool);
};

TEST_F(PromptRows, ScoresAreThoseOfTheTokensDrawn) {
  std::vector<std::int32_t> prompt = random_prompt(9, 4);
  const Completion drawn = run(checked(16), make_request(prompt, sampled(40, 7))).choices[0];
  const std::size_t begin = prompt.size();
  prompt.insert(prompt.end(), drawn.tokens.begin(), drawn.tokens.end());
  const RequestResult result = run(checked(16), make_request(prompt, scored(20)));
  ASSERT_EQ(result.prompt_logprobs.size(), prompt.size());
  EXPECT_TRUE(std::isnan(result.prompt_logprobs[0]));
  EXPECT_TRUE(result.prompt_top_logprobs[0].empty());
  for (std::size_t i = 0; i < drawn.tokens.size(); ++i) {
    ASSERT_EQ(bits(result.prompt_logprobs[begin + i]), bits(drawn.logprobs[i])) << i;
    ASSERT_EQ(result.prompt_top_logprobs[begin + i].size(), 20u);
    for (std::size_t k = 0; k < 20; ++k) {
      ASSERT_EQ(result.prompt_top_logprobs[begin + i][k].token, drawn.top_logprobs[i][k].token);
      ASSERT_EQ(bits(result.prompt_top_logprobs[begin + i][k].logprob), bits(drawn.top_logprobs[i][k].logprob));
    }
  }
  EXPECT_TRUE(result.choices[0].tokens.empty());
  EXPECT_EQ(result.choices[0].finish_reason, FinishReason::kLength);
}

TEST_F(PromptRows, ScoresDoNotDependOnChunksBatchesCachesOrWhatFollows) {
  const Request request = make_request(random_prompt(70, 3), scored(5));
  const RequestResult expected = run(checked(512), request);
  for (const std::int64_t chunk : {1, 7, 16}) {
    for (const std::int64_t at_once : {1, 3}) {  // rows of logits, too
      expect_same_scores(run(checked(chunk, at_once), request), expected, fmt::format("{}, {}", chunk, at_once));
    }
  }
  Request more = request;
  more.options.max_new_tokens = 5;
  more.n = 3;
  const RequestResult both = run(checked(16), more);
  expect_same_scores(both, expected, "three choices follow");
  EXPECT_EQ(both.choices[2].tokens.size(), 5u);

  Engine engine(model, nullptr, {}, checked(16), pool);
  Request other = make_request(request.prompt, greedy(8));  // its prefix is known to the cache afterwards
  generate(engine, std::vector<Request>(1, other));
  std::vector<Request> all(4, request);
  all[1] = other;
  all[2].options.prompt_logprobs = 0;
  const std::vector<RequestResult> results = generate(engine, all);
  expect_same_scores(results[0], expected, "with a known prefix");
  expect_same_scores(results[3], expected, "among others");
  EXPECT_EQ(results[2].prompt_logprobs.size(), 70u);
  EXPECT_EQ(bits(results[2].prompt_logprobs[69]), bits(expected.prompt_logprobs[69]));
  EXPECT_TRUE(results[2].prompt_top_logprobs[69].empty());
  EXPECT_TRUE(results[1].prompt_logprobs.empty());
  EXPECT_EQ(results[0].cached_tokens, 0);
}

TEST_F(PromptRows, APromptOfTheWholeContextCanBeScored) {
  EXPECT_EQ(run(checked(16), make_request(random_prompt(128, 3), scored(0))).prompt_logprobs.size(), 128u);
  EXPECT_EQ(run(checked(16), make_request({3}, scored(2))).prompt_logprobs.size(), 1u);
  Engine engine(model, nullptr, {}, checked(16), pool);
  EXPECT_THROW(engine.submit(make_request(random_prompt(129, 3), scored(0))), Error);
  EXPECT_THROW(engine.submit(make_request(random_prompt(128, 3), scored(0, 1))), Error);
  EXPECT_THROW(engine.submit(make_request({1}, scored(21))), Error);
  // Neither scores nor tokens: nothing to do.
  const RequestResult nothing = run(checked(16), make_request({1, 2}, greedy(0)));
  EXPECT_TRUE(nothing.choices[0].tokens.empty());
}

TEST_F(PromptRows, ScoresAreNotOfBiasOrTemperature) {
  Request request = make_request(random_prompt(20, 3), scored(3));
  const RequestResult expected = run(checked(16), request);
  request.options.sampling = {.temperature = 0.3f, .repetition_penalty = 1.5f};
  request.options.logit_bias = {{request.prompt[4], 5.f}};
  expect_same_scores(run(checked(16), request), expected, "with bias and temperature");
}

TEST_F(PromptRows, PreemptedPromptsAreScoredOnce) {
  std::vector<Request> all;
  for (std::uint64_t i = 0; i < 6; ++i) {
    all.push_back(make_request(random_prompt(60, i), i % 2 ? scored(2, 40) : greedy(50)));
    if (i == 3) all.back().n = 3;
  }
  std::vector<RequestResult> expected;
  for (const Request& request : all) expected.push_back(run(checked(16), request));
  EngineOptions o = checked(16);
  o.memory_limit = std::uint64_t{1} << 34;
  const MemoryPlan plan = Engine(model, nullptr, {}, o, pool).plan();
  o.memory_limit = plan.total() - plan.kv_cache * 7 / 10;
  Engine engine(model, nullptr, {}, o, pool);
  const std::vector<RequestResult> results = generate(engine, all);
  EXPECT_GT(engine.stats().preemptions, 0);
  for (std::size_t i = 0; i < all.size(); ++i) {
    expect_same_scores(results[i], expected[i], std::to_string(i));
    expect_same(results[i].choices[0], expected[i].choices[0], std::to_string(i));
  }
}

// One sequence at a time needs one row of logits, but a product for each row of the prompt would take long.
TEST_F(PromptRows, PiecesAreNotTiny) {
  const auto ops_of = [&](const GenerationOptions& options) {
    Engine engine(model, nullptr, {}, checked(128, 1), pool);
    generate(engine, {make_request(random_prompt(100, 3), options)});
    return engine.context().counters.ops;
  };
  EXPECT_LE(ops_of(scored(1, 1)) - ops_of(greedy(1)), 4 * 3);
}

// The mean by hand: the last layer's rows through a norm in double precision.
TEST_F(PromptRows, EmbeddingsAreTheMeanOfTheLastHiddenStates) {
  Request request = make_request(random_prompt(30, 8), greedy(10));
  request.embed = true;
  std::vector<double> mean(static_cast<std::size_t>(model.config.hidden_size));
  Engine engine(model, nullptr, {}, checked(512), pool);
  engine.context().trace = [&](std::string_view name, const Tensor& x) {
    if (name != fmt::format("hidden.{}", model.config.num_hidden_layers - 1)) return;
    ASSERT_EQ(x.rows(), 30);
    const auto width = static_cast<std::size_t>(model.config.hidden_size);
    for (std::size_t row = 0; row < 30; ++row) {
      const float* const values = x.as<float>() + row * width;
      double squares = 0;
      for (std::size_t i = 0; i < width; ++i) squares += double(values[i]) * double(values[i]);
      const double scale = 1 / std::sqrt(squares / double(width) + double(model.config.rms_norm_eps));
      for (std::size_t i = 0; i < width; ++i) mean[i] += double(values[i]) * scale * weight(model.weights.norm, i) / 30;
    }
  };
  const RequestResult result = generate(engine, std::vector<Request>(1, request))[0];
  ASSERT_EQ(result.embedding.size(), mean.size());
  for (std::size_t i = 0; i < mean.size(); ++i) EXPECT_NEAR(result.embedding[i], mean[i], 1e-5) << i;
  EXPECT_TRUE(result.choices[0].tokens.empty());
  EXPECT_EQ(result.prompt_tokens, 30);
  for (const std::int64_t chunk : {1, 7, 16}) {
    const std::vector<float> again = run(checked(chunk, chunk == 7 ? 1 : 8), request).embedding;
    ASSERT_EQ(again.size(), result.embedding.size());
    EXPECT_EQ(std::memcmp(again.data(), result.embedding.data(), again.size() * sizeof(float)), 0) << chunk;
  }
  request.n = 2;
  EXPECT_THROW(engine.submit(request), Error);
}

TEST_F(PromptRows, PicturesAreRowsWithoutATokenOfTheirOwn) {
  const Model vision = random_model(small_config(true), 7, pool);
  Request request = make_request({5, kImageToken, 6, 7}, scored(2));
  request.images = {random_image(vision.config, 1)};
  Request embed = request;
  embed.embed = true;
  std::vector<RequestResult> expected;
  for (const std::int64_t chunk : {512, 3}) {
    Engine engine(vision, nullptr, {}, checked(chunk), pool);
    const std::vector<RequestResult> results = generate(engine, {request, embed});
    ASSERT_EQ(results[0].prompt_logprobs.size(), 9u);  // 5, six rows, 6, 7
    for (std::size_t i = 0; i < 9; ++i) EXPECT_EQ(std::isnan(results[0].prompt_logprobs[i]), i < 7) << i;
    EXPECT_EQ(results[0].prompt_top_logprobs[7].size(), 2u);
    if (!expected.empty()) {
      expect_same_scores(results[0], expected[0], "cut");
      EXPECT_EQ(results[1].embedding, expected[1].embedding);
    }
    expected = results;
  }
}

TEST_F(PromptRows, NumbersThatAreNotFiniteFailTheirRequestOnly) {
  const Request good = make_request({1, 2, 3}, scored(2));
  const RequestResult expected = run(checked(16), good);
  const Tensor embed = model.weights.embed.slice(77, 1);
  std::memset(embed.data, 0xff, embed.bytes());  // NaN in every floating format
  Engine engine(model, nullptr, {}, checked(16), pool);
  Request vector = make_request({1, 77, 3}, greedy(0));
  vector.embed = true;
  const RequestId a = engine.submit(good), b = engine.submit(make_request({1, 77, 3}, scored(2))),
                  c = engine.submit(vector);
  while (engine.step()) {
  }
  expect_same_scores(engine.take(a), expected, "beside it");
  for (const RequestId id : {b, c}) {
    try {
      engine.take(id);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kDevice);
      EXPECT_NE(std::string(error.what()).find("at position 1 of the prompt"), std::string::npos) << error.what();
    }
  }
  EXPECT_FALSE(engine.stats().device_lost);
  EXPECT_EQ(engine.stats().free_full_blocks, engine.stats().full_blocks);
}

}  // namespace
}  // namespace gov::test
