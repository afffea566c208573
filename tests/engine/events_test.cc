// Callbacks, cancellation, requests that fail, pictures, and memory.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <stdexcept>

#include "tests/engine/test_support.h"

namespace gov::test {
namespace {

EngineOptions checked(std::int64_t context, std::int64_t chunk = 16) {
  EngineOptions o;
  o.context = context;
  o.chunk = chunk;
  o.block_size = 8;
  o.snapshot_share = 0;
  o.check_blocks = true;
  return o;
}

void run_all(Engine& engine) {
  while (engine.step()) {
  }
}

void expect_all_free(const Engine& engine) {
  EXPECT_EQ(engine.stats().free_full_blocks, engine.stats().full_blocks);
  EXPECT_EQ(engine.stats().free_sliding_blocks, engine.stats().sliding_blocks);
}

class Events : public testing::Test {
 protected:
  Events() : model(random_model(small_config(), 5, pool)), tokenizer(byte_tokenizer()) {
    engine.emplace(model, &tokenizer, std::vector<std::int32_t>{}, checked(128), pool);
  }
  Completion one(const Request& r) { return generate(*engine, std::vector<Request>(1, r))[0].choices[0]; }

  ThreadPool pool{1};
  Model model;
  Tokenizer tokenizer;
  std::optional<Engine> engine;
};

TEST_F(Events, StreamEqualsTheResult) {
  Request request = make_request(random_prompt(20, 1), sampled(30, 2));
  request.n = 3;
  std::vector<Completion> streamed(3);
  request.on_token = [&](const TokenEvent& e) {
    Completion& c = streamed[static_cast<std::size_t>(e.choice)];
    c.tokens.push_back(e.token);
    c.text += e.text;
    c.logprobs.push_back(e.logprob);
    c.top_logprobs.emplace_back(e.top_logprobs.begin(), e.top_logprobs.end());
  };
  const RequestResult result = generate(*engine, std::vector<Request>(1, request))[0];
  for (std::size_t i = 0; i < 3; ++i) {
    expect_same(streamed[i], result.choices[i], "streamed");
    EXPECT_EQ(streamed[i].text, result.choices[i].text);
  }
  EXPECT_GT(result.first_token_seconds, 0);
  EXPECT_GE(result.total_seconds, result.first_token_seconds);
}

TEST_F(Events, CancelledByTheWordFromTheCallback) {
  const Request undisturbed = make_request(random_prompt(20, 3), greedy(40));
  const Completion whole = one(undisturbed);
  std::atomic<bool> word = false;
  Request request = undisturbed;
  request.cancel = &word;
  request.on_token = [&, seen = 0](const TokenEvent&) mutable { word = ++seen == 7; };
  const RequestId a = engine->submit(request), b = engine->submit(undisturbed);
  run_all(*engine);
  const Completion cut = engine->take(a).choices[0];
  EXPECT_EQ(cut.finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(cut.tokens, std::vector<std::int32_t>(whole.tokens.begin(), whole.tokens.begin() + 7));
  expect_same(engine->take(b).choices[0], whole, "the other request");
  expect_all_free(*engine);
}

TEST_F(Events, CancelledByCallWhileRunningWaitingAndInTheCallback) {
  Engine narrow(
      model, &tokenizer, {},
      [] {
        EngineOptions o = checked(128);
        o.max_sequences = 1;
        return o;
      }(),
      pool);
  RequestId running = 0;
  Request request = make_request(random_prompt(20, 3), greedy(40));
  request.on_token = [&, seen = 0](const TokenEvent&) mutable {
    if (++seen == 4) narrow.cancel(running);
    EXPECT_LE(seen, 4);
  };
  running = narrow.submit(request);
  const RequestId waiting = narrow.submit(make_request({1}, greedy(5))),
                  last = narrow.submit(make_request({2}, greedy(5)));
  narrow.step();
  narrow.cancel(waiting);
  EXPECT_TRUE(narrow.finished(waiting));
  run_all(narrow);
  EXPECT_EQ(narrow.take(running).choices[0].tokens.size(), 4u);
  const Completion never = narrow.take(waiting).choices[0];
  EXPECT_EQ(never.finish_reason, FinishReason::kCancelled);
  EXPECT_TRUE(never.tokens.empty());
  EXPECT_EQ(narrow.take(last).choices[0].tokens.size(), 5u);
  expect_all_free(narrow);
}

TEST_F(Events, TheWordStopsAPromptWithinItsStep) {
  std::atomic<bool> word = false;
  Engine slow(model, &tokenizer, {}, checked(8192, 8192), pool);
  // The trace is called in the middle of the forward pass of the only chunk.
  slow.context().trace = [&](std::string_view name, const Tensor&) { word = word || name == "hidden.0"; };
  Request request = make_request(random_prompt(600, 3), greedy(4));
  request.cancel = &word;
  const RequestId id = slow.submit(request);
  EXPECT_TRUE(slow.step());
  EXPECT_TRUE(slow.finished(id));
  const Completion c = slow.take(id).choices[0];
  EXPECT_EQ(c.finish_reason, FinishReason::kCancelled);
  EXPECT_TRUE(c.tokens.empty());
  EXPECT_EQ(slow.context().cancel, nullptr);
  expect_all_free(slow);
}

TEST_F(Events, AnExceptionOfTheCallbackFailsItsRequestOnly) {
  const Request good = make_request(random_prompt(20, 3), greedy(20));
  const Completion whole = one(good);
  Request bad = good;
  bad.n = 2;
  bad.on_token = [](const TokenEvent&) { throw std::runtime_error("the reader is gone"); };
  const RequestId a = engine->submit(bad), b = engine->submit(good);
  run_all(*engine);
  EXPECT_THROW(engine->take(a), std::runtime_error);
  expect_same(engine->take(b).choices[0], whole, "the other request");
  expect_all_free(*engine);
}

TEST_F(Events, ACallbackMaySubmitAndTakeButNotStep) {
  const Completion expected = one(make_request({9}, greedy(6)));
  const RequestId first = engine->submit(make_request({8}, greedy(1)));
  RequestId inner = 0;
  Request request = make_request(random_prompt(20, 3), greedy(20));
  request.on_token = [&](const TokenEvent&) {
    EXPECT_THROW(engine->step(), Error);
    if (inner) return;
    inner = engine->submit(make_request({9}, greedy(6)));
    EXPECT_EQ(engine->take(first).choices[0].tokens.size(), 1u);
  };
  const RequestId outer = engine->submit(request);
  run_all(*engine);
  EXPECT_EQ(engine->take(outer).choices[0].tokens.size(), 20u);
  expect_same(engine->take(inner).choices[0], expected, "submitted in a callback");
}

TEST_F(Events, NonFiniteLogitsFailTheirRequestOnly) {
  const Request good = make_request({1, 2, 3}, greedy(20));
  const Completion whole = one(good);
  const Tensor embed = model.weights.embed.slice(77, 1);
  std::memset(embed.data, 0xff, embed.bytes());  // NaN in every floating format
  const RequestId a = engine->submit(good), b = engine->submit(make_request({1, 77, 3}, greedy(20))),
                  c = engine->submit(make_request({1, 2, 3}, sampled(20, 1)));
  run_all(*engine);
  expect_same(engine->take(a).choices[0], whole, "before it");
  EXPECT_EQ(engine->take(c).choices[0].tokens.size(), 20u);
  try {
    engine->take(b);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDevice);
    EXPECT_NE(std::string(error.what()).find("non-finite logits at position 2"), std::string::npos) << error.what();
  }
  expect_all_free(*engine);
}

TEST(Images, RowsAreThoseOfTheEncoder) {
  ThreadPool pool(1);
  const Model model = random_model(small_config(true), 7, pool);
  const Tokenizer tokenizer = byte_tokenizer();
  const std::vector<float> first = random_image(model.config, 1), second = random_image(model.config, 2);
  const auto rows_of = [&](std::vector<std::vector<InputRow>> parts) {
    std::vector<InputRow> rows;
    for (const auto& part : parts) rows.insert(rows.end(), part.begin(), part.end());
    return rows;
  };
  const auto image = [&](const std::vector<float>& pixels) { return encode_image(model, pool, pixels); };
  struct Case {
    std::vector<std::int32_t> prompt;
    std::vector<std::vector<float>> images;
    std::vector<InputRow> rows;
  };
  const std::vector<std::int32_t> words = random_prompt(11, 3);
  std::vector<std::int32_t> at_zero{kImageToken};
  at_zero.insert(at_zero.end(), words.begin(), words.end());
  const std::vector<Case> cases = {
      {words, {first}, rows_of({image(first), text_rows(words)})},    // prefix
      {at_zero, {first}, rows_of({image(first), text_rows(words)})},  // the same by a place at index 0
      {words, {first, second}, rows_of({image(first), image(second), text_rows(words)})},
      {{5, kImageToken, 6, 7, kImageToken, 8},
       {second, first},
       rows_of({text_rows({5}), image(second), text_rows({6, 7}), image(first), text_rows({8})})},
      {{kImageToken, kImageToken}, {first, second}, rows_of({image(first), image(second)})},
  };
  std::vector<Completion> expected;
  for (const Case& c : cases) expected.push_back(plain_generate(model, pool, c.rows, sampled(16, 4), undrawable()));
  expect_same(expected[0], expected[1], "prefix and place at index 0");
  EXPECT_NE(expected[0].tokens, expected[2].tokens);
  for (const std::int64_t chunk : {1, 7, 512}) {
    EngineOptions o = checked(64, chunk);
    o.prefix_cache = false;  // so that pictures are counted alone
    Engine engine(model, &tokenizer, {}, o, pool);
    std::vector<Request> requests;
    for (const Case& c : cases) {
      requests.push_back(make_request(c.prompt, sampled(16, 4)));
      requests.back().images = c.images;
    }
    requests.push_back(make_request(words, greedy(16)));  // text among pictures
    const std::vector<RequestResult> results = generate(engine, requests);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      expect_same(results[i].choices[0], expected[i], fmt::format("chunk {}, case {}", chunk, i));
      EXPECT_EQ(results[i].prompt_tokens, static_cast<std::int64_t>(cases[i].rows.size()));
    }
    expect_same(results.back().choices[0], plain_generate(model, pool, text_rows(words), greedy(16), undrawable()),
                "text");
    EXPECT_EQ(engine.stats().images, 8);  // each once, however the chunks cut it
  }
}

TEST(Images, ChoicesAndPreemptionEncodeAnImageOnce) {
  ThreadPool pool(1);
  const Model model = random_model(small_config(true), 7, pool);
  const Tokenizer tokenizer = byte_tokenizer();
  Request request = make_request(random_prompt(30, 1), sampled(40, 2));
  request.images = {random_image(model.config, 1)};
  request.n = 6;
  Engine roomy(model, &tokenizer, {}, checked(128), pool);
  const RequestResult expected = generate(roomy, std::vector<Request>(1, request))[0];
  EngineOptions o = checked(128);
  o.memory_limit = roomy.plan().total() - roomy.plan().kv_cache * 7 / 10;
  Engine tight(model, &tokenizer, {}, o, pool);
  const RequestResult result = generate(tight, std::vector<Request>(1, request))[0];
  EXPECT_GT(tight.stats().preemptions, 0);
  EXPECT_EQ(tight.stats().images, 1);
  for (std::size_t i = 0; i < 6; ++i) expect_same(result.choices[i], expected.choices[i], "preempted choice");
}

std::int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * 4096;
}

TEST(Memory, TheWholeContextIsPlannedButNotTouched) {
  ThreadPool pool(1);
  Config config = small_config();
  config.num_key_value_heads = 4;
  const Model model = random_model(config, 1, pool);
  EngineOptions o;
  o.memory_limit = std::uint64_t{1} << 40;
  const std::int64_t before = resident_bytes();
  Engine engine(model, nullptr, {}, o, pool);
  EXPECT_EQ(engine.options().context, 131072);
  EXPECT_GT(engine.plan().kv_cache, std::uint64_t{500} << 20);
  EXPECT_EQ(engine.stats().full_blocks, 8 * 131072 / 16);
  EXPECT_LT(engine.stats().sliding_blocks, 8 * (40 + 8 * 2));  // windows and a chunk, not the context
  generate(engine, std::vector<Request>(1, make_request({1, 2, 3}, greedy(4))));
  EXPECT_LT(resident_bytes() - before, std::int64_t{64} << 20);
}

TEST(Memory, ContextShrinksToTheLimitOrIsRefused) {
  ThreadPool pool(1);
  const Model model = random_model(small_config(), 1, pool);
  EngineOptions o;
  o.max_sequences = 2;
  o.context = 1024;
  o.memory_limit = std::uint64_t{1} << 34;
  const Engine small(model, nullptr, {}, o, pool);
  const std::uint64_t enough = small.plan().total();
  o.context = 0;
  o.memory_limit = enough + (std::uint64_t{2} << 20);
  const Engine cut(model, nullptr, {}, o, pool);
  EXPECT_GT(cut.options().context, 1024);
  EXPECT_LT(cut.options().context, 131072);
  EXPECT_LE(cut.plan().total(), o.memory_limit);
  EXPECT_GE(cut.stats().full_blocks * cut.options().block_size, cut.options().context);
  for (const std::int64_t context : {0, 1024, 131072}) {
    o.context = context;
    o.memory_limit = enough - small.plan().kv_cache;
    try {
      const Engine refused(model, nullptr, {}, o, pool);
      ADD_FAILURE() << "context " << context;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
}

TEST(Memory, OneSequenceOfFullLengthFitsTheSmallestCache) {
  ThreadPool pool(1);
  const Model model = random_model(small_config(), 5, pool);
  EngineOptions o = checked(256);
  o.memory_limit = std::uint64_t{1} << 34;
  const std::vector<Request> requests(3, make_request(random_prompt(200, 3), sampled(55, 1)));
  Engine roomy(model, nullptr, {}, o, pool);
  const std::vector<RequestResult> expected = generate(roomy, requests);
  // The smallest limit that is accepted.
  std::uint64_t low = 0, high = o.memory_limit;
  while (low < high) {
    o.memory_limit = low + (high - low) / 2;
    try {
      const Engine engine(model, nullptr, {}, o, pool);
      high = o.memory_limit;
    } catch (const Error&) {
      low = o.memory_limit + 1;
    }
  }
  o.memory_limit = low;
  Engine tight(model, nullptr, {}, o, pool);
  EXPECT_EQ(tight.stats().full_blocks, 256 / 8);
  const std::vector<RequestResult> results = generate(tight, requests);
  for (std::size_t i = 0; i < 3; ++i) expect_same(results[i].choices[0], expected[i].choices[0], "tight");
}

}  // namespace
}  // namespace gov::test
