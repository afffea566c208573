// Whose rows run first: tenants, priorities, long prompts beside short ones.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/turns.h"
#include "tests/engine/test_support.h"

namespace gov::test {
namespace {

TEST(TenantTurns, NewcomersStartLevel) {
  TenantTurns turns;
  Tenant* const a = turns.enter("a");
  EXPECT_EQ(turns.enter("a"), a);
  a->rows = 100;
  Tenant* const b = turns.enter("b");
  EXPECT_EQ(b->rows, 100);
  a->rows += 50;
  b->rows = 400;
  turns.leave(b);
  EXPECT_EQ(turns.enter("c")->rows, 150);  // of the others that are there
  EXPECT_EQ(turns.enter("b")->rows, 400);  // went away with more than its share, and still has it
}

TEST(TenantTurns, ForgetsTheAbsent) {
  TenantTurns turns;
  turns.enter("stays")->rows = 1000;
  for (int i = 0; i < 100; ++i) turns.leave(turns.enter(std::to_string(i)));
  EXPECT_LE(turns.size(), 2u);
}

class Fairness : public testing::Test {
 protected:
  EngineOptions options(std::int64_t max_sequences) const {
    EngineOptions o;
    o.context = 2048;
    o.chunk = 16;
    o.block_size = 8;
    o.max_sequences = max_sequences;
    o.check_blocks = true;
    o.prefix_cache = false;
    return o;
  }
  static Request of(std::string tenant, std::int64_t prompt, std::int64_t tokens, int priority = 0) {
    Request request =
        make_request(random_prompt(prompt, tenant.size() + static_cast<std::size_t>(prompt)), greedy(tokens));
    request.tenant = std::move(tenant);
    request.priority = priority;
    return request;
  }
  static void run_all(Engine& engine) {
    while (engine.step()) {
    }
  }

  ThreadPool pool{1};
  Model model = random_model(small_config(), 5, pool);
};

TEST_F(Fairness, AFlooderHoldsUpNobody) {
  Engine engine(model, nullptr, {}, options(4), pool);
  std::vector<RequestId> flood, others;
  for (int i = 0; i < 60; ++i) flood.push_back(engine.submit(of("flooder", 30, 10)));
  for (int i = 0; i < 5; ++i) engine.step();
  for (int i = 0; i < 6; ++i) others.push_back(engine.submit(of(fmt::format("user {}", i), 20, 10)));
  const auto all_done = [&](const std::vector<RequestId>& ids) {
    return std::all_of(ids.begin(), ids.end(), [&](RequestId id) { return engine.finished(id); });
  };
  while (!all_done(others)) ASSERT_TRUE(engine.step());
  const auto flooded = std::count_if(flood.begin(), flood.end(), [&](RequestId id) { return engine.finished(id); });
  // The four that ran, and at most the flooder's turn beside each of the others.
  EXPECT_LE(flooded, 4 + 3);
  run_all(engine);
  EXPECT_TRUE(all_done(flood));
}

TEST_F(Fairness, ALongPromptLetsOthersIn) {
  Engine engine(model, nullptr, {}, options(4), pool);
  const RequestId document = engine.submit(of("document", 1500, 2));
  for (int i = 0; i < 5; ++i) engine.step();
  const std::int64_t before = engine.stats().steps;
  const RequestId question = engine.submit(of("question", 10, 3));
  while (!engine.finished(question)) ASSERT_TRUE(engine.step());
  EXPECT_LE(engine.stats().steps - before, 6);
  EXPECT_FALSE(engine.finished(document));
  run_all(engine);
}

TEST_F(Fairness, PromptsOfTwoTenantsAdvanceTogether) {
  Engine engine(model, nullptr, {}, options(4), pool);
  const RequestId a = engine.submit(of("a", 400, 1)), b = engine.submit(of("b", 400, 1)),
                  second = engine.submit(of("a", 400, 1));
  while (!engine.finished(b)) ASSERT_TRUE(engine.step());
  EXPECT_FALSE(engine.finished(second));
  EXPECT_LE(engine.stats().prompt_rows, 850);
  run_all(engine);
  EXPECT_TRUE(engine.finished(a) && engine.finished(second));
}

TEST_F(Fairness, LargerPrioritiesGoFirstAndMakeRoom) {
  Engine engine(model, nullptr, {}, options(2), pool);
  const Request slow = of("a", 20, 40);
  const Completion alone = generate(engine, std::vector<Request>(1, slow))[0].choices[0];
  const RequestId low = engine.submit(slow), lower = engine.submit(of("b", 20, 40, -1)),
                  lowest = engine.submit(of("c", 10, 2, -2));
  for (int i = 0; i < 6; ++i) engine.step();
  const RequestId high = engine.submit(of("d", 10, 3, 5));
  for (int i = 0; i < 4; ++i) engine.step();
  EXPECT_TRUE(engine.finished(high));
  EXPECT_GE(engine.stats().preemptions, 1);
  while (!engine.finished(low) && !engine.finished(lower)) {
    EXPECT_FALSE(engine.finished(lowest));
    ASSERT_TRUE(engine.step());
  }
  run_all(engine);
  expect_same(engine.take(low).choices[0], alone, "beside the others");
  EXPECT_EQ(engine.take(lower).choices[0].tokens.size(), 40u);
  EXPECT_EQ(engine.take(lowest).choices[0].tokens.size(), 2u);
}

TEST_F(Fairness, PromptsOfLargePriorityDoNotStopDecoding) {
  Engine engine(model, nullptr, {}, options(4), pool);
  std::int64_t tokens = 0;
  Request talk = of("talk", 5, 200, -1);
  talk.on_token = [&](const TokenEvent&) { ++tokens; };
  engine.submit(talk);
  engine.step();
  engine.submit(of("document", 800, 1, 3));
  const std::int64_t before = tokens;
  for (int i = 0; i < 20; ++i) engine.step();
  EXPECT_EQ(tokens - before, 20);
}

}  // namespace
}  // namespace gov::test
