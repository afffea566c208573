// Speculative decoding: guesses come from what stood there before, and whatever is guessed, every bit of the result is
// that of an engine without guesses.
#include "engine/draft.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "base/philox.h"
#include "tests/engine/test_support.h"

namespace gov::test {
namespace {

std::vector<std::int32_t> guess(const std::vector<std::int32_t>& history, std::int64_t most) {
  NgramIndex index;
  for (const std::int32_t token : history) index.push(token);
  std::vector<std::int32_t> out;
  index.guess(most, out);
  return out;
}

using Ids = std::vector<std::int32_t>;

TEST(NgramIndex, TheLastPlaceOfTheLongestEnd) {
  EXPECT_EQ(guess({}, 4), Ids{});
  EXPECT_EQ(guess({1, 2, 3}, 4), Ids{});
  EXPECT_EQ(guess({1, 2, 3, 4, 9, 2, 3}, 2), (Ids{4, 9}));
  EXPECT_EQ(guess({7, 1, 2, 3, 5, 8, 1, 2, 4, 9, 1, 2}, 1), Ids{4});  // the last of two
  EXPECT_EQ(guess({7, 1, 2, 5, 8, 1, 2, 4, 9, 7, 1, 2}, 1), Ids{5});  // three tokens rather than two
  EXPECT_EQ(guess({3, 5, 5, 5}, 3), (Ids{5, 5, 5}));                  // repeats beyond the end
  EXPECT_EQ(guess({9, 1, 2, 1, 2, 1}, 5), (Ids{2, 1, 2, 1, 2}));
  constexpr std::int32_t kNone = NgramIndex::kNone;
  EXPECT_EQ(guess({kNone, 5, 6, kNone}, 2), Ids{});        // rows of pictures are equal to nothing
  EXPECT_EQ(guess({1, 2, 3, kNone, 4, 1, 2}, 4), Ids{3});  // and are not guessed
}

TEST(NgramIndex, EveryGuessStoodThere) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const auto alphabet = static_cast<std::uint32_t>(2 + seed % 7 * 20);
    NgramIndex index;
    Ids history;
    int guessed = 0, expected = 0;
    for (std::uint64_t i = 0; i < 600; ++i) {
      history.push_back(static_cast<std::int32_t>(Philox{seed}(i)[0] % alphabet));
      index.push(history.back());
      Ids out;
      index.guess(1, out);
      // Where the last token stood before, something is guessed, but for places that fell on each other.
      expected += std::find(history.begin(), history.end() - 1, history.back()) != history.end() - 1;
      if (out.empty()) continue;
      ++guessed;
      bool stood = false;
      for (std::size_t at = 1; at < history.size() && !stood; ++at)
        stood = history[at - 1] == history.back() && history[at] == out[0];
      ASSERT_TRUE(stood) << "seed " << seed << ", token " << i;
    }
    EXPECT_GT(guessed, expected * 9 / 10) << seed;
  }
}

TEST(DraftLength, GrowsShrinksAndPauses) {
  DraftLength length(8);
  EXPECT_EQ(length.at(10), 8);
  length.learn(11, 8, 0);
  length.learn(12, 4, 0);
  length.learn(13, 2, 0);
  EXPECT_EQ(length.at(13), 1);
  length.learn(14, 1, 0);
  EXPECT_EQ(length.at(21), 0);
  EXPECT_EQ(length.at(22), 1);
  length.learn(23, 1, 0);  // still in vain: a longer pause
  EXPECT_EQ(length.at(38), 0);
  EXPECT_EQ(length.at(39), 1);
  length.learn(40, 1, 1);
  EXPECT_EQ(length.at(41), 2);
  length.learn(44, 2, 2);
  EXPECT_EQ(length.at(44), 4);
  length.learn(48, 4, 1);
  EXPECT_EQ(length.at(48), 2);
  length.learn(49, 0, 0);  // nothing was found, nothing is learnt
  EXPECT_EQ(length.at(49), 2);
}

class Drafts : public testing::Test {
 protected:
  Drafts() : model(random_model(small_config(true), 5, pool)), tokenizer(byte_tokenizer()) {}

  EngineOptions options(std::int64_t draft_tokens, std::int64_t chunk = 64) {
    EngineOptions o;
    o.context = 256;
    o.chunk = chunk;
    o.block_size = 8;
    o.snapshot_share = 0;
    o.check_blocks = true;
    o.draft_tokens = draft_tokens;
    return o;
  }
  std::vector<RequestResult> run(const EngineOptions& o, std::vector<Request> requests) {
    Engine engine(model, &tokenizer, {10, 13}, o, pool);
    std::vector<RequestResult> results = generate(engine, std::move(requests));
    stats = engine.stats();
    EXPECT_EQ(stats.free_full_blocks, stats.full_blocks);
    return results;
  }
  // Text that repeats itself: only a few tokens are likely.
  static GenerationOptions few_tokens(GenerationOptions o, std::uint64_t seed) {
    for (std::uint64_t i = 0; i < 2 + seed % 4; ++i)
      o.logit_bias.push_back({static_cast<std::int32_t>('a' + Philox{seed}(i)[0] % 20), 40.f});
    return o;
  }
  // Every kind of option, with prompts that repeat and some that do not.
  std::vector<Request> all_kinds() {
    std::vector<Request> requests;
    for (std::uint64_t i = 0; i < 24; ++i) {
      std::vector<std::int32_t> prompt = random_prompt(5 + static_cast<std::int64_t>(i) * 3, i);
      if (i % 2) prompt.insert(prompt.end(), prompt.begin(), prompt.end());
      GenerationOptions o = i % 3 ? sampled(60, i) : greedy(60);
      if (i % 4 != 3) o = few_tokens(o, i);
      if (i % 5 == 1) o.sampling.repetition_penalty = 1.1f;
      if (i % 5 == 2) o.sampling.presence_penalty = 1.5f, o.sampling.frequency_penalty = 0.3f;
      if (i % 6 == 2) o.stop = {"aba", "dd", "kik"};
      if (i % 7 == 3) o.min_new_tokens = 20, o.stop_tokens = {'b', 'c'};
      if (i % 8 == 4) o.sampling.top_p = 0.8f;
      requests.push_back(make_request(prompt, o));
      if (i % 6 == 5) requests.back().n = 3;
      if (i % 5 == 4) requests.back().images = {random_image(model.config, i)};
    }
    return requests;
  }
  static void expect_equal(const std::vector<RequestResult>& a, const std::vector<RequestResult>& b,
                           const std::string& what) {
    for (std::size_t i = 0; i < a.size(); ++i) {
      for (std::size_t c = 0; c < a[i].choices.size(); ++c) {
        const Completion &x = a[i].choices[c], &y = b[i].choices[c];
        const std::string where = fmt::format("{}, request {}, choice {}", what, i, c);
        expect_same(x, y, where);
        EXPECT_EQ(x.text, y.text) << where;
        EXPECT_EQ(x.finish_reason, y.finish_reason) << where;
        EXPECT_EQ(x.stop_match, y.stop_match) << where;
        EXPECT_EQ(x.stop_token, y.stop_token) << where;
      }
    }
  }

  ThreadPool pool{1};
  Model model;
  Tokenizer tokenizer;
  EngineStats stats;
};

TEST_F(Drafts, NeverChangeTheResult) {
  const std::vector<RequestResult> expected = run(options(0), all_kinds());
  const EngineStats plain = stats;
  EXPECT_EQ(plain.draft.drafted, 0);
  for (const std::int64_t draft : {1, 3, 8, 64}) {
    for (const std::int64_t chunk : {9, 64}) {
      for (const std::int64_t sequences : {1, 8}) {
        EngineOptions o = options(draft, chunk);
        o.max_sequences = sequences;
        expect_equal(run(o, all_kinds()), expected,
                     fmt::format("draft {}, chunk {}, {} at once", draft, chunk, sequences));
        EXPECT_GT(stats.draft.accepted, 100);
        EXPECT_LT(stats.draft.accepted, stats.draft.drafted);
        EXPECT_EQ(stats.tokens, plain.tokens);
      }
    }
  }
}

TEST_F(Drafts, UnderPreemption) {
  std::vector<Request> requests = all_kinds();
  const std::vector<RequestResult> expected = run(options(0), requests);
  EngineOptions o = options(6);
  o.memory_limit = std::uint64_t{1} << 34;
  MemoryPlan plan;
  {
    const Engine roomy(model, &tokenizer, {10, 13}, o, pool);
    plan = roomy.plan();
  }
  o.memory_limit = plan.total() - plan.kv_cache * 7 / 10;
  expect_equal(run(o, requests), expected, "preempted");
  EXPECT_GT(stats.preemptions, 0);
  EXPECT_GT(stats.draft.accepted, 100);
}

// A sequence that gives way in the very step in which it had guessed forgets the guess.
TEST_F(Drafts, WhereArrivalsOfLargerPriorityMakeRoom) {
  std::vector<Request> requests = all_kinds();
  const std::vector<RequestResult> expected = run(options(0), requests);
  EngineOptions o = options(6);
  o.max_sequences = 2;
  Engine engine(model, &tokenizer, {10, 13}, o, pool);
  std::vector<RequestId> ids;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].priority = static_cast<int>(i);
    ids.push_back(engine.submit(requests[i]));
    for (int step = 0; step < 9; ++step) engine.step();
  }
  while (engine.step()) {
  }
  std::vector<RequestResult> results;
  for (const RequestId id : ids) results.push_back(engine.take(id));
  expect_equal(results, expected, "made room");
  EXPECT_GT(engine.stats().preemptions, 10);
  EXPECT_GT(engine.stats().draft.accepted, 100);
}

// Scores take the place of the logits that guesses were drawn from.
TEST_F(Drafts, BesideScoredPrompts) {
  std::vector<Request> requests = all_kinds();
  for (std::size_t i = 0; i < requests.size(); i += 2) requests[i].options.prompt_logprobs = 1;
  const std::vector<RequestResult> expected = run(options(0), requests);
  for (const std::int64_t chunk : {9, 64}) {
    const std::vector<RequestResult> results = run(options(6, chunk), requests);
    expect_equal(results, expected, fmt::format("chunk {}", chunk));
    for (std::size_t i = 0; i < requests.size(); i += 2) {
      ASSERT_EQ(results[i].prompt_logprobs.size(), expected[i].prompt_logprobs.size());
      for (std::size_t k = 1; k < expected[i].prompt_logprobs.size(); ++k) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(results[i].prompt_logprobs[k]),
                  std::bit_cast<std::uint32_t>(expected[i].prompt_logprobs[k]));
      }
    }
    EXPECT_GT(stats.draft.accepted, 100);
  }
}

TEST_F(Drafts, AmongConstraintsAndForcedTokens) {
  OutputRules rules;
  rules.in_header = false;
  rules.final_format = Grammar::regex("((alpha|beta|gamma|[x-z]{3}), ){6,30}end");
  const std::vector<std::int32_t> ends = {10};
  const TokenConstraint constraint(tokenizer, {}, ends, rules);
  std::vector<Request> requests;
  for (std::uint64_t i = 0; i < 12; ++i) {
    requests.push_back(make_request(random_prompt(10, i), i % 3 ? sampled(120, i) : greedy(120)));
    requests.back().constraint = constraint;
    if (i % 4 == 1) requests.back().options.min_new_tokens = 60;
    if (i % 4 == 2) requests.back().options.sampling.frequency_penalty = 0.2f;
    if (i % 4 == 3) requests.back().n = 2;
  }
  const std::vector<RequestResult> expected = run(options(0), requests);
  const EngineStats plain = stats;
  EXPECT_GT(plain.forced_tokens, 100);
  for (const std::int64_t draft : {1, 8}) {
    expect_equal(run(options(draft), requests), expected, fmt::format("draft {}", draft));
    EXPECT_GT(stats.draft.accepted, 10);
    EXPECT_EQ(stats.forced_tokens, plain.forced_tokens);
  }
}

TEST_F(Drafts, SaveSteps) {
  // One token over and over: every guess is right.
  GenerationOptions o = greedy(100);
  o.logit_bias = {{'x', 1000.f}};
  run(options(0), {make_request({1, 2, 3}, o)});
  EXPECT_EQ(stats.steps, 100);
  run(options(7), {make_request({1, 2, 3}, o)});
  EXPECT_EQ(stats.draft.accepted, stats.draft.drafted);
  EXPECT_EQ(stats.steps, 100 - stats.draft.accepted);
  EXPECT_LE(stats.steps, 17);
}

TEST_F(Drafts, StopWhereNothingRepeats) {
  GenerationOptions o = sampled(200, 3);
  o.sampling.temperature = 30.f;
  o.ignore_eos = true;
  run(options(8), {make_request(random_prompt(20, 1), o)});
  EXPECT_EQ(stats.tokens, 200);
  EXPECT_LT(stats.draft.drafted, 60);
}

}  // namespace
}  // namespace gov::test
