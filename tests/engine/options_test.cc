// Every rule on a request and on the engine's options has its error, and a value at the border is taken.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "tests/engine/test_support.h"

namespace gov::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

class Options : public testing::Test {
 protected:
  Options() : model(random_model(small_config(true), 1, pool)), tokenizer(byte_tokenizer()) {
    engine_options.context = 64;
    engine_options.max_sequences = 2;
    engine.emplace(model, &tokenizer, std::vector<std::int32_t>{}, engine_options, pool);
  }

  // Submits a request that `change` spoiled: the error must have the code and name the field, and nothing stays queued.
  void expect_refused(ErrorCode code, const std::string& words, const std::function<void(Request&)>& change) {
    Request request = make_request({1, 2, 3}, greedy(4));
    change(request);
    try {
      engine->submit(std::move(request));
      ADD_FAILURE() << "accepted: " << words;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
    EXPECT_FALSE(engine->step());
  }
  void expect_taken(const std::function<void(Request&)>& change) {
    Request request = make_request({1, 2, 3}, greedy(4));
    change(request);
    std::vector<Request> requests;
    requests.push_back(std::move(request));
    EXPECT_NO_THROW(generate(*engine, std::move(requests)));
  }

  ThreadPool pool{1};
  Model model;
  Tokenizer tokenizer;
  EngineOptions engine_options;
  std::optional<Engine> engine;
};

TEST_F(Options, Sampling) {
  const auto refused = [&](const std::string& field, const std::function<void(ops::SamplingParams&)>& change) {
    expect_refused(ErrorCode::kInvalidArgument, field, [&](Request& r) { change(r.options.sampling); });
  };
  for (const float bad : {-0.1f, kNan, kInf}) refused("temperature", [&](auto& p) { p.temperature = bad; });
  refused("top_k", [](auto& p) { p.top_k = -1; });
  for (const float bad : {0.f, -0.5f, 1.01f, kNan}) refused("top_p", [&](auto& p) { p.top_p = bad; });
  for (const float bad : {-0.01f, 1.01f, kNan}) refused("min_p", [&](auto& p) { p.min_p = bad; });
  for (const float bad : {0.f, 1.01f, kNan}) refused("typical_p", [&](auto& p) { p.typical_p = bad; });
  for (const float bad : {0.f, -1.f, kNan, kInf})
    refused("repetition_penalty", [&](auto& p) { p.repetition_penalty = bad; });
  for (const float bad : {kNan, kInf, -kInf}) {
    refused("presence_penalty", [&](auto& p) { p.presence_penalty = bad; });
    refused("frequency_penalty", [&](auto& p) { p.frequency_penalty = bad; });
  }
  expect_taken([](Request& r) {
    ops::SamplingParams& p = r.options.sampling;
    p = {0.f, 0, 1.f, 1.f, 1.f, 1e-3f, -2.f, 2.f, ~std::uint64_t{0}};
  });
}

TEST_F(Options, LengthsAndStops) {
  const auto refused = [&](const std::string& field, const std::function<void(GenerationOptions&)>& change) {
    expect_refused(ErrorCode::kInvalidArgument, field, [&](Request& r) { change(r.options); });
  };
  refused("max_new_tokens", [](auto& o) { o.max_new_tokens = -1; });
  refused("min_new_tokens", [](auto& o) { o.min_new_tokens = -1; });
  refused("min_new_tokens", [](auto& o) { o.min_new_tokens = 5; });  // max_new_tokens is 4
  refused("logprobs", [](auto& o) { o.logprobs = 21; });
  refused("logprobs", [](auto& o) { o.logprobs = -2; });
  refused("stop must be", [](auto& o) { o.stop.assign(17, "x"); });
  refused("stop must be", [](auto& o) { o.stop = {""}; });
  refused("stop must be", [](auto& o) { o.stop = {std::string(257, 'x')}; });
  refused("stop must be", [](auto& o) { o.stop = {"\xC3"}; });
  refused("stop_tokens", [](auto& o) { o.stop_tokens = {260}; });
  refused("stop_tokens", [](auto& o) { o.stop_tokens = {-1}; });
  refused("stop_tokens", [](auto& o) { o.stop_tokens.assign(1025, 1); });
  refused("logit_bias", [](auto& o) { o.logit_bias.assign(1025, {1, 0.f}); });
  refused("logit_bias", [](auto& o) { o.logit_bias = {{260, 0.f}}; });
  refused("logit_bias", [](auto& o) { o.logit_bias = {{-1, 0.f}}; });
  refused("logit_bias", [](auto& o) { o.logit_bias = {{1, kNan}}; });
  refused("logit_bias", [](auto& o) { o.logit_bias = {{1, -kInf}}; });
  expect_taken([](Request& r) {
    r.options.stop.assign(16, std::string(256, 'x'));
    r.options.logit_bias.assign(1024, {259, -1.f});
    r.options.stop_tokens.assign(1024, 0);
    r.options.min_new_tokens = 4;
  });
}

TEST_F(Options, PromptAndImages) {
  expect_refused(ErrorCode::kInvalidArgument, "n must be", [](Request& r) { r.n = 0; });
  expect_refused(ErrorCode::kInvalidArgument, "n must be", [](Request& r) { r.n = 17; });
  expect_refused(ErrorCode::kInvalidArgument, "the prompt is empty", [](Request& r) { r.prompt = {}; });
  expect_refused(ErrorCode::kInvalidArgument, "token 1 has id 260", [](Request& r) { r.prompt = {0, 260}; });
  expect_refused(ErrorCode::kInvalidArgument, "token 0 has id -1", [](Request& r) { r.prompt = {-1}; });
  const std::vector<float> image = random_image(model.config, 1);
  expect_refused(ErrorCode::kInvalidArgument, "2 image tokens, but 1 images", [&](Request& r) {
    r.prompt = {kImageToken, 1, kImageToken};
    r.images = {image};
  });
  expect_refused(ErrorCode::kInvalidArgument, "1 image tokens, but 2 images", [&](Request& r) {
    r.prompt = {kImageToken};
    r.images = {image, image};
  });
  expect_refused(ErrorCode::kInvalidArgument, "1 image tokens, but 0 images",
                 [](Request& r) { r.prompt = {kImageToken}; });
  expect_refused(ErrorCode::kInvalidArgument, "image 2 has 5 values", [&](Request& r) {
    r.images = {image, std::vector<float>(5)};
  });
  expect_refused(ErrorCode::kInvalidArgument, "not finite", [&](Request& r) {
    r.images = {image};
    r.images[0][7] = kNan;
  });
  // Context 64: 63 rows and one more token are the most.
  expect_refused(ErrorCode::kContextLength, "takes 64 tokens", [](Request& r) { r.prompt.assign(64, 1); });
  expect_refused(ErrorCode::kContextLength, "takes 66 tokens", [&](Request& r) {
    r.prompt.assign(60, 1);
    r.images = {image};
  });
  expect_taken([](Request& r) { r.prompt.assign(63, 1); });
  expect_taken([&](Request& r) {  // nothing but a picture
    r.prompt = {};
    r.images = {image};
  });
}

TEST_F(Options, WithoutVisionOrTokenizer) {
  const Model text_model = random_model(small_config(), 1, pool);
  Engine plain(text_model, nullptr, {}, engine_options, pool);
  Request with_image = make_request({1}, greedy(2));
  with_image.images = {random_image(model.config, 1)};
  EXPECT_THROW(plain.submit(with_image), Error);
  Request with_stop = make_request({1}, greedy(2));
  with_stop.options.stop = {"x"};
  EXPECT_THROW(plain.submit(with_stop), Error);
  std::vector<Request> requests(1, make_request({1}, greedy(2)));
  const std::vector<RequestResult> results = generate(plain, std::move(requests));
  EXPECT_EQ(results[0].choices[0].tokens.size(), 2u);
  EXPECT_EQ(results[0].choices[0].text, "");
}

TEST_F(Options, EngineOptionsOutOfRange) {
  const auto refused = [&](const std::string& field, const std::function<void(EngineOptions&)>& change) {
    EngineOptions o = engine_options;
    change(o);
    try {
      Engine wrong(model, &tokenizer, {}, o, pool);
      ADD_FAILURE() << "accepted: " << field;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find(field), std::string::npos) << error.what();
    }
  };
  refused("context", [](auto& o) { o.context = -1; });
  refused("context", [](auto& o) { o.context = 131073; });
  refused("max_sequences", [](auto& o) { o.max_sequences = 0; });
  refused("max_sequences", [](auto& o) { o.max_sequences = 4097; });
  refused("chunk", [](auto& o) { o.chunk = 0; });
  for (const std::int64_t bad : {0, 4, 12, 1032}) refused("block_size", [&](auto& o) { o.block_size = bad; });
  refused("kv_dtype", [](auto& o) { o.kv_dtype = DType::kF16; });
}

TEST_F(Options, RequestsByNumber) {
  EXPECT_THROW(engine->take(12345), Error);
  EXPECT_THROW(engine->finished(12345), Error);
  EXPECT_THROW(engine->cancel(12345), Error);
  const RequestId id = engine->submit(make_request({1}, greedy(2)));
  EXPECT_FALSE(engine->finished(id));
  EXPECT_THROW(engine->take(id), Error);
  while (engine->step()) {
  }
  EXPECT_TRUE(engine->finished(id));
  engine->take(id);
  EXPECT_THROW(engine->take(id), Error);
}

TEST_F(Options, MaxNewTokensZeroIsDoneAtOnce) {
  const RequestId id = engine->submit(make_request({1, 2}, greedy(0)));
  EXPECT_TRUE(engine->finished(id));
  const RequestResult result = engine->take(id);
  EXPECT_EQ(result.choices[0].finish_reason, FinishReason::kLength);
  EXPECT_TRUE(result.choices[0].tokens.empty());
  EXPECT_EQ(result.prompt_tokens, 2);
  EXPECT_FALSE(engine->step());
}

TEST_F(Options, GenerateThrowsTheFirstErrorAndLeavesNothingBehind) {
  std::vector<Request> requests(3, make_request({1}, greedy(2)));
  requests[1].prompt = {999};
  EXPECT_THROW(generate(*engine, requests), Error);
  EXPECT_FALSE(engine->step());
  EXPECT_EQ(engine->stats().free_full_blocks, engine->stats().full_blocks);
}

}  // namespace
}  // namespace gov::test
