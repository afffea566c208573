// The engine against the plain loop: the text and every log-probability are the same bits, whatever the chunk, the
// block size, the company in the batch, the number of threads, and however often blocks ran out. The engine fills free
// blocks with NaN before each step in all these tests.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/engine/test_support.h"

namespace gov::test {
namespace {

EngineOptions checked(std::int64_t context, std::int64_t chunk = 16, std::int64_t block_size = 8) {
  EngineOptions o;
  o.context = context;
  o.chunk = chunk;
  o.block_size = block_size;
  o.snapshot_share = 0;
  o.check_blocks = true;
  return o;
}

// A memory limit that leaves `share` of the cache that these options would get.
std::uint64_t limit_for(const Model& model, EngineOptions options, ThreadPool& pool, double share) {
  options.memory_limit = std::uint64_t{1} << 34;
  const Engine engine(model, nullptr, {}, options, pool);
  const MemoryPlan& plan = engine.plan();
  return plan.total() - plan.kv_cache + static_cast<std::uint64_t>(share * static_cast<double>(plan.kv_cache));
}

class Generation : public testing::Test {
 protected:
  Generation() : model(random_model(small_config(), 5, pool)), tokenizer(byte_tokenizer()) {}

  Completion plain(const Request& r, int choice = 0) {
    return plain_generate(model, pool, text_rows(r.prompt), r.options, undrawable(), choice);
  }
  std::vector<RequestResult> run(const EngineOptions& options, std::vector<Request> requests) {
    Engine engine(model, &tokenizer, {}, options, pool);
    std::vector<RequestResult> results = generate(engine, std::move(requests));
    stats = engine.stats();
    EXPECT_EQ(stats.free_full_blocks, stats.full_blocks);
    EXPECT_EQ(stats.free_sliding_blocks, stats.sliding_blocks);
    return results;
  }
  // Greedy and sampled requests with prompts of 1 to 70 rows.
  std::vector<Request> mixed_requests() {
    std::vector<Request> requests;
    const std::int64_t lengths[] = {23, 1, 70, 8, 7, 40};
    for (std::uint64_t i = 0; i < 6; ++i) {
      const GenerationOptions o = i % 2 ? sampled(20 + static_cast<std::int64_t>(i), i) : greedy(24);
      requests.push_back(make_request(random_prompt(lengths[i], 100 + i), o));
    }
    return requests;
  }

  ThreadPool pool{1};
  Model model;
  Tokenizer tokenizer;
  EngineStats stats;
};

TEST_F(Generation, EqualsThePlainLoopForEveryChunkAndBlockSize) {
  const std::vector<Request> requests = mixed_requests();
  std::vector<Completion> expected;
  for (const Request& r : requests) expected.push_back(plain(r));
  EXPECT_NE(expected[0].tokens, expected[2].tokens);
  for (const std::int64_t chunk : {1, 7, 16, 512}) {
    for (const std::int64_t block_size : {8, 16, 64}) {
      const std::vector<RequestResult> results = run(checked(128, chunk, block_size), requests);
      for (std::size_t i = 0; i < requests.size(); ++i) {
        expect_same(results[i].choices[0], expected[i],
                    fmt::format("chunk {}, block {}, request {}", chunk, block_size, i));
        EXPECT_EQ(results[i].choices[0].text, tokenizer.decode_utf8(expected[i].tokens));
      }
      EXPECT_EQ(stats.preemptions, 0);
    }
  }
}

TEST_F(Generation, DoesNotDependOnTheBatch) {
  const std::vector<Request> requests = mixed_requests();
  const std::vector<RequestResult> together = run(checked(128), requests);
  for (const std::int64_t at_once : {1, 2, 3}) {
    EngineOptions o = checked(128);
    o.max_sequences = at_once;
    const std::vector<RequestResult> fewer = run(o, requests);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      expect_same(fewer[i].choices[0], together[i].choices[0], fmt::format("{} at once, request {}", at_once, i));
    }
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const std::vector<RequestResult> alone = run(checked(128), {requests[i]});
    expect_same(alone[0].choices[0], together[i].choices[0], fmt::format("alone, request {}", i));
  }
  std::vector<Request> reversed(requests.rbegin(), requests.rend());
  const std::vector<RequestResult> backwards = run(checked(128), reversed);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    expect_same(backwards[requests.size() - 1 - i].choices[0], together[i].choices[0],
                fmt::format("reversed, request {}", i));
  }
}

TEST_F(Generation, DoesNotDependOnThreads) {
  const std::vector<Request> requests = mixed_requests();
  const std::vector<RequestResult> one = run(checked(128), requests);
  for (const int threads : {2, 3}) {
    ThreadPool other(threads);
    Engine engine(model, &tokenizer, {}, checked(128), other);
    const std::vector<RequestResult> results = generate(engine, requests);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      expect_same(results[i].choices[0], one[i].choices[0], fmt::format("{} threads, request {}", threads, i));
    }
  }
}

TEST_F(Generation, PreemptionDoesNotChangeTheText) {
  std::vector<Request> requests = mixed_requests();
  for (Request& r : requests) r.options.max_new_tokens = 50;
  const std::vector<RequestResult> expected = run(checked(128), requests);
  ASSERT_EQ(stats.preemptions, 0);
  for (const std::int64_t block_size : {8, 16, 24}) {
    for (const double share : {0.3, 0.4, 0.6}) {
      EngineOptions o = checked(128, 16, block_size);
      o.memory_limit = limit_for(model, o, pool, share);
      const std::vector<RequestResult> results = run(o, requests);
      EXPECT_LT(stats.full_blocks, 8 * 128 / block_size);
      if (share < 0.5) {
        EXPECT_GT(stats.preemptions, 0) << "block " << block_size << ", share " << share;
      }
      for (std::size_t i = 0; i < requests.size(); ++i) {
        expect_same(results[i].choices[0], expected[i].choices[0],
                    fmt::format("block {}, share {}, request {}", block_size, share, i));
      }
    }
  }
}

TEST_F(Generation, Bf16CacheIsTheSameForEveryChunk) {
  const std::vector<Request> requests = mixed_requests();
  std::vector<RequestResult> first;
  for (const std::int64_t chunk : {1, 7, 512}) {
    EngineOptions o = checked(128, chunk, 8);
    o.kv_dtype = DType::kBF16;
    const std::vector<RequestResult> results = run(o, requests);
    if (first.empty()) first = results;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      expect_same(results[i].choices[0], first[i].choices[0], fmt::format("chunk {}, request {}", chunk, i));
    }
  }
}

TEST_F(Generation, BeyondTheOriginalLength) {
  // YaRN's original length is 4,096; the window is 8.
  const Request request = make_request(random_prompt(4200, 77), sampled(12, 3));
  const Completion expected = plain(request);
  for (const std::int64_t chunk : {509, 4096}) {
    EngineOptions o = checked(8192, chunk, 16);
    o.max_sequences = 2;
    const std::vector<RequestResult> results = run(o, {make_request(random_prompt(30, 1), greedy(40)), request});
    expect_same(results[1].choices[0], expected, fmt::format("chunk {}", chunk));
    EXPECT_EQ(results[1].prompt_tokens, 4200);
  }
}

TEST_F(Generation, SamplingOptionsEqualThePlainLoop) {
  std::vector<Request> requests;
  for (std::uint64_t i = 0; i < 9; ++i) {
    GenerationOptions o = sampled(24, 40 + i);
    ops::SamplingParams& p = o.sampling;
    if (i == 0) p.temperature = 2.5f;
    if (i == 1) p.top_k = 5;
    if (i == 2) p.top_p = 0.6f;
    if (i == 3) p.min_p = 0.2f;
    if (i == 4) p.typical_p = 0.5f;
    if (i == 5) p.repetition_penalty = 1.8f;
    if (i == 6) p.presence_penalty = 1.5f, p.temperature = 0.f;
    if (i == 7) p.frequency_penalty = 0.9f, p.repetition_penalty = 0.8f;
    if (i == 8) o.logit_bias = {{65, 4.f}, {66, 3.f}, {10, -50.f}};
    requests.push_back(make_request(random_prompt(12, i), o));
  }
  const std::vector<RequestResult> results = run(checked(64), requests);
  std::vector<Completion> plain_text;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    expect_same(results[i].choices[0], plain(requests[i]), fmt::format("sampling {}", i));
    Request without = requests[i];
    without.options.sampling = sampled(24, 40 + i).sampling;
    without.options.logit_bias = {};
    EXPECT_NE(run(checked(64), {without})[0].choices[0].tokens, results[i].choices[0].tokens)
        << "option " << i << " has no effect";
  }
}

TEST_F(Generation, APresencePenaltyMakesTokensDistinct) {
  GenerationOptions o = greedy(100);
  o.sampling.presence_penalty = 1e4f;
  std::vector<std::int32_t> tokens = run(checked(128), {make_request({1}, o)})[0].choices[0].tokens;
  ASSERT_EQ(tokens.size(), 100u);
  std::sort(tokens.begin(), tokens.end());
  EXPECT_EQ(std::adjacent_find(tokens.begin(), tokens.end()), tokens.end());
}

TEST_F(Generation, ChoicesShareThePromptAndDiffer) {
  for (const std::int64_t prompt_rows : {1, 2, 16, 17, 37}) {
    Request request = make_request(random_prompt(prompt_rows, 9), sampled(30, 21));
    request.n = 5;
    std::vector<Completion> expected;
    for (int choice = 0; choice < 5; ++choice) expected.push_back(plain(request, choice));
    for (const std::int64_t at_once : {1, 3, 8}) {
      for (const std::int64_t block_size : {8, 16, 24}) {
        EngineOptions o = checked(128, 16, block_size);
        o.max_sequences = at_once;
        const std::vector<RequestResult> results = run(o, {request, make_request(random_prompt(20, 4), greedy(20))});
        ASSERT_EQ(results[0].choices.size(), 5u);
        for (std::size_t i = 0; i < 5; ++i) {
          EXPECT_EQ(results[0].choices[i].choice, static_cast<int>(i));
          expect_same(results[0].choices[i], expected[i],
                      fmt::format("{} rows, {} at once, block {}, choice {}", prompt_rows, at_once, block_size, i));
        }
        if (at_once < 8) continue;
        // The prompt was computed once but for its last row.
        EXPECT_LE(stats.prompt_rows, prompt_rows - 1 + 5 + 20);
      }
    }
    EXPECT_NE(expected[0].tokens, expected[1].tokens);
    EXPECT_NE(expected[1].tokens, expected[2].tokens);
  }
}

TEST_F(Generation, ChoicesSurvivePreemption) {
  Request request = make_request(random_prompt(60, 9), sampled(60, 21));
  request.n = 6;
  const std::vector<RequestResult> expected = run(checked(128), {request});
  EngineOptions o = checked(128, 16, 8);
  o.memory_limit = limit_for(model, o, pool, 0.3);
  const std::vector<RequestResult> results = run(o, {request});
  EXPECT_GT(stats.preemptions, 0);
  for (std::size_t i = 0; i < 6; ++i)
    expect_same(results[0].choices[i], expected[0].choices[i], fmt::format("choice {}", i));
}

TEST_F(Generation, SeedsDecide) {
  const Request a = make_request(random_prompt(9, 2), sampled(30, 1));
  Request b = a;
  b.options.sampling.seed = 2;
  const std::vector<RequestResult> results = run(checked(64), {a, b, a});
  EXPECT_EQ(results[0].choices[0].tokens, results[2].choices[0].tokens);
  EXPECT_NE(results[0].choices[0].tokens, results[1].choices[0].tokens);
}

TEST_F(Generation, EosMinAndMaxTokens) {
  std::vector<std::int32_t> even;
  for (std::int32_t id = 0; id < 256; id += 2) even.push_back(id);
  Engine engine(model, &tokenizer, even, checked(64), pool);
  GenerationOptions o = sampled(40, 6);
  o.min_new_tokens = 12;
  const auto generate_one = [&](const GenerationOptions& options) {
    return generate(engine, std::vector<Request>(1, make_request({3, 4}, options)))[0].choices[0];
  };
  const Completion some = generate_one(o);
  EXPECT_GE(some.tokens.size(), 12u);
  for (const std::int32_t token : some.tokens) EXPECT_EQ(token % 2, 1);
  EXPECT_EQ(some.finish_reason, FinishReason::kStop);
  EXPECT_EQ(some.stop_token % 2, 0);
  o.ignore_eos = true;
  const Completion all = generate_one(o);
  EXPECT_EQ(all.tokens.size(), 40u);
  EXPECT_EQ(all.finish_reason, FinishReason::kLength);
  EXPECT_TRUE(std::any_of(all.tokens.begin(), all.tokens.end(), [](std::int32_t t) { return t % 2 == 0; }));
  o.max_new_tokens = 1000;  // cut so that prompt and output fit the context
  EXPECT_EQ(generate_one(o).tokens.size(), 62u);
}

TEST_F(Generation, StopStringsCutTheRealText) {
  // Two-byte characters and letters only: the text has many whole and broken characters.
  GenerationOptions o = sampled(80, 8);
  for (const std::int32_t byte : {0xC3, 0xA9, 0xA8, int{'a'}, int{'b'}}) o.logit_bias.push_back({byte, 60.f});
  const std::string text = run(checked(128), {make_request({5}, o)})[0].choices[0].text;
  int found = 0;
  for (const std::string stop : {"\xC3\xA9", "b\xC3\xA8", "ab", "a\xEF\xBF\xBD", "\xEF\xBF\xBD\xEF\xBF\xBD"}) {
    const std::size_t at = text.find(stop);
    o.stop = {stop};
    Request request = make_request({5}, o);
    std::string streamed;
    request.on_token = [&](const TokenEvent& e) { streamed += e.text; };
    const Completion c = run(checked(128), {request})[0].choices[0];
    EXPECT_EQ(c.text, text.substr(0, at)) << stop;
    EXPECT_EQ(streamed, c.text);
    EXPECT_EQ(c.stop_match, at == std::string::npos ? "" : stop);
    found += at != std::string::npos;
  }
  EXPECT_GE(found, 3);
}

TEST_F(Generation, ForbiddenIdsAreNeverDrawn) {
  GenerationOptions o = sampled(60, 4);
  for (const std::int32_t id : {256, 257, 258, 259}) o.logit_bias.push_back({id, 1e6f});
  const Model vision_model = random_model(small_config(true), 5, pool);
  Engine engine(vision_model, &tokenizer, {}, checked(128), pool);
  const std::vector<std::int32_t> drawn =
      generate(engine, std::vector<Request>(1, make_request({5}, o)))[0].choices[0].tokens;
  ASSERT_EQ(drawn.size(), 60u);
  for (const std::int32_t token : drawn) EXPECT_LT(token, 256);
  // Without a tokenizer only the image token is forbidden.
  Engine untold(vision_model, nullptr, {}, checked(128), pool);
  const std::vector<std::int32_t> wild =
      generate(untold, std::vector<Request>(1, make_request({5}, o)))[0].choices[0].tokens;
  for (const std::int32_t token : wild) EXPECT_TRUE(token >= 256 && token < kImageToken);
}

TEST_F(Generation, LogprobsOfAWholeVocabularySumToOne) {
  Config config = small_config();
  config.vocab_size = 16;
  const Model tiny = random_model(config, 2, pool);
  Engine engine(tiny, nullptr, {}, checked(64), pool);
  const Completion c = generate(engine, std::vector<Request>(1, make_request({1, 2}, sampled(30, 5))))[0].choices[0];
  ASSERT_EQ(c.logprobs.size(), 30u);
  ASSERT_EQ(c.top_logprobs.size(), 30u);
  for (std::size_t i = 0; i < 30; ++i) {
    ASSERT_EQ(c.top_logprobs[i].size(), 16u);
    double sum = 0;
    bool among = false;
    for (std::size_t k = 0; k < 16; ++k) {
      const TokenLogprob& t = c.top_logprobs[i][k];
      sum += std::exp(static_cast<double>(t.logprob));
      if (k > 0) {
        EXPECT_LE(t.logprob, c.top_logprobs[i][k - 1].logprob);
      }
      if (t.token != c.tokens[i]) continue;
      among = true;
      EXPECT_EQ(t.logprob, c.logprobs[i]);
    }
    EXPECT_NEAR(sum, 1.0, 1e-5);
    EXPECT_TRUE(among);
  }
  GenerationOptions none = sampled(3, 5);
  none.logprobs = -1;
  const Completion without = generate(engine, std::vector<Request>(1, make_request({1, 2}, none)))[0].choices[0];
  EXPECT_TRUE(without.logprobs.empty());
  none.logprobs = 0;
  const Completion zero = generate(engine, std::vector<Request>(1, make_request({1, 2}, none)))[0].choices[0];
  EXPECT_EQ(zero.logprobs.size(), 3u);
  EXPECT_TRUE(zero.top_logprobs[0].empty());
}

// Rows of an answer that are computed again, and those of tokens that were not drawn, are not rows of a prompt.
TEST_F(Generation, RowsAreCountedByWhatTheyAre) {
  OutputRules rules;
  rules.in_header = false;
  rules.final_format = Grammar::regex("[a-z]{4} is the one that I had in mind");
  const std::vector<std::int32_t> ends = {0};
  Request request = make_request(random_prompt(10, 1), sampled(60, 1));
  request.constraint.emplace(tokenizer, std::nullopt, ends, rules);
  const Completion constrained = run(checked(128), {request})[0].choices[0];
  EXPECT_GT(stats.forced_tokens, 10);
  EXPECT_EQ(stats.prompt_rows, 10);
  EXPECT_EQ(stats.prompt_rows + stats.decode_rows, 9 + static_cast<std::int64_t>(constrained.tokens.size()));

  EngineOptions o = checked(128);
  o.prefix_cache = false;
  o.max_sequences = 1;
  Engine engine(model, &tokenizer, {}, o, pool);
  engine.submit(make_request(random_prompt(10, 2), greedy(30)));
  for (int i = 0; i < 21; ++i) engine.step();
  Request urgent = make_request(random_prompt(5, 3), greedy(4));
  urgent.priority = 1;
  engine.submit(urgent);
  while (engine.step()) {
  }
  EXPECT_EQ(engine.stats().preemptions, 1);
  EXPECT_EQ(engine.stats().prompt_rows, 10 + 5 + 10);
  EXPECT_EQ(engine.stats().decode_rows, 29 + 3 + 20);
}

}  // namespace
}  // namespace gov::test
