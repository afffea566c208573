// The prefix cache: what a request draws with it is bit for bit what it draws without, and the counters show that rows
// known already are not computed. The engine fills what neither a sequence nor the cache keeps with NaN before each
// step, and checks who owns which block.
#include "engine/prefix_cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/philox.h"
#include "engine/model_package.h"
#include "tests/engine/test_support.h"

namespace gov::test {
namespace {

EngineOptions checked(std::int64_t chunk = 16, std::int64_t block_size = 8) {
  EngineOptions o;
  o.context = 512;
  o.chunk = chunk;
  o.block_size = block_size;
  o.check_blocks = true;
  return o;
}

std::vector<std::int32_t> join(std::vector<std::int32_t> a, const std::vector<std::int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

RequestResult one(Engine& engine, const Request& request) {
  return generate(engine, std::vector<Request>(1, request))[0];
}

class Prefixes : public testing::Test {
 protected:
  Prefixes() : model(random_model(small_config(true), 5, pool)), tokenizer(byte_tokenizer()) {}

  std::unique_ptr<Engine> engine(const EngineOptions& o) {
    return std::make_unique<Engine>(model, &tokenizer, std::vector<std::int32_t>{}, o, pool);
  }
  // Without the cache.
  Completion cold(const Request& request, std::size_t choice = 0) {
    EngineOptions o = checked();
    o.prefix_cache = false;
    return one(*engine(o), request).choices[choice];
  }
  // Rows that a request costs in this engine, and that it has to be right.
  std::int64_t cost(Engine& e, const Request& request, const std::string& what) {
    const std::int64_t before = e.stats().prompt_rows;
    const RequestResult result = one(e, request);
    for (const Completion& c : result.choices) expect_same(c, cold(request, static_cast<std::size_t>(c.choice)), what);
    last = result;
    return e.stats().prompt_rows - before;
  }

  ThreadPool pool{1};
  Model model;
  Tokenizer tokenizer;
  RequestResult last;
};

TEST(PrefixRows, OrderAndCommonBeginning) {
  const Sha256Digest a{1}, b{2};
  const std::vector<PrefixRows> ordered = {{{-2, 3}, {a}}, {{-2, 3}, {b}}, {{3}, {}},       {{3, -1}, {a}},
                                           {{3, -1}, {b}}, {{3, 4}, {}},   {{3, 4, 5}, {}}, {{7}, {}}};
  const PrefixOrder less;
  for (std::size_t i = 0; i < ordered.size(); ++i) {
    for (std::size_t j = 0; j < ordered.size(); ++j) EXPECT_EQ(less(ordered[i], ordered[j]), i < j) << i << ", " << j;
  }
  EXPECT_EQ(common_rows(ordered[0], ordered[1]), 0);
  EXPECT_EQ(common_rows(ordered[3], ordered[4]), 1);
  EXPECT_EQ(common_rows(ordered[5], ordered[6]), 2);
}

TEST_F(Prefixes, TheNextTurnCostsTheNewRows) {
  for (const std::int64_t chunk : {1, 7, 16, 512}) {
    for (const std::int64_t block_size : {8, 16, 64}) {
      const auto e = engine(checked(chunk, block_size));
      std::vector<std::int32_t> conversation = join({5, kImageToken}, random_prompt(40, 1));
      std::int64_t known = 0;  // rows
      for (std::uint64_t turn = 0; turn < 6; ++turn) {
        Request request = make_request(conversation, turn % 2 ? sampled(13, turn) : greedy(21));
        request.images = {random_image(model.config, 3)};
        const std::int64_t rows = static_cast<std::int64_t>(conversation.size()) + 5;
        const std::string what = fmt::format("chunk {}, block {}, turn {}", chunk, block_size, turn);
        // The last token drawn has not been through the model yet.
        EXPECT_EQ(cost(*e, request, what), rows - known) << what;
        EXPECT_EQ(last.cached_tokens, known) << what;
        EXPECT_EQ(last.image_tokens, 6);
        conversation = join(join(conversation, last.choices[0].tokens), random_prompt(9, 50 + turn));
        known = rows + static_cast<std::int64_t>(last.choices[0].tokens.size()) - 1;
      }
      EXPECT_EQ(e->stats().images, 1);  // the picture was encoded for the first turn only
      EXPECT_EQ(e->stats().prefix.queries, 6);
      EXPECT_EQ(e->stats().prefix.hits, 5);
      EXPECT_EQ(e->stats().prefix.query_rows - e->stats().prefix.hit_rows, e->stats().prompt_rows);
    }
  }
}

TEST_F(Prefixes, TheSamePromptCostsOneRow) {
  for (const std::int64_t rows : {1, 2, 7, 8, 9, 16, 17, 64, 100}) {
    const auto e = engine(checked());
    Request request = make_request(random_prompt(rows, 1000 + static_cast<std::uint64_t>(rows)), sampled(30, 1));
    EXPECT_EQ(cost(*e, request, "first"), rows);
    request.options.sampling.seed = 2;
    EXPECT_EQ(cost(*e, request, "another answer"), 1) << rows;
    request.n = 3;
    const std::int64_t decode_before = e->stats().decode_rows;
    EXPECT_EQ(cost(*e, request, "three answers"), 3) << rows;  // the last row of each
    EXPECT_EQ(e->stats().decode_rows - decode_before, 3 * 29);
  }
}

// Where prompts part is found by the second and used by the third.
TEST_F(Prefixes, ASharedBeginningIsUsedFromTheThirdRequestOn) {
  for (const std::int64_t shared : {33, 40, 100, 301}) {
    const auto e = engine(checked());
    const std::vector<std::int32_t> beginning = random_prompt(shared, 7);
    std::vector<std::int64_t> costs;
    for (std::uint64_t i = 0; i < 4; ++i)
      costs.push_back(cost(*e, make_request(join(beginning, random_prompt(30, 20 + i)), greedy(10)), "shared"));
    EXPECT_EQ(costs[0], shared + 30);
    EXPECT_EQ(costs[2], 30) << shared;
    EXPECT_EQ(costs[3], 30) << shared;
    const std::int64_t weak = shared / (8 * PrefixCache::kSnapshotBlocks) * 8 * PrefixCache::kSnapshotBlocks;
    EXPECT_EQ(costs[1], shared + 30 - weak);
  }
}

TEST_F(Prefixes, AnEditedEndGoesBackToTheLastWindow) {
  const auto e = engine(checked());
  const std::vector<std::int32_t> first = random_prompt(50, 1);
  const std::int64_t answer = 20;
  one(*e, make_request(first, greedy(answer)));
  const std::vector<std::int32_t> drawn =
      last.choices.empty() ? cold(make_request(first, greedy(answer))).tokens : last.choices[0].tokens;
  // Past analysis is left out of the next turn: rows are known up to the end of the first prompt.
  const auto next = [&](std::uint64_t seed) { return join(join(first, {250, 251, 252}), random_prompt(12, seed)); };
  EXPECT_EQ(cost(*e, make_request(next(3), greedy(5)), "without the answer"), 15);
  EXPECT_EQ(cost(*e, make_request(next(4), greedy(5)), "edited"), 15);  // back to the end of the first prompt
  EXPECT_EQ(cost(*e, make_request(next(5), greedy(5)), "edited again"), 12);
  EXPECT_EQ(cost(*e, make_request(join(first, drawn), greedy(5)), "with the answer"), 1);
}

TEST_F(Prefixes, SaltsAreSeparate) {
  const auto e = engine(checked());
  Request request = make_request(random_prompt(60, 1), greedy(8));
  request.cache_salt = "a";
  EXPECT_EQ(cost(*e, request, "a"), 60);
  request.cache_salt = "b";
  EXPECT_EQ(cost(*e, request, "b"), 60);
  EXPECT_EQ(last.cached_tokens, 0);
  request.cache_salt = "";
  EXPECT_EQ(cost(*e, request, "none"), 60);
  request.cache_salt = "a";
  EXPECT_EQ(cost(*e, request, "a"), 1);
  EXPECT_EQ(last.cached_tokens, 59);
}

TEST_F(Prefixes, PicturesAreTheirPixels) {
  const auto e = engine(checked());
  Request request = make_request(join({1, kImageToken, 2, kImageToken}, random_prompt(20, 1)), greedy(8));
  const std::vector<float> a = random_image(model.config, 1), b = random_image(model.config, 2);
  std::vector<float> almost = b;
  almost[777] = std::nextafter(almost[777], 10.f);
  request.images = {a, b};
  EXPECT_EQ(cost(*e, request, "a, b"), 34);
  request.images = {a, almost};
  EXPECT_EQ(cost(*e, request, "a, almost b"), 34);  // known up to the second picture, but there was no window
  almost[777] = std::nextafter(almost[777], 10.f);
  request.images = {a, almost};
  EXPECT_EQ(cost(*e, request, "a, another b"), 34 - 8);
  request.images = {b, a};
  EXPECT_EQ(cost(*e, request, "b, a"), 34 - 1);
  request.images = {a, b};
  const std::int64_t images = e->stats().images;
  EXPECT_EQ(cost(*e, request, "a, b again"), 1);
  EXPECT_EQ(e->stats().images, images);
}

// Digests that came with the request are taken as they are: nothing is computed twice.
TEST_F(Prefixes, DigestsMayComeWithTheRequest) {
  Request request = make_request(join({kImageToken}, random_prompt(20, 1)), greedy(4));
  request.images = {random_image(model.config, 1)};
  Request digested = request;
  digest_images(digested);
  EXPECT_EQ(digested.image_digests.size(), 1u);
  const auto e = engine(checked());
  EXPECT_EQ(cost(*e, request, "without"), 26);
  EXPECT_EQ(cost(*e, digested, "with"), 1);
  digested.image_digests[0][5] ^= 1;
  EXPECT_EQ(cost(*e, digested, "another picture"), 26);
  digested.image_digests.emplace_back();
  EXPECT_THROW(e->submit(digested), Error);
  request.images[0][3] = NAN;
  digest_images(request);
  EXPECT_TRUE(request.image_digests.empty());
  EXPECT_THROW(e->submit(request), Error);
}

// Only the pool that is short gives up what it keeps.
TEST(PrefixesOfBlocks, UnsharingTouchesThePoolThatIsShort) {
  const Config config = small_config();
  DecodingRules rules;
  rules.vocabulary = config.vocab_size;
  BlockManager blocks({8, 16, 16, DType::kF32}, config.sliding_window);
  PrefixCache cache(blocks, true);
  RequestState request;
  request.prompt = expand_prompt(config, random_prompt(20, 1), 0);
  request.max_new_tokens = 10;
  Sequence first(request, 0, rules), second(request, 1, rules);
  std::vector<BlockCopy> copies;
  ASSERT_TRUE(blocks.prepare(first.blocks, 0, 20, copies));
  first.computed = 20;
  cache.leave(first);
  blocks.release(first.blocks);
  cache.take(second, cache.find(second));
  EXPECT_EQ(second.computed, 19);
  const PrefixStats before = cache.stats();
  cache.unshare(second, 19, {});
  EXPECT_EQ(cache.stats().cached_full_blocks, before.cached_full_blocks);
  EXPECT_EQ(cache.stats().cached_sliding_blocks, before.cached_sliding_blocks);
  cache.unshare(second, 19, {0, 1});
  EXPECT_EQ(cache.stats().cached_full_blocks, before.cached_full_blocks);
  EXPECT_EQ(cache.stats().cached_sliding_blocks, before.cached_sliding_blocks - 1);
  cache.unshare(second, 19, {1, 0});
  EXPECT_EQ(cache.stats().cached_full_blocks, before.cached_full_blocks - 1);
  cache.leave(second);
  blocks.release(second.blocks);
  EXPECT_EQ(cache.check(), "");
}

TEST_F(Prefixes, ResetForgets) {
  const auto e = engine(checked());
  const Request request = make_request(random_prompt(60, 1), greedy(8));
  EXPECT_EQ(cost(*e, request, "first"), 60);
  EXPECT_GT(e->stats().prefix.cached_full_blocks, 0);
  e->reset_prefix_cache();
  EXPECT_EQ(e->stats().prefix.cached_full_blocks, 0);
  EXPECT_EQ(e->stats().prefix.cached_sliding_blocks, 0);
  EXPECT_EQ(cost(*e, request, "after the reset"), 60);
  // In the middle of a request, too: it stores what it has again.
  Request long_one = make_request(random_prompt(60, 2), greedy(40));
  const RequestId id = e->submit(long_one);
  for (int i = 0; i < 20; ++i) e->step();
  e->reset_prefix_cache();
  while (e->step()) {
  }
  const Completion drawn = e->take(id).choices[0];
  expect_same(drawn, cold(long_one), "reset while running");
  long_one.prompt = join(long_one.prompt, drawn.tokens);
  EXPECT_EQ(cost(*e, long_one, "after it"), 1);
}

TEST_F(Prefixes, OffKeepsNothing) {
  EngineOptions o = checked();
  o.prefix_cache = false;
  const auto e = engine(o);
  const Request request = make_request(random_prompt(60, 1), greedy(8));
  EXPECT_EQ(cost(*e, request, "off"), 60);
  EXPECT_EQ(cost(*e, request, "off"), 60);
  EXPECT_EQ(e->stats().prefix.queries, 0);
  EXPECT_EQ(e->stats().prefix.cached_full_blocks, 0);
}

TEST_F(Prefixes, WhatACancelledRequestComputedIsKept) {
  const auto e = engine(checked(16));
  const Request request = make_request(random_prompt(100, 1), greedy(30));
  const RequestId id = e->submit(request);
  for (int i = 0; i < 4; ++i) e->step();  // 64 rows
  e->cancel(id);
  e->take(id);
  EXPECT_EQ(cost(*e, request, "after the cancellation"), 100 - 64);
}

TEST_F(Prefixes, FaultyNumbersAreNotKept) {
  std::vector<std::int32_t> prompt = random_prompt(40, 1);
  prompt[20] = 77;
  const Tensor row = model.weights.embed.slice(77, 1);
  std::vector<char> good(row.bytes());
  std::memcpy(good.data(), row.data, row.bytes());
  std::memset(row.data, 0xff, row.bytes());
  const auto e = engine(checked());
  EXPECT_THROW(one(*e, make_request(prompt, greedy(4))), Error);
  EXPECT_EQ(e->stats().prefix.cached_full_blocks, 0);
  std::memcpy(row.data, good.data(), row.bytes());
  EXPECT_EQ(cost(*e, make_request(prompt, greedy(4)), "mended"), 40);
}

// Many conversations at once, with beginnings in common, pictures, edits, choices and cancellations, in caches of every
// size: everything equals the cold run.
TEST_F(Prefixes, RandomConversations) {
  struct Setting {
    std::int64_t chunk, block_size, sequences, context;
    double share;  // of the cache's memory
  };
  std::int64_t preemptions = 0, evictions = 0, snapshot_evictions = 0;
  std::uint64_t seed = 0;
  for (const Setting& setting :
       {Setting{16, 8, 8, 512, 1.0}, Setting{7, 16, 4, 256, 0.4}, Setting{64, 8, 3, 256, 0.45},
        Setting{512, 64, 8, 256, 0.4}, Setting{5, 8, 6, 192, 0.25}, Setting{33, 24, 2, 192, 0.65}}) {
    EngineOptions o = checked(setting.chunk, setting.block_size);
    o.context = setting.context;
    o.max_sequences = setting.sequences;
    o.snapshot_share = 0;
    o.memory_limit = std::uint64_t{1} << 34;
    const MemoryPlan plan = engine(o)->plan();
    o.memory_limit =
        plan.total() - plan.kv_cache + static_cast<std::uint64_t>(setting.share * static_cast<double>(plan.kv_cache));
    const auto e = engine(o);
    const Philox random{1000 + seed++};
    std::uint64_t counter = 0;
    const auto below = [&](std::uint64_t n) { return random(counter++)[0] % n; };
    struct Talk {
      std::vector<std::int32_t> rows;
      std::vector<std::vector<float>> images;
      std::string salt;
    };
    std::vector<Talk> talks(5);
    for (int round = 0; round < 8; ++round) {
      std::vector<Request> requests;
      for (Talk& talk : talks) {
        if (talk.rows.size() + 70 > static_cast<std::size_t>(setting.context) || below(6) == 0) talk = {};
        if (talk.rows.empty()) {
          talk.rows = random_prompt(20 + static_cast<std::int64_t>(below(3)) * 8, below(2));
          talk.salt = below(4) == 0 ? "other" : "";
        }
        if (below(5) == 0 && talk.images.size() < 3) {
          talk.rows.push_back(kImageToken);
          talk.images.push_back(random_image(model.config, below(2)));
        }
        if (below(6) == 0) talk.rows.resize(talk.rows.size() - below(5)), talk.rows.push_back(9);
        const auto places = std::count(talk.rows.begin(), talk.rows.end(), kImageToken);
        talk.images.resize(static_cast<std::size_t>(places));
        talk.rows = join(talk.rows, random_prompt(1 + static_cast<std::int64_t>(below(20)), below(1000)));
        Request request = make_request(talk.rows, below(2) ? greedy(5) : sampled(5, below(100)));
        request.options.max_new_tokens = 3 + static_cast<std::int64_t>(below(30));
        request.options.logprobs = 1;
        request.images = talk.images;
        request.cache_salt = talk.salt;
        request.n = below(4) == 0 ? 3 : 1;
        requests.push_back(request);
      }
      const std::vector<RequestResult> results = generate(*e, requests);
      for (std::size_t i = 0; i < requests.size(); ++i) {
        for (std::size_t c = 0; c < results[i].choices.size(); ++c) {
          expect_same(results[i].choices[c], cold(requests[i], c),
                      fmt::format("setting {}, round {}, talk {}, choice {}", seed, round, i, c));
        }
        talks[i].rows = join(talks[i].rows, results[i].choices.back().tokens);
      }
      if (HasFailure()) return;
      EXPECT_EQ(e->stats().free_full_blocks, e->stats().full_blocks);
      EXPECT_EQ(e->stats().free_sliding_blocks, e->stats().sliding_blocks);
    }
    EXPECT_GT(e->stats().prefix.hit_rows, 0) << seed;
    preemptions += e->stats().preemptions;
    evictions += e->stats().prefix.evictions;
    snapshot_evictions += e->stats().prefix.snapshot_evictions;
  }
  EXPECT_GT(preemptions, 0);
  EXPECT_GT(evictions, 100);
  EXPECT_GT(snapshot_evictions, 100);
}

// The acceptance: nano, a conversation of 4,096 tokens with a picture.
TEST(PrefixesOfNano, TheSecondTurnOfALongConversation) {
  ThreadPool pool(2);
  const ModelPackage package = load_package(std::filesystem::path(GOV_SOURCE_DIR) / "models" / "nano", pool);
  const Config& config = package.model.config;
  const std::int64_t picture = config.vision.tokens();
  EngineOptions o;
  o.context = 8192;
  o.max_sequences = 2;
  Engine warm(package.model, &package.tokenizer, package.stop_ids, o, pool);
  o.prefix_cache = false;
  Engine cold(package.model, &package.tokenizer, package.stop_ids, o, pool);
  std::vector<std::int32_t> rows{17, static_cast<std::int32_t>(config.image_token_id)};
  rows = join(rows, random_prompt(4096 - 32 - picture - 1, 4));
  Request request = make_request(rows, sampled(32, 9));
  request.options.ignore_eos = true;
  request.images = {random_image(config, 6)};
  const RequestResult first = one(warm, request);
  ASSERT_EQ(first.prompt_tokens + static_cast<std::int64_t>(first.choices[0].tokens.size()), 4096);

  const std::int64_t asked = 40;
  request.prompt = join(join(rows, first.choices[0].tokens), random_prompt(asked, 5));
  const EngineStats before = warm.stats();
  const RequestResult second = one(warm, request);
  const RequestResult expected = one(cold, request);
  expect_same(second.choices[0], expected.choices[0], "second turn");
  EXPECT_EQ(second.choices[0].text, expected.choices[0].text);
  // The last token of the answer was drawn, but has not been through the model.
  EXPECT_EQ(warm.stats().prompt_rows - before.prompt_rows, asked + 1);
  EXPECT_EQ(second.cached_tokens, 4095);
  EXPECT_EQ(warm.stats().images - before.images, 0);
  EXPECT_EQ(cold.stats().prompt_rows, 4096 + asked);
  RecordProperty("cold_ms", static_cast<int>(expected.first_token_seconds * 1e3));
  RecordProperty("warm_ms", static_cast<int>(second.first_token_seconds * 1e3));
}

// Every salt has a tree of its own; each is given up without a look at the others.
TEST(PrefixesTime, ManySaltsAreForgottenAtOnce) {
  constexpr int kSalts = 30000;
  const Config config = small_config();
  DecodingRules rules;
  rules.vocabulary = config.vocab_size;
  BlockManager blocks({8, kSalts, kSalts, DType::kF32}, config.sliding_window);
  PrefixCache cache(blocks, true);
  for (int i = 0; i < kSalts; ++i) {
    RequestState request;
    request.request.cache_salt = std::to_string(i);
    request.prompt = expand_prompt(config, random_prompt(8, 1), 0);
    request.max_new_tokens = 1;
    Sequence sequence(request, 0, rules);
    std::vector<BlockCopy> copies;
    ASSERT_TRUE(blocks.prepare(sequence.blocks, 0, 8, copies));
    sequence.computed = 8;
    cache.leave(sequence);
    blocks.release(sequence.blocks);
  }
  EXPECT_EQ(cache.stats().cached_full_blocks, kSalts);
  const Timer timer;
  cache.reset();
  EXPECT_LT(timer.seconds(), 1);
  EXPECT_EQ(cache.stats().cached_full_blocks, 0);
  EXPECT_EQ(cache.check(), "");
}

}  // namespace
}  // namespace gov::test
