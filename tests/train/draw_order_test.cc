// The order of samples: a permutation in every epoch, independent of ranks, resumable at any point.

#include "train/draw_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "train/permutation.h"

namespace gov::train {
namespace {

const std::vector<SourceShape> kSources{{50, 0}, {7, 0}, {1000, 30}};

std::vector<std::int64_t> numbers(RankDraws& draws, int count) {
  std::vector<std::int64_t> out;
  for (int i = 0; i < count; ++i) out.push_back(draws.next().number);
  return out;
}

TEST(Permutation, IsOneForEverySize) {
  for (const std::int64_t size : {1, 2, 3, 4, 5, 16, 17, 255, 256, 1000}) {
    const Permutation order(size, 9, 2, 0);
    std::set<std::int64_t> seen;
    for (std::int64_t i = 0; i < size; ++i) seen.insert(order(i));
    EXPECT_EQ(static_cast<std::int64_t>(seen.size()), size);
    EXPECT_EQ(*seen.rbegin(), size - 1);
  }
}

TEST(Permutation, MixesAndDependsOnEveryKey) {
  constexpr std::int64_t kSize = 10000;
  const Permutation order(kSize, 1, 0, 0);
  double correlation = 0;
  for (std::int64_t i = 0; i < kSize; ++i)
    correlation += (static_cast<double>(i) / kSize - 0.5) * (static_cast<double>(order(i)) / kSize - 0.5);
  EXPECT_LT(std::fabs(correlation / (kSize / 12.0)), 0.05);  // 5 standard deviations
  const auto differing = [&](const Permutation& other) {
    int n = 0;
    for (std::int64_t i = 0; i < kSize; ++i) n += order(i) != other(i) ? 1 : 0;
    return n;
  };
  EXPECT_GT(differing(Permutation(kSize, 2, 0, 0)), 9900);
  EXPECT_GT(differing(Permutation(kSize, 1, 1, 0)), 9900);
  EXPECT_GT(differing(Permutation(kSize, 1, 0, 1)), 9900);
  EXPECT_EQ(differing(Permutation(kSize, 1, 0, 0)), 0);
}

TEST(Permutation, FixedValues) {  // a change of the order breaks the resuming of saved runs
  const Permutation order(1'000'000'007, 123, 4, 5);
  EXPECT_EQ(order(0), 957314708);
  EXPECT_EQ(order(1'000'000'006), 346422067);
}

TEST(DrawOrder, EverySourceIsExhaustedBeforeItRepeats) {
  DrawSequence sequence(kSources, 3);
  std::vector<std::set<std::pair<std::int64_t, std::int64_t>>> seen(3);
  std::vector<int> count(3, 0);
  for (int i = 0; i < 8700; ++i) {
    const Draw d = sequence.next();
    EXPECT_EQ(d.number, i);
    EXPECT_EQ(d.epoch, count[d.source] / kSources[d.source].size);
    EXPECT_TRUE(seen[d.source].insert({d.epoch, d.index}).second);
    ++count[d.source];
  }
  // Weights 50 : 7 : 30 of 87.
  EXPECT_NEAR(count[0], 5000, 300);
  EXPECT_NEAR(count[1], 700, 150);
  EXPECT_NEAR(count[2], 3000, 300);
}

TEST(DrawOrder, RanksTakeTurns) {
  const DataState state = first_state(kSources, 3, 3);
  DrawSequence all(kSources, 3);
  std::vector<RankDraws> ranks;
  for (std::size_t r = 0; r < 3; ++r) ranks.emplace_back(kSources, state, r);
  for (int i = 0; i < 300; ++i) {
    const Draw want = all.next(), got = ranks[static_cast<std::size_t>(i % 3)].next();
    EXPECT_EQ(got.number, want.number);
    EXPECT_EQ(got.index, want.index);
    EXPECT_EQ(got.source, want.source);
  }
}

TEST(DrawOrder, ResumesExactly) {
  DataState state = first_state(kSources, 3, 2);
  RankDraws straight(kSources, state, 1);
  numbers(straight, 37);
  state.used = {12, 37};
  state = DataState::from_json(state.json());
  RankDraws resumed(kSources, state, 1), compacted(kSources, compact(kSources, state), 1);
  EXPECT_EQ(compact(kSources, state).samples_drawn(), 49);
  EXPECT_EQ(compact(kSources, state).start, 24);
  for (int i = 0; i < 100; ++i) {
    const Draw want = straight.next(), a = resumed.next(), b = compacted.next();
    EXPECT_EQ(a.number, want.number);
    EXPECT_EQ(b.number, want.number);
    EXPECT_EQ(b.index, want.index);
    EXPECT_EQ(b.epoch, want.epoch);
  }
}

TEST(DrawOrder, AnotherNumberOfRanksLosesAndRepeatsNothing) {
  DataState state = first_state(kSources, 3, 4);
  std::set<std::int64_t> used;
  const auto use = [&](const std::vector<std::int64_t>& counts) {
    for (std::size_t r = 0; r < counts.size(); ++r) {
      RankDraws draws(kSources, state, r);
      for (const std::int64_t n : numbers(draws, static_cast<int>(counts[r]))) EXPECT_TRUE(used.insert(n).second) << n;
      state.used[r] += counts[r];
    }
  };
  use({9, 3, 5, 4});
  state = deal_again(kSources, state, 3);
  use({2, 8, 1});
  state = deal_again(kSources, state, 1);
  EXPECT_EQ(state.samples_drawn(), 32);
  RankDraws rest(kSources, state, 0);
  std::int64_t last = -1;
  for (int i = 0; i < 60; ++i) {
    const std::int64_t n = rest.next().number;
    EXPECT_GT(n, last);
    last = n;
    EXPECT_TRUE(used.insert(n).second);
  }
  for (std::int64_t n = 0; n <= last; ++n) EXPECT_TRUE(used.contains(n)) << n;
}

TEST(DrawOrder, RefusesBrokenStates) {
  for (const char* text : {"", "[]", "{}", R"({"seed":1,"start":-1,"positions":[],"ahead":[],"used":[0]})",
                           R"({"seed":1,"start":0,"positions":[0],"ahead":[],"used":[]})",
                           R"({"seed":1,"start":5,"positions":[0],"ahead":[4],"used":[0]})",
                           R"({"seed":1,"start":0,"positions":[0],"ahead":[4,4],"used":[0]})",
                           R"({"seed":1,"start":0,"positions":["0"],"ahead":[],"used":[0]})"})
    EXPECT_THROW(DataState::from_json(text), Error) << text;
  EXPECT_THROW(DrawSequence({}, 1), Error);
  EXPECT_THROW(DrawSequence({{0, 1}}, 1), Error);
  EXPECT_THROW(DrawSequence({{1, -1}}, 1), Error);
  EXPECT_THROW(DrawSequence(kSources, first_state({}, 1, 1)), Error);
}

}  // namespace
}  // namespace gov::train
