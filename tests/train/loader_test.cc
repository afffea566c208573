// The loader: order, resuming, ranks and bad samples, whatever the threads do.

#include "train/loader.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "tests/train/train_support.h"

namespace gov::train {
namespace {

using test::error_of;

// Samples of three to nine tokens, the first of which names the source and the entry; entry 13 of the first is bad, 20
// is too long. Some take longer to make.
Source numbers(int source, std::int64_t size) {
  Source s;
  s.name = "numbers";
  s.size = size;
  s.make = [source](std::int64_t index, std::int64_t epoch) {
    if (index % 7 == 3) std::this_thread::sleep_for(std::chrono::microseconds(300));
    if (source == 0 && index == 13) fail(ErrorCode::kCorrupt, "unlucky");
    Sample sample;
    sample.add(source * 1000 + static_cast<std::int32_t>(index), 1);
    const std::int64_t length = source == 0 && index == 20 ? 40 : 2 + (index * 5 + epoch) % 7;
    for (std::int64_t i = 0; i < length; ++i) sample.add(static_cast<std::int32_t>(epoch), 1);
    return std::vector<Sample>{sample};
  };
  s.where = [](std::int64_t index) { return "numbers:" + std::to_string(index); };
  return s;
}

std::vector<Source> sources() { return {numbers(0, 50), numbers(1, 30)}; }

std::shared_ptr<const SampleRules> rules() {
  static const auto shared = std::make_shared<const SampleRules>(test::nano_rules());
  return shared;
}

LoaderOptions options(int workers = 3) {
  LoaderOptions o;
  o.tokens_per_batch = 32;
  o.max_length = 16;
  o.workers = workers;
  return o;
}

DataState start(std::size_t ranks = 1) {
  const std::vector<Source> s = sources();
  return first_state(shapes_of(s), 5, ranks);
}

bool same(const PackedBatch& a, const PackedBatch& b) {
  return a.tokens == b.tokens && a.cu_seqlens == b.cu_seqlens && a.targets == b.targets &&
         a.row_weights == b.row_weights && a.images.size() == b.images.size();
}

std::vector<std::int32_t> names(const PackedBatch& batch) {
  std::vector<std::int32_t> out;
  for (std::size_t d = 0; d + 1 < batch.cu_seqlens.size(); ++d)
    out.push_back(batch.tokens[static_cast<std::size_t>(batch.cu_seqlens[d])]);
  return out;
}

TEST(Loader, SameBatchesWhateverTheThreads) {
  Loader one(sources(), rules(), options(1), start()), many(sources(), rules(), options(6), start());
  for (int i = 0; i < 60; ++i) {
    const auto a = one.next(), b = many.next();
    ASSERT_TRUE(a && b);
    EXPECT_TRUE(same(*a, *b)) << i;
    EXPECT_LE(a->rows(), 32);
    EXPECT_EQ(one.state(), many.state());
    EXPECT_EQ(one.report(), many.report());
  }
}

TEST(Loader, ResumesAtTheExactSample) {
  Loader straight(sources(), rules(), options(), start());
  DataState saved = start();
  for (int i = 0; i < 40; ++i) {
    Loader resumed(sources(), rules(), options(2), saved);
    const auto want = straight.next(), got = resumed.next();
    EXPECT_TRUE(same(*want, *got)) << i;
    saved = DataState::from_json(compact(shapes_of(sources()), straight.state()).json());
  }
}

TEST(Loader, OneEpochHasEverySampleOnce) {
  LoaderOptions o = options();
  o.end = 80;
  Loader loader({numbers(1, 80)}, rules(), o, first_state(std::vector<SourceShape>{{80, 0}}, 5, 1));
  std::vector<std::int32_t> seen;
  while (const auto batch = loader.next()) {
    const auto more = names(*batch);
    seen.insert(seen.end(), more.begin(), more.end());
  }
  std::sort(seen.begin(), seen.end());
  ASSERT_EQ(seen.size(), 80u);
  for (int i = 0; i < 80; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], 1000 + i);
  EXPECT_FALSE(loader.next());
  EXPECT_EQ(loader.report().samples, 80);
}

TEST(Loader, RanksShareTheOrder) {
  Loader whole(sources(), rules(), options(), start());
  std::vector<std::int32_t> want;
  for (int i = 0; i < 20; ++i) {
    const auto more = names(*whole.next());
    want.insert(want.end(), more.begin(), more.end());
  }
  std::vector<std::int32_t> got;
  for (std::size_t rank = 0; rank < 3; ++rank) {
    LoaderOptions o = options();
    o.rank = rank;
    Loader loader(sources(), rules(), o, start(3));
    for (int i = 0; i < 10; ++i) {
      const auto more = names(*loader.next());
      got.insert(got.end(), more.begin(), more.end());
    }
  }
  // The ranks' first samples together are the first samples of the one order.
  std::vector<std::int32_t> head(want.begin(), want.begin() + 40), all = got;
  for (const std::int32_t name : head) {
    const auto it = std::find(all.begin(), all.end(), name);
    ASSERT_NE(it, all.end()) << name;
    all.erase(it);
  }
}

TEST(Loader, BadAndLongSamplesAreCounted) {
  LoaderOptions o = options();
  o.end = 50;
  const auto run = [&] {
    Loader loader({numbers(0, 50)}, rules(), o, first_state(std::vector<SourceShape>{{50, 0}}, 5, 1));
    std::int64_t longest = 0;
    while (const auto batch = loader.next()) longest = std::max(longest, batch->max_rows);
    EXPECT_LE(longest, 16);
    return loader.report();
  };
  LoaderReport report = run();
  EXPECT_EQ(report.samples, 49);
  EXPECT_EQ(report.bad, 1);
  EXPECT_EQ(report.truncated, 1);
  EXPECT_EQ(report.reasons, std::vector<std::string>{"numbers:13: unlucky"});
  o.on_long = OnLong::kSkip;
  report = run();
  EXPECT_EQ(report.samples, 48);
  EXPECT_EQ(report.truncated, 0);
  EXPECT_EQ(report.skipped_long, 1);
}

TEST(Loader, FailsOnRequestBehindTheBatchesBefore) {
  LoaderOptions o = options();
  o.on_bad = OnBad::kFail;
  Loader strict(sources(), rules(), o, start());
  Loader lax(sources(), rules(), options(), start());
  std::string message;
  int batches = 0;
  for (; batches < 1000 && message.empty(); ++batches)
    message = error_of([&] { EXPECT_TRUE(same(*strict.next(), *lax.next())); });
  EXPECT_EQ(message, "numbers:13: unlucky");
  EXPECT_EQ(error_of([&] { strict.next(); }), message);
}

TEST(Loader, GivesUpWhenNothingIsUsable) {
  Source bad;
  bad.size = 25;
  bad.make = [](std::int64_t, std::int64_t) -> std::vector<Sample> { fail(ErrorCode::kCorrupt, "broken"); };
  bad.where = [](std::int64_t index) { return "bad:" + std::to_string(index); };
  Loader loader({bad}, rules(), options(), first_state(std::vector<SourceShape>{{25, 0}}, 5, 1));
  const std::string message = error_of([&] { loader.next(); });
  EXPECT_TRUE(message.starts_with("25 samples in a row cannot be used; the first: bad:")) << message;
}

TEST(Loader, SamplesThatBelongTogetherStayTogether) {
  Source pairs;
  pairs.size = 100;
  pairs.make = [](std::int64_t index, std::int64_t) {
    Sample sample;
    for (int i = 0; i < 7; ++i) sample.add(static_cast<std::int32_t>(index), 1);
    return std::vector<Sample>{sample, sample};
  };
  pairs.where = [](std::int64_t) { return "pairs"; };
  Loader loader({pairs}, rules(), options(), first_state(std::vector<SourceShape>{{100, 0}}, 5, 1));
  for (int i = 0; i < 20; ++i) {
    const auto batch = names(*loader.next());
    ASSERT_EQ(batch.size(), 4u);  // 28 of 32 rows
    EXPECT_EQ(batch[0], batch[1]);
    EXPECT_EQ(batch[2], batch[3]);
  }
}

TEST(Loader, StopsWhileWorkersAreBusy) {
  std::atomic<int> made = 0;
  Source slow = numbers(1, 1000);
  slow.make = [&made, make = slow.make](std::int64_t index, std::int64_t epoch) {
    ++made;
    return make(index, epoch);
  };
  { const Loader loader({slow}, rules(), options(), first_state(std::vector<SourceShape>{{1000, 0}}, 5, 1)); }
  {
    Loader loader({slow}, rules(), options(), first_state(std::vector<SourceShape>{{1000, 0}}, 5, 1));
    loader.next();
  }
  EXPECT_LT(made, 500);  // only a bounded number ahead
}

TEST(Loader, RefusesAStrangeState) {
  EXPECT_THROW(Loader(sources(), rules(), options(), first_state(std::vector<SourceShape>{{1, 0}}, 5, 1)), Error);
  LoaderOptions o = options();
  o.rank = 1;
  EXPECT_THROW(Loader(sources(), rules(), o, start()), Error);
}

}  // namespace
}  // namespace gov::train
