// Requests whose text a grammar limits, beside plain generation with the same masks: every token is drawn from what is
// allowed, and those that are written without a draw are those that a draw would have given.
#include <gtest/gtest.h>

#include <bit>

#include "base/json.h"
#include "tests/engine/test_support.h"

namespace gov::test {
namespace {

constexpr std::int32_t kEnd = 0;  // ends a text: no JSON has a NUL

class Constraints : public testing::Test {
 protected:
  Constraints() : model(random_model(small_config(), 5, pool)), tokenizer(byte_tokenizer()) {}

  TokenConstraint constraint(std::shared_ptr<const Grammar> grammar) const {
    OutputRules rules;
    rules.in_header = false;
    rules.final_format = std::move(grammar);
    const std::vector<std::int32_t> ends = {kEnd};
    return TokenConstraint(tokenizer, {}, ends, rules);
  }
  TokenConstraint person() const {
    return constraint(Grammar::json_schema(Json::parse(
        R"({"type":"object","properties":{"first_name":{"enum":["Ada","Alan"]},"born_in_the_year":{"type":"integer"},
            "alive":{"const":false}},"required":["first_name","born_in_the_year","alive"],
            "additionalProperties":false})")));
  }
  Request request(const GenerationOptions& options, const TokenConstraint& rules, std::uint64_t prompt = 3) const {
    Request r = make_request(random_prompt(12, prompt), options);
    r.constraint = rules;
    return r;
  }
  EngineOptions options(std::int64_t chunk = 16) const {
    EngineOptions o;
    o.context = 512;
    o.chunk = chunk;
    o.block_size = 8;
    o.check_blocks = true;
    return o;
  }
  std::vector<RequestResult> run(const EngineOptions& o, const std::vector<Request>& requests) {
    Engine engine(model, &tokenizer, {kEnd}, o, pool);
    std::vector<RequestResult> results = generate(engine, requests);
    stats = engine.stats();
    EXPECT_EQ(stats.free_full_blocks, stats.full_blocks);
    EXPECT_EQ(stats.free_sliding_blocks, stats.sliding_blocks);
    return results;
  }

  ThreadPool pool{1};
  Model model;
  Tokenizer tokenizer;
  EngineStats stats;
};

TEST_F(Constraints, TokensAreThoseOfMaskedDrawsOneByOne) {
  const TokenConstraint rules = person();
  std::vector<Request> all;
  for (std::uint64_t i = 0; i < 12; ++i) {
    Request r = request(i % 4 ? sampled(300, i) : greedy(300), rules, i);
    if (i % 3 == 1) r.options.sampling.frequency_penalty = 0.3f;
    r.options.logprobs = i % 5 == 0 ? -1 : 20;
    if (i % 6 == 5) r.constraint.reset();
    all.push_back(std::move(r));
  }
  for (const std::int64_t chunk : {1, 5, 512}) {
    const std::vector<RequestResult> results = run(options(chunk), all);
    EXPECT_GT(stats.forced_tokens, 200);
    if (chunk > 1) {
      EXPECT_LT(stats.steps * 2, stats.tokens) << chunk;
    }
    EXPECT_GT(stats.mask_seconds, 0);
    for (std::size_t i = 0; i < all.size(); ++i) {
      GenerationOptions o = all[i].options;
      const Completion& got = results[i].choices[0];
      const bool ended = got.finish_reason == FinishReason::kStop;
      o.max_new_tokens = static_cast<std::int64_t>(got.tokens.size()) + ended;
      Completion expected =
          plain_generate(model, pool, text_rows(all[i].prompt), o, undrawable(), 0, all[i].constraint);
      if (ended) {
        EXPECT_EQ(expected.tokens.back(), kEnd);
        expected.tokens.pop_back();
        if (o.logprobs >= 0) {
          expected.logprobs.pop_back();
          expected.top_logprobs.pop_back();
        }
      }
      expect_same(got, expected, fmt::format("chunk {}, request {}", chunk, i));
      if (!all[i].constraint || !ended) continue;
      const Json document = Json::parse(got.text);
      EXPECT_FALSE(document.find("alive")->boolean()) << got.text;
    }
  }
}

TEST_F(Constraints, EveryForcedTokenHasAnEvent) {
  Request r = request(sampled(300, 4), constraint(Grammar::regex("(yes|no), of course I could do that[.!]")));
  r.n = 2;
  r.options.logprobs = 1;
  std::vector<std::vector<float>> logprobs(2);
  std::vector<std::string> text(2);
  r.on_token = [&](const TokenEvent& e) {
    const auto choice = static_cast<std::size_t>(e.choice);
    text[choice] += e.text;
    if (e.token < 0) return;
    logprobs[choice].push_back(e.logprob);
    ASSERT_LE(e.top_logprobs.size(), 1u);
    EXPECT_EQ(e.top_logprobs[0].token == e.token ? e.top_logprobs[0].logprob : e.logprob, e.logprob);
  };
  const RequestResult result = run(options(), {r})[0];
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(text[i], result.choices[i].text);
    EXPECT_EQ(logprobs[i], result.choices[i].logprobs);
    EXPECT_TRUE(text[i].starts_with("yes, of course I could") || text[i].starts_with("no, of course I could"))
        << text[i];
    EXPECT_LT(result.choices[i].logprobs[0], 0);  // a choice of two
    EXPECT_EQ(result.choices[i].logprobs[5], 0);  // no choice
    EXPECT_EQ(result.choices[i].finish_reason, FinishReason::kStop);
    EXPECT_EQ(result.choices[i].stop_token, kEnd);
  }
  EXPECT_GT(stats.forced_tokens, 40);
  EXPECT_LE(stats.steps, 6);  // not one for each token
}

TEST_F(Constraints, LimitsHoldAmongForcedTokens) {
  const TokenConstraint rules = constraint(Grammar::regex("[ab]the quick brown fox"));
  EXPECT_EQ(run(options(), {request(greedy(7), rules)})[0].choices[0].text.substr(1), "the qu");
  EXPECT_EQ(stats.tokens, 7);
  Request stopped = request(greedy(100), rules);
  stopped.options.stop = {"brown"};
  const Completion cut = run(options(), {stopped})[0].choices[0];
  EXPECT_EQ(cut.text.substr(1), "the quick ");
  EXPECT_EQ(cut.stop_match, "brown");
  Request thrown = request(greedy(100), rules);
  thrown.on_token = [seen = 0](const TokenEvent&) mutable {
    if (++seen == 5) fail(ErrorCode::kIo, "gone");
  };
  EXPECT_THROW(run(options(), {thrown}), Error);
  std::atomic<bool> word = false;
  Request cancelled = request(greedy(100), rules);
  cancelled.cancel = &word;
  cancelled.on_token = [&, seen = 0](const TokenEvent&) mutable { word = ++seen == 1; };
  const Completion ended = run(options(), {cancelled})[0].choices[0];
  EXPECT_EQ(ended.finish_reason, FinishReason::kCancelled);
  EXPECT_LT(ended.tokens.size(), 24u);
}

TEST_F(Constraints, AMinimumOfTokensIsNoDeadEnd) {
  Request r = request(greedy(50), constraint(Grammar::regex("yes")));
  r.options.min_new_tokens = 20;
  EXPECT_EQ(run(options(), {r})[0].choices[0].text, "yes");
  // Where there is a choice, the end has to wait.
  r = request(sampled(50, 2), constraint(Grammar::regex("y*")));
  r.options.min_new_tokens = 20;
  EXPECT_GE(run(options(), {r})[0].choices[0].tokens.size(), 20u);
}

}  // namespace
}  // namespace gov::test
