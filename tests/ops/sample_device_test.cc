// Sampling on a GPU at the size of the released vocabulary, against the CPU and against itself: batches, graphs.
#include "ops/sample_device.h"

#include <cmath>

#include "base/philox.h"
#include "tests/ops/harness.h"

namespace gov::test {
namespace {

using ops::SampleResult;
using ops::SampleRow;

constexpr std::int64_t kVocabulary = 201'088;

class SampleDevice : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = no_cuda_reason(); !reason.empty()) GTEST_SKIP() << reason;
  }
};

// Logits like a model's: most of the probability on few tokens, a long tail. Whole numbers among them are ties.
void fill_logits(const Tensor& t, std::uint64_t seed) {
  for (std::int64_t i = 0; i < t.elements(); ++i) {
    const auto pair = Philox{seed}.normal(static_cast<std::uint64_t>(i));
    t.as<float>()[i] = i % 7 == 0 ? std::round(2.5f * pair[0]) : 2.5f * pair[0];
    if (i % 5003 == 17) t.as<float>()[i] += 9.f;
  }
}

std::vector<SampleRow> settings() {
  std::vector<SampleRow> rows;
  const auto add = [&](ops::SamplingParams p, int top_logprobs = -1) {
    SampleRow row;
    p.seed = rows.size();
    row.params = p;
    row.top_logprobs = top_logprobs;
    for (std::uint64_t draw = 0; draw < 6; ++draw) {
      row.draw = draw;
      rows.push_back(row);
    }
  };
  add({.temperature = 0});
  add({.temperature = 0}, 0);
  add({.temperature = 0}, 20);
  add({});
  add({.temperature = 0.1f});
  add({.temperature = 3.f}, 5);
  add({.top_k = 1});
  add({.temperature = 0.7f, .top_k = 40}, 20);
  add({.temperature = 2.f, .top_k = 50'000});
  add({.top_p = 0.1f});
  add({.top_p = 0.95f}, 3);
  add({.temperature = 3.f, .top_p = 0.999f});  // more candidates than a list holds
  add({.min_p = 0.05f});
  add({.top_p = 0.99f, .min_p = 0.01f}, 20);
  add({.temperature = 0.8f, .top_k = 100, .typical_p = 0.9f}, 2);
  add({.temperature = 1.5f, .typical_p = 0.5f});
  add({.temperature = 1.2f, .top_k = 64, .top_p = 0.9f, .min_p = 0.02f, .typical_p = 0.95f}, 20);
  add({.temperature = 0.02f, .top_k = 20}, 20);
  add({.temperature = 3.f, .top_k = 40'000, .top_p = 0.97f, .min_p = 1e-4f}, 20);
  add({.temperature = 4.f, .min_p = 1e-3f}, 1);
  return rows;
}

TEST_F(SampleDevice, DrawsTheTokensOfTheCpu) {
  for (const std::int64_t vocabulary : {kVocabulary, std::int64_t{50'257}}) {
    Memory memory;
    memory.aligned = vocabulary == kVocabulary;
    const Tensor logits = memory.make(DType::kF32, {1, vocabulary});
    TestContext cpu;
    int different = 0, rows = 0;
    for (const SampleRow& row : settings()) {
      SCOPED_TRACE(fmt::format("setting {}", row.params.seed / 6));
      std::vector<SampleResult> want(1), got(1);
      const std::vector<SampleRow> one = {row};
      fill_logits(logits, 3);
      ops::sample(cpu.ctx, logits, one, want);
      fill_logits(logits, 3);
      call(cuda_context(), ops::sample, logits, one, got);
      ++rows;
      // A number may fall on the border between two tokens, which rounding moves.
      const bool same = got[0].token == want[0].token;
      different += same ? 0 : 1;
      EXPECT_TRUE(same || row.params.temperature > 0);
      if (same) {
        EXPECT_NEAR(got[0].logprob, want[0].logprob, 1e-5);
      }
      ASSERT_EQ(got[0].top_count, want[0].top_count);
      for (int i = 0; i < got[0].top_count; ++i) {
        EXPECT_EQ(got[0].top_tokens[i], want[0].top_tokens[i]) << i;
        EXPECT_NEAR(got[0].top_logprobs[i], want[0].top_logprobs[i], 1e-5);
      }
    }
    EXPECT_LE(different, rows / 50);
  }
}

// Masks of few tokens, of half of them and of almost all, each beside a row without one.
TEST_F(SampleDevice, MasksAreTheCpus) {
  for (const std::int64_t vocabulary : {kVocabulary, std::int64_t{50'257}}) {
    Memory memory;
    const Tensor logits = memory.make(DType::kF32, {2, vocabulary});
    TestContext cpu;
    int different = 0, rows = 0;
    for (const SampleRow& row : settings()) {
      SCOPED_TRACE(fmt::format("setting {}, draw {}", row.params.seed / 6, row.draw));
      std::vector<std::uint32_t> mask(static_cast<std::size_t>((vocabulary + 31) / 32));
      for (std::size_t i = 0; i < mask.size(); ++i) {
        const auto random = Philox{row.draw}(i);
        mask[i] = row.draw % 3 == 0 ? (i % 1000 == 7 ? 1u << random[0] % 32 : 0) : row.draw % 3 == 1 ? random[0] : ~1u;
      }
      std::vector<SampleRow> both = {row, row};
      both[1].allowed = mask;
      if (row.top_logprobs >= 0 && row.draw == 5) both[0].given = static_cast<std::int32_t>(vocabulary - 9);
      std::vector<SampleResult> want(2), got(2);
      fill_logits(logits, 4);
      ops::sample(cpu.ctx, logits, both, want);
      fill_logits(logits, 4);
      call(cuda_context(), ops::sample, logits, both, got);
      for (std::size_t r = 0; r < 2; ++r, ++rows) {
        const bool same = got[r].token == want[r].token;
        different += same ? 0 : 1;
        EXPECT_TRUE(same || row.params.temperature > 0);
        if (same) {
          EXPECT_NEAR(got[r].logprob, want[r].logprob, 1e-5);
        }
        ASSERT_EQ(got[r].top_count, want[r].top_count);
        for (int i = 0; i < got[r].top_count; ++i) EXPECT_EQ(got[r].top_tokens[i], want[r].top_tokens[i]) << i;
      }
      const auto drawn = static_cast<std::size_t>(got[1].token);
      EXPECT_TRUE(mask[drawn / 32] >> drawn % 32 & 1);
    }
    EXPECT_LE(different, rows / 50);
  }
}

// A batch gives every row what it gets alone: the parts of a row are cut otherwise there.
TEST_F(SampleDevice, BatchesDoNotChangeTokens) {
  Memory memory;
  const std::vector<SampleRow> rows = settings();
  const auto count = static_cast<std::int64_t>(rows.size());
  const Tensor one = memory.make(DType::kF32, {1, 60'000}), all = memory.make(DType::kF32, {count, 60'000});
  std::vector<SampleResult> batch(rows.size());
  fill_logits(one, 5);
  for (std::int64_t r = 0; r < count; ++r)
    std::copy(one.as<float>(), one.as<float>() + 60'000, all.as<float>() + r * 60'000);
  call(cuda_context(), ops::sample, all, rows, batch);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::vector<SampleResult> alone(1);
    const std::vector<SampleRow> row = {rows[r]};
    call(cuda_context(), ops::sample, one, row, alone);
    EXPECT_EQ(batch[r].token, alone[0].token) << r;
    EXPECT_EQ(batch[r].logprob, alone[0].logprob) << r;
  }
}

TEST_F(SampleDevice, GreedyStaysOnTheDevice) {
  Memory memory;
  const Tensor logits = memory.make(DType::kF32, {3, 1001}), tokens = memory.make(DType::kI32, {3});
  fill_logits(logits, 6);
  logits.as<float>()[1001 + 700] = logits.as<float>()[1001 + 44] = 100.f;
  logits.as<float>()[1001 + 3] = INFINITY;
  std::fill(logits.as<float>() + 2002, logits.as<float>() + 3003, NAN);
  call(cuda_context(), ops::sample_greedy_device, logits, tokens);
  const float* const row = logits.as<float>();
  EXPECT_EQ(ints_of(tokens),
            (std::vector<std::int32_t>{static_cast<std::int32_t>(std::max_element(row, row + 1001) - row), 44, -1}));
}

// A recorded launch draws for the rows uploaded before each replay.
TEST_F(SampleDevice, LaunchesCanBeReplayed) {
  Context& ctx = cuda_context();
  const std::vector<SampleRow> rows = settings();
  const std::int64_t vocabulary = 5000, count = 2;
  Memory memory;
  memory.aligned = true;
  const Tensor host = memory.make(DType::kF32, {count, vocabulary});
  fill_logits(host, 7);
  Buffer logits(host.bytes(), DeviceKind::kCuda, "logits"), tokens(count * 4, DeviceKind::kCuda, "tokens");
  const Tensor device_logits(logits.data(), DType::kF32, host.shape, "", DeviceKind::kCuda);
  const Tensor device_tokens(tokens.data(), DType::kI32, {count}, "", DeviceKind::kCuda);
  const auto refill = [&] {
    copy_bytes(logits.data(), DeviceKind::kCuda, host.data, DeviceKind::kCpu, host.bytes(), ctx.stream);
  };
  ops::DeviceSampler sampler;
  Graph graph;
  std::int64_t generation = 0;
  for (std::size_t i = 0; i + 1 < rows.size(); i += 5) {
    std::vector<SampleRow> pair = {rows[i], rows[i + 1]};
    const auto best = std::max_element(host.as<float>(), host.as<float>() + vocabulary) - host.as<float>();
    const std::vector<ops::LogitBias> bias(i % 3, {std::int32_t(best), 2.f});
    const std::vector<std::int32_t> forbidden(1 + i % 2, std::int32_t(best));
    (i % 2 == 0 ? pair[0] : pair[1]).forbidden = forbidden;
    (i % 2 == 0 ? pair[1] : pair[0]).bias = bias;
    std::vector<SampleResult> want(2), got(2);
    call(ctx, ops::sample, host, pair, want);
    fill_logits(host, 7);  // it was scratch
    sampler.upload(ctx, pair, true);
    if (!graph || generation != sampler.generation()) {
      // Eagerly until the workspace stays where it is.
      for (std::int64_t moved = -1; moved != ctx.workspace.generation();) {
        moved = ctx.workspace.generation();
        refill();
        sampler.launch(ctx, device_logits, device_tokens);
      }
      synchronize(ctx.stream);
      ctx.workspace.compact();
      graph = Graph::capture(ctx.stream, [&] { sampler.launch(ctx, device_logits, device_tokens); });
      generation = sampler.generation();
    }
    refill();
    graph.launch(ctx.stream);
    sampler.read(ctx, got);
    std::int32_t drawn[2];
    copy_bytes(drawn, DeviceKind::kCpu, tokens.data(), DeviceKind::kCuda, sizeof drawn, ctx.stream);
    synchronize(ctx.stream);
    for (int r = 0; r < 2; ++r) {
      EXPECT_EQ(got[r].token, want[r].token) << i;
      EXPECT_EQ(drawn[r], want[r].token) << i;
      EXPECT_EQ(got[r].logprob, want[r].logprob) << i;
    }
  }
}

}  // namespace
}  // namespace gov::test
