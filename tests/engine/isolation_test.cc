// Thousands of requests of all kinds in random company, many of them aborted, beside each of them alone: the tokens are
// the same and nothing is left behind. Blocks are checked, and free ones filled with NaN, before each step.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "tests/engine/test_support.h"

namespace gov::test {
namespace {

struct Kind {
  Request request;
  RequestResult alone;
};

std::vector<Kind> make_kinds(const Model& model, ThreadPool& pool, const EngineOptions& options, std::size_t count) {
  std::mt19937_64 random(11);
  const auto below = [&](std::uint64_t n) { return static_cast<std::int64_t>(random() % n); };
  EngineOptions o = options;
  o.prefix_cache = false;
  Engine engine(model, nullptr, {}, o, pool);
  std::vector<Kind> kinds;
  for (std::uint64_t i = 0; i < count; ++i) {
    // Prompts begin like one of four others, so that prefixes are shared.
    std::vector<std::int32_t> prompt = random_prompt(below(40), i % 4);
    const std::vector<std::int32_t> rest = random_prompt(1 + below(12), 100 + i);
    prompt.insert(prompt.end(), rest.begin(), rest.end());
    Request r = make_request(std::move(prompt), i % 3 ? sampled(below(16), i) : greedy(below(16)));
    r.options.logprobs = i % 2 ? 2 : -1;
    if (i % 5 == 0) r.options.sampling.frequency_penalty = 0.5f;
    if (i % 7 == 0) r.n = 2 + static_cast<int>(below(2));
    if (i % 9 == 0) r.options.prompt_logprobs = 1;
    if (i % 11 == 0) r.options.stop_tokens = {static_cast<std::int32_t>(below(256))};
    if (i % 13 == 0) {
      r.images = {random_image(model.config, i % 3)};
      if (i % 2) r.prompt.push_back(kImageToken);
    }
    if (i % 17 == 0) {
      r.embed = true;
      r.n = 1;
    }
    kinds.push_back({r, generate(engine, std::vector<Request>(1, r))[0]});
  }
  return kinds;
}

enum class Fate { kRuns, kCancelled, kWord, kThrows };

struct Running {
  const Kind* kind = nullptr;
  Fate fate = Fate::kRuns;
  std::int64_t events = 0, end_at = 0;  // the event at which its fate comes true
  bool over = false;
  std::atomic<bool> word = false;
  std::vector<std::vector<std::int32_t>> streamed;
};

void expect_as_alone(const Running& r, const RequestResult& result) {
  ASSERT_EQ(result.choices.size(), r.kind->alone.choices.size());
  for (std::size_t c = 0; c < result.choices.size(); ++c) {
    const Completion &got = result.choices[c], &alone = r.kind->alone.choices[c];
    ASSERT_EQ(got.tokens, r.streamed[c]);
    if (got.finish_reason != FinishReason::kCancelled) {
      ASSERT_EQ(got.tokens, alone.tokens);
      ASSERT_EQ(got.logprobs, alone.logprobs);
    } else {
      ASSERT_LE(got.tokens.size(), alone.tokens.size());
      ASSERT_TRUE(std::equal(got.tokens.begin(), got.tokens.end(), alone.tokens.begin()));
    }
  }
  if (result.choices[0].finish_reason == FinishReason::kCancelled) return;
  ASSERT_EQ(result.embedding, r.kind->alone.embedding);
  ASSERT_EQ(result.prompt_logprobs.size(), r.kind->alone.prompt_logprobs.size());
  for (std::size_t i = 1; i < result.prompt_logprobs.size(); ++i) {
    const float got = result.prompt_logprobs[i], alone = r.kind->alone.prompt_logprobs[i];
    ASSERT_TRUE(got == alone || (std::isnan(got) && std::isnan(alone))) << got << ", alone " << alone;
  }
}

TEST(Isolation, FiveThousandRequestsInCompanyAreAsAlone) {
  constexpr int kRequests = 5000;
  ThreadPool pool(1);
  const Model model = random_model(small_config(true), 5, pool);
  EngineOptions o;
  o.context = 96;
  o.chunk = 24;
  o.block_size = 8;
  o.max_sequences = 7;
  o.check_blocks = true;
  const std::vector<Kind> kinds = make_kinds(model, pool, o, 150);
  o.memory_limit = std::uint64_t{1} << 34;
  const MemoryPlan plan = Engine(model, nullptr, {}, o, pool).plan();
  o.memory_limit = plan.total() - plan.kv_cache * 6 / 10;  // too little for all: some give their blocks back
  Engine engine(model, nullptr, {}, o, pool);

  std::mt19937_64 random(12);
  const auto one_in = [&](std::uint64_t n) { return random() % n == 0; };
  std::map<RequestId, std::unique_ptr<Running>> running;
  int submitted = 0, aborted = 0, thrown = 0;
  while (submitted < kRequests || !running.empty()) {
    for (std::uint64_t more = random() % 8; more > 0 && running.size() < 30 && submitted < kRequests; --more) {
      auto r = std::make_unique<Running>();
      r->kind = &kinds[random() % kinds.size()];
      r->fate = one_in(3) ? static_cast<Fate>(1 + random() % 3) : Fate::kRuns;
      r->end_at = 1 + static_cast<std::int64_t>(random() % 6);
      r->streamed.resize(static_cast<std::size_t>(r->kind->request.n));
      Request request = r->kind->request;
      request.tenant = std::string(random() % 3, 'x');
      request.priority = one_in(5) ? 1 : 0;
      request.cache_salt = one_in(4) ? "other" : "";
      request.cancel = &r->word;
      request.on_token = [r = r.get()](const TokenEvent& e) {
        EXPECT_FALSE(r->over);
        if (e.token >= 0) r->streamed[static_cast<std::size_t>(e.choice)].push_back(e.token);
        if (++r->events != r->end_at) return;
        if (r->fate == Fate::kWord) r->word = true;
        if (r->fate == Fate::kThrows) throw std::runtime_error("thrown by a callback");
      };
      running.emplace(engine.submit(std::move(request)), std::move(r));
      ++submitted;
    }
    // Some end while they wait, some while they run.
    for (const auto& [id, r] : running) {
      if (r->fate == Fate::kCancelled && r->events < r->end_at && one_in(4)) engine.cancel(id);
    }
    engine.step();
    for (auto at = running.begin(); at != running.end();) {
      const auto& [id, r] = *at;
      if (!engine.finished(id)) {
        ++at;
        continue;
      }
      r->over = true;
      try {
        const RequestResult result = engine.take(id);
        expect_as_alone(*r, result);
        aborted += result.choices[0].finish_reason == FinishReason::kCancelled;
      } catch (const std::runtime_error& error) {
        ASSERT_STREQ(error.what(), "thrown by a callback");
        ++thrown;
      }
      if (testing::Test::HasFatalFailure()) return;
      at = running.erase(at);
    }
  }
  const EngineStats stats = engine.stats();
  EXPECT_GT(aborted, 300);
  EXPECT_GT(thrown, 100);
  EXPECT_GT(stats.preemptions, 10);
  EXPECT_EQ(stats.submitted, kRequests);
  EXPECT_EQ(stats.finished + stats.cancelled + stats.failed, kRequests);
  EXPECT_EQ(stats.failed, thrown);
  EXPECT_EQ(stats.free_full_blocks, stats.full_blocks);
  EXPECT_EQ(stats.free_sliding_blocks, stats.sliding_blocks);
}

TEST(Isolation, ADeviceThatFailsAtAPictureIsLost) {
  ThreadPool pool(1);
  const Model model = random_model(small_config(true), 5, pool);
  for (const ErrorCode code : {ErrorCode::kIo, ErrorCode::kDevice}) {
    Engine engine(model, nullptr, {}, {}, pool);
    engine.context().trace = [&](std::string_view name, const Tensor&) {
      if (name == "vision_embeds") fail(code, "unplugged");
    };
    Request request = make_request({1, 2}, greedy(3));
    request.images = {random_image(model.config, 1)};
    EXPECT_THROW(generate(engine, std::vector<Request>(1, request)), Error);
    EXPECT_EQ(engine.stats().device_lost, code == ErrorCode::kDevice);
  }
}

}  // namespace
}  // namespace gov::test
