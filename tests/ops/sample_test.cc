#include <cmath>
#include <limits>
#include <map>

#include "base/philox.h"
#include "ops/reference/sample.h"
#include "tests/ops/harness.h"

namespace gov::test {
namespace {

using ops::SampleResult;
using ops::SampleRow;

std::vector<float> random_logits(std::size_t n, double scale, std::uint64_t seed, bool ties = false) {
  Random random{seed};
  std::vector<float> logits;
  for (std::size_t i = 0; i < n; ++i)
    logits.push_back(static_cast<float>(ties ? std::round(scale * random.normal()) : scale * random.normal()));
  return logits;
}

// The op on copies of one row of logits.
std::vector<SampleResult> sample_copies(Context& ctx, const std::vector<float>& logits,
                                        const std::vector<SampleRow>& rows) {
  Memory memory;
  const Tensor t = memory.make(DType::kF32, {std::int64_t(rows.size()), std::int64_t(logits.size())});
  for (std::size_t r = 0; r < rows.size(); ++r)
    std::copy(logits.begin(), logits.end(), t.as<float>() + r * logits.size());
  std::vector<SampleResult> results(rows.size());
  call(ctx, ops::sample, t, rows, results);
  return results;
}

SampleResult sample_one(Context& ctx, const std::vector<float>& logits, const SampleRow& row) {
  return sample_copies(ctx, logits, {row})[0];
}

std::vector<SampleRow> draws(SampleRow row, std::size_t count) {
  std::vector<SampleRow> rows(count, row);
  for (std::size_t i = 0; i < count; ++i) rows[i].draw = i;
  return rows;
}

// Tokens of the reference: the same random number through the reference's distribution.
std::int32_t reference_draw(const std::vector<double>& p, const SampleRow& row) {
  const auto words = Philox{row.params.seed}(row.draw, row.stream);
  const double u = static_cast<double>((static_cast<std::uint64_t>(words[0]) << 32 | words[1]) >> 11) * 0x1p-53;
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    sum += p[i];
    if (sum > u) return static_cast<std::int32_t>(i);
  }
  return static_cast<std::int32_t>(p.size() - 1);
}

// Upper 1e-6 quantile of chi-square, Wilson and Hilferty's approximation.
double chi_square_limit(double freedom) {
  const double a = 2 / (9 * freedom);
  return freedom * std::pow(1 - a + 4.753 * std::sqrt(a), 3);
}

void check_distribution(const std::vector<SampleResult>& results, const std::vector<double>& p) {
  std::vector<double> seen(p.size());
  for (const SampleResult& r : results) {
    ASSERT_TRUE(r.token >= 0 && std::size_t(r.token) < p.size());
    EXPECT_GT(p[std::size_t(r.token)], 0) << "token " << r.token << " was filtered out";
    seen[std::size_t(r.token)] += 1;
  }
  double chi = 0, freedom = -1, rest_seen = 0, rest_wanted = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double wanted = p[i] * double(results.size());
    if (wanted < 5) {  // rare tokens share one bin
      rest_seen += seen[i];
      rest_wanted += wanted;
      continue;
    }
    chi += (seen[i] - wanted) * (seen[i] - wanted) / wanted;
    freedom += 1;
  }
  if (rest_wanted > 5) {
    chi += (rest_seen - rest_wanted) * (rest_seen - rest_wanted) / rest_wanted;
    freedom += 1;
  }
  if (freedom > 0) {
    EXPECT_LT(chi, chi_square_limit(freedom)) << freedom << " degrees of freedom";
  }
}

std::map<std::string, SampleRow> filter_settings() {
  std::map<std::string, SampleRow> all;
  const auto add = [&](const char* name, ops::SamplingParams p) {
    p.seed = all.size() + 1;
    all[name].params = p;
  };
  add("plain", {});
  add("hot", {.temperature = 2.5f});
  add("cold", {.temperature = 0.2f});
  add("top_k_1", {.top_k = 1});
  add("top_k_5", {.top_k = 5});
  add("top_k_all", {.top_k = 1000});
  add("top_p_0", {.top_p = 0.f});
  add("top_p_small", {.top_p = 0.3f});
  add("top_p_large", {.top_p = 0.95f});
  add("min_p", {.min_p = 0.1f});
  add("min_p_1", {.min_p = 1.f});
  add("typical_0", {.typical_p = 0.f});
  add("typical_small", {.typical_p = 0.3f});
  add("typical_large", {.typical_p = 0.95f});
  add("everything", {.temperature = 1.3f, .top_k = 30, .top_p = 0.9f, .min_p = 0.02f, .typical_p = 0.9f});
  return all;
}

class Sample : public OnDevices {};
INSTANTIATE_TEST_SUITE_P(All, Sample, testing::ValuesIn(test_devices()), device_name);

TEST_P(Sample, FiltersMatchTheSortedReference) {
  for (Context* const ctx : contexts()) {
    for (const auto& [name, row] : filter_settings())
      for (const bool ties : {false, true}) {
        SCOPED_TRACE(name + (ties ? " with ties" : ""));
        const std::vector<float> logits = random_logits(67, 2, 5, ties);
        const std::vector<double> p = reference::sampling_distribution(logits, row);
        const std::vector<SampleRow> rows = draws(row, 2000);
        const std::vector<SampleResult> results = sample_copies(*ctx, logits, rows);
        check_distribution(results, p);
        // The same random number falls on the same token, up to rounding at the borders between tokens.
        int different = 0;
        for (std::size_t i = 0; i < rows.size(); ++i) different += results[i].token != reference_draw(p, rows[i]);
        EXPECT_LE(different, 1);
      }
  }
}

// Kept sets that reach beyond the first sorted part, and the vocabulary of the real model.
TEST_P(Sample, LargeVocabulary) {
  for (auto& [name, row] : filter_settings()) {
    SCOPED_TRACE(name);
    const std::vector<float> logits = random_logits(20'000, 1, 6);
    const std::vector<double> p = reference::sampling_distribution(logits, row);
    const std::vector<SampleRow> rows = draws(row, 40);
    const std::vector<SampleResult> results = sample_copies(context(), logits, rows);
    int different = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) different += results[i].token != reference_draw(p, rows[i]);
    EXPECT_LE(different, 1);
  }
}

TEST_P(Sample, AdjustmentsInTheirOrder) {
  const std::vector<ops::TokenCount> counts = {{2, 0}, {5, 3}, {7, 1}, {11, 2}};
  const std::vector<ops::LogitBias> bias = {{2, 3.5f}, {7, -100.f}, {9, 1.f}};
  const std::vector<std::int32_t> forbidden = {0, 5};
  SampleRow row;
  row.params = {.repetition_penalty = 1.3f, .presence_penalty = 0.4f, .frequency_penalty = 0.25f, .seed = 3};
  row.counts = counts;
  row.bias = bias;
  row.forbidden = forbidden;
  row.top_logprobs = 20;
  const std::vector<float> logits = random_logits(24, 2, 8);
  const std::vector<double> p = reference::sampling_distribution(logits, row);
  EXPECT_EQ(p[0], 0);
  const std::vector<SampleRow> rows = draws(row, 3000);
  const std::vector<SampleResult> results = sample_copies(context(), logits, rows);
  check_distribution(results, p);
  // Log-probabilities are those at temperature 1 after the adjustments.
  for (const SampleResult& r : {results[0], results[1]}) {
    EXPECT_NEAR(r.logprob, std::log(p[std::size_t(r.token)]), 1e-5);
    EXPECT_EQ(r.top_count, 20);
    for (int i = 0; i < r.top_count; ++i)
      EXPECT_NEAR(r.top_logprobs[i], std::log(p[std::size_t(r.top_tokens[i])]), 1e-5);
    for (int i = 1; i < r.top_count; ++i) EXPECT_GE(r.top_logprobs[i - 1], r.top_logprobs[i]);
  }
}

std::vector<std::uint32_t> mask_of(std::size_t vocabulary, const std::vector<std::size_t>& tokens) {
  std::vector<std::uint32_t> words((vocabulary + 31) / 32);
  for (const std::size_t token : tokens) words[token / 32] |= 1u << token % 32;
  return words;
}

TEST_P(Sample, OnlyAllowedTokensAreDrawn) {
  const std::vector<float> logits = random_logits(67, 2, 13);  // the last word has three bits
  for (Context* const ctx : contexts()) {
    for (auto& [name, row] : filter_settings()) {
      for (const std::vector<std::size_t>& tokens :
           {std::vector<std::size_t>{0, 3, 31, 32, 40, 63, 64, 66}, {66}, {0}}) {
        SCOPED_TRACE(fmt::format("{}, {} tokens", name, tokens.size()));
        const std::vector<std::uint32_t> mask = mask_of(67, tokens);
        const std::vector<std::int32_t> forbidden = {31};
        row.allowed = mask;
        row.forbidden = forbidden;
        row.top_logprobs = 20;
        const std::vector<double> p = reference::sampling_distribution(logits, row);
        const std::vector<SampleRow> rows = draws(row, 500);
        const std::vector<SampleResult> results = sample_copies(*ctx, logits, rows);
        check_distribution(results, p);
        // Log-probabilities are those of the allowed tokens among themselves.
        SampleRow natural = row;
        natural.params = {};
        const std::vector<double> q = reference::sampling_distribution(logits, natural);
        EXPECT_EQ(results[0].top_count, static_cast<int>(tokens.size()) - (tokens.size() > 1 ? 1 : 0));
        EXPECT_NEAR(results[0].logprob, std::log(q[std::size_t(results[0].token)]), 1e-5);
      }
    }
  }
}

TEST_P(Sample, GreedyTakesTheBestAllowedToken) {
  std::vector<float> logits = random_logits(201'088, 1, 14);
  logits[150'000] = logits[77] = 40.f;
  logits[201'087] = 30.f;
  SampleRow row;
  row.params.temperature = 0;
  row.top_logprobs = 0;
  for (const auto& [tokens, best] : std::vector<std::pair<std::vector<std::size_t>, std::int32_t>>{
           {{5, 78, 201'087}, 201'087}, {{77, 78, 150'000}, 77}, {{123'456}, 123'456}}) {
    const std::vector<std::uint32_t> mask = mask_of(logits.size(), tokens);
    row.allowed = mask;
    const SampleResult r = sample_one(context(), logits, row);
    EXPECT_EQ(r.token, best);
    if (tokens.size() == 1) {
      EXPECT_EQ(r.logprob, 0);
    }
  }
  const std::vector<std::uint32_t> nothing = mask_of(logits.size(), {});
  row.allowed = nothing;
  EXPECT_EQ(sample_one(context(), logits, row).token, -1);
  row.allowed = std::span(nothing).first(10);
  EXPECT_THROW(sample_one(context(), logits, row), Error);
}

TEST_P(Sample, GivenTokensAreScoredNotDrawn) {
  std::vector<float> logits = random_logits(5000, 3, 15);
  logits[9] = std::numeric_limits<float>::infinity();
  logits[10] = NAN;
  SampleRow row;
  row.params = {.temperature = 0.7f, .top_k = 3};
  row.top_logprobs = 4;
  row.given = 4999;
  std::vector<SampleRow> rows = draws(row, 4);
  rows[1].given = 9;
  rows[2].given = 10;
  rows[3].given = -1;
  rows[3].params.temperature = 0;
  for (Context* const ctx : contexts()) {
    const std::vector<SampleResult> results = sample_copies(*ctx, logits, rows);
    std::vector<double> finite(logits.begin(), logits.end());
    finite[9] = finite[10] = -std::numeric_limits<double>::infinity();
    EXPECT_EQ(results[0].token, 4999);
    EXPECT_NEAR(results[0].logprob, std::log(reference::softmax(finite)[4999]), 1e-5);
    for (const std::size_t r : {std::size_t{1}, std::size_t{2}}) {
      EXPECT_EQ(results[r].token, rows[r].given);
      EXPECT_EQ(results[r].logprob, -std::numeric_limits<float>::infinity());
    }
    ASSERT_EQ(results[0].top_count, 4);
    // The best token's number is the same whether it was drawn, given or is one of the likeliest.
    EXPECT_EQ(results[3].logprob, results[0].top_logprobs[0]);
    row.given = results[3].token;
    EXPECT_EQ(sample_copies(*ctx, logits, {row})[0].logprob, results[3].logprob);
    row.given = 4999;
  }
  row.given = 5000;
  EXPECT_THROW(sample_one(context(), logits, row), Error);
  row.given = 1;
  row.top_logprobs = -1;
  EXPECT_THROW(sample_one(context(), logits, row), Error);
}

TEST_P(Sample, LogprobsIgnoreTemperatureAndFilters) {
  const std::vector<float> logits = random_logits(500, 3, 9, true);  // ties: lower ids first
  SampleRow row;
  row.params = {.temperature = 0.3f, .top_k = 2};
  row.top_logprobs = 5;
  const SampleResult r = sample_one(context(), logits, row);
  const std::vector<double> p = reference::softmax(std::vector<double>(logits.begin(), logits.end()));
  std::vector<std::size_t> order(500);
  for (std::size_t i = 0; i < 500; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
  EXPECT_NEAR(r.logprob, std::log(p[std::size_t(r.token)]), 1e-5);
  ASSERT_EQ(r.top_count, 5);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(r.top_tokens[i], std::int32_t(order[i]));
    EXPECT_NEAR(r.top_logprobs[i], std::log(p[order[i]]), 1e-5);
  }
  row.top_logprobs = 0;
  EXPECT_EQ(sample_one(context(), logits, row).top_count, 0);
  EXPECT_NE(sample_one(context(), logits, row).logprob, 0);
  row.top_logprobs = 20;
  EXPECT_EQ(sample_one(context(), {1, 2, 3}, row).top_count, 3);
}

TEST_P(Sample, GreedyTakesTheLowestIdOfTheLargest) {
  for (Context* const ctx : contexts()) {
    std::vector<float> logits = random_logits(201'088, 1, 10);
    logits[150'000] = logits[77] = logits[200'000] = 40.f;
    SampleRow row;
    row.params.temperature = 0;
    EXPECT_EQ(sample_one(*ctx, logits, row).token, 77);
    const std::vector<std::int32_t> forbidden = {77};
    row.forbidden = forbidden;
    EXPECT_EQ(sample_one(*ctx, logits, row).token, 150'000);
  }
}

TEST_P(Sample, ExtremeTemperatures) {
  SampleRow row;
  for (const float temperature : {1e-45f, 1e-38f, 1e-10f}) {
    row.params.temperature = temperature;
    EXPECT_EQ(sample_one(context(), {1.f, 3.f, 2.999f, -5.f}, row).token, 1) << temperature;
    row.params.top_p = 0.5f;
    EXPECT_EQ(sample_one(context(), {-1e38f, 3.f, 2.999f, 1e38f}, row).token, 3) << temperature;
  }
  row.params = {.temperature = 1e30f};
  check_distribution(sample_copies(context(), {1e4f, -1e4f, 0.f}, draws(row, 3000)), {1 / 3.0, 1 / 3.0, 1 / 3.0});
}

TEST(SampleThreads, DrawsDependOnSeedDrawAndStreamOnly) {
  const std::vector<float> logits = random_logits(1000, 1, 11);
  std::vector<SampleRow> rows;
  for (std::uint64_t i = 0; i < 64; ++i) {
    SampleRow row;
    row.params.seed = i / 16;
    row.draw = i % 16 / 4;
    row.stream = i % 4;
    row.params.top_p = i % 2 == 0 ? 0.9f : 1.f;
    rows.push_back(row);
  }
  TestContext one(cpu_info().best, 1), three(cpu_info().best, 3);
  const auto batch = sample_copies(one.ctx, logits, rows), parallel = sample_copies(three.ctx, logits, rows);
  std::map<std::int32_t, int> distinct;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(batch[i].token, parallel[i].token);
    EXPECT_EQ(batch[i].token, sample_one(one.ctx, logits, rows[i]).token);
    ++distinct[batch[i].token];
  }
  EXPECT_GT(distinct.size(), 50u);  // every coordinate of the counter matters: 64 draws of 1000 tokens rarely meet
}

TEST_P(Sample, NonFiniteLogitsAreNeverDrawn) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  SampleRow row;
  for (const float temperature : {0.f, 1.f}) {
    row.params.temperature = temperature;
    for (const SampleResult& r : sample_copies(context(), {NAN, 1.f, kInf, -kInf, NAN, 0.f}, draws(row, 200))) {
      EXPECT_TRUE(r.token == 1 || r.token == 5);
    }
  }
}

TEST_P(Sample, ARowWithoutFiniteLogitSparesTheOthers) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  Memory memory;
  const std::vector<float> good = random_logits(50, 2, 12);
  std::vector<SampleRow> rows = draws({}, 64);
  const auto want = sample_copies(context(), good, rows);
  for (const float bad : {static_cast<float>(NAN), kInf, -kInf}) {
    const Tensor logits = memory.make(DType::kF32, {64, 50});
    for (std::size_t r = 0; r < 64; ++r) std::copy(good.begin(), good.end(), logits.as<float>() + r * 50);
    std::fill(logits.as<float>() + 17 * 50, logits.as<float>() + 18 * 50, bad);
    std::vector<SampleResult> results(64);
    call(context(), ops::sample, logits, rows, results);
    for (std::size_t r = 0; r < 64; ++r) EXPECT_EQ(results[r].token, r == 17 ? -1 : want[r].token) << r;
  }
  const std::vector<std::int32_t> forbidden = {0, 1, 2};
  SampleRow row;
  row.forbidden = forbidden;
  EXPECT_EQ(sample_one(context(), {1.f, 2.f, 3.f}, row).token, -1);
}

}  // namespace
}  // namespace gov::test
