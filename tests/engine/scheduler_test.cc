// The scheduler by itself: what is charged to whom, and when a step may be started before the one before has ended.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include "tests/engine/test_support.h"

namespace gov::test {
namespace {

constexpr std::int64_t kBlock = 8;

class Scheduling : public testing::Test {
 protected:
  void start(const SchedulerLimits& limits, std::int64_t full_blocks = 64) {
    rules.vocabulary = config.vocab_size;
    rules.draft_tokens = limits.draft_rows;
    scheduler.emplace(config, KvCacheSpec{kBlock, full_blocks, 64, DType::kF32}, limits);
  }
  Sequence& add(std::string tenant, std::vector<std::int32_t> prompt, int priority = 0) {
    auto state = std::make_unique<RequestState>();
    state->id = static_cast<std::int64_t>(requests.size());
    state->request.prompt = std::move(prompt);
    state->request.tenant = std::move(tenant);
    state->request.priority = priority;
    state->prompt = expand_prompt(config, state->request.prompt, 0);
    state->max_new_tokens = 100;
    state->sequences.push_back(std::make_unique<Sequence>(*state, 0, rules));
    requests.push_back(std::move(state));
    scheduler->add(*requests.back()->sequences[0]);
    return *requests.back()->sequences[0];
  }
  static void draw(Sequence& sequence, std::int32_t token) {
    ops::SampleResult drawn;
    drawn.token = token;
    sequence.accept(drawn);
  }
  // Runs a step; every sequence that wants a token gets this one.
  Step step(std::int32_t token = 7) {
    const Step step = scheduler->schedule();
    for (const ScheduledRows& rows : step.rows) {
      scheduler->set_computed(*rows.sequence, rows.end - rows.guessed);
      if (rows.sample) draw(*rows.sequence, token);
    }
    return step;
  }
  bool ahead(Sequence& sequence) {
    Step next;
    Sequence* const only = &sequence;
    return scheduler->schedule_ahead({&only, 1}, next);
  }

  Config config = small_config();
  DecodingRules rules;
  std::vector<std::unique_ptr<RequestState>> requests;
  std::optional<Scheduler> scheduler;
};

TEST_F(Scheduling, RowsStartedAheadAreCharged) {
  start({.max_sequences = 2, .chunk = 16});
  Sequence& s = add("a", {1, 2, 3});
  step();
  EXPECT_EQ(s.request->tenant->rows, 3);
  step();
  EXPECT_EQ(s.request->tenant->rows, 4);
  for (std::int64_t i = 1; i <= 5; ++i) {
    scheduler->set_computed(s, s.rows());
    ASSERT_TRUE(ahead(s));
    EXPECT_EQ(s.request->tenant->rows, 4 + i);
    draw(s, 7);
  }
}

TEST_F(Scheduling, GuessedRowsAreCharged) {
  start({.max_sequences = 2, .chunk = 16, .draft_rows = 4});
  Sequence& s = add("a", {1, 2, 3, 1, 2, 3, 1, 2});
  step(3);
  EXPECT_EQ(s.request->tenant->rows, 8);
  const Step guessed = step();
  ASSERT_EQ(guessed.rows.size(), 1u);
  EXPECT_EQ(guessed.rows[0].guessed, 4);
  EXPECT_EQ(s.request->tenant->rows, 8 + 5);
}

TEST_F(Scheduling, WhatDoesNotFitHoldsUpNobody) {
  start({.max_sequences = 4, .chunk = 256}, 10);
  Sequence& s = add("a", random_prompt(20, 1));
  step();
  Sequence& large = add("b", random_prompt(70, 2));
  EXPECT_FALSE(ahead(s));  // it might fit
  step();
  int tried_again = 0;
  for (int i = 0; i < 4 * kBlock; ++i) {
    scheduler->set_computed(s, s.rows());
    draw(s, 7);
    if (ahead(s)) continue;
    ++tried_again;
    scheduler->schedule();
  }
  EXPECT_LE(tried_again, 1);  // when a block fell behind the window
  Sequence& small = add("c", random_prompt(3, 3), 1);
  EXPECT_FALSE(ahead(s));
  EXPECT_EQ(step().rows.size(), 2u);
  scheduler->remove(small);
  EXPECT_FALSE(ahead(s));  // blocks were freed
  scheduler->remove(s);
  const Step last = step();
  ASSERT_EQ(last.rows.size(), 1u);
  EXPECT_EQ(last.rows[0].sequence, &large);
}

}  // namespace
}  // namespace gov::test
