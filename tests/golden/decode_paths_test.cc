// The ways of decoding on a GPU beside each other, on the embedded model and text of its own kind: how far the fused
// step is from the composed ops in exact arithmetic, and what int8 attention and head weights cost.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "engine/model_package.h"
#include "model/decode.h"
#include "model/device_weights.h"
#include "tests/test_device.h"

namespace gov {
namespace {

const std::filesystem::path kSource = GOV_SOURCE_DIR;

// Sentences that the model was taught to say, one after the other.
std::vector<std::int32_t> sentences(const Tokenizer& tokenizer, std::size_t most) {
  std::vector<std::int32_t> ids;
  std::ifstream in(kSource / "tests/golden/data/nano_pictures.tsv");
  for (std::string line; std::getline(in, line) && ids.size() < most;) {
    std::istringstream fields(line);
    std::string field, last;
    while (std::getline(fields, field, '\t')) last = field;
    for (const std::int32_t id : tokenizer.encode(last + "\n")) ids.push_back(id);
  }
  ids.resize(std::min(ids.size(), most));
  return ids;
}

// Natural logarithms of the probabilities of all tokens after each of `ids`, [ids][V], one decode step a token.
std::vector<std::vector<double>> log_probabilities(const Model& model, const std::vector<std::int32_t>& ids,
                                                   DType dtype, std::string_view path) {
  const Config& c = model.config;
  const Stream stream = Stream::create();
  Context ctx(model.ordinal, stream.get());
  Activations acts(c, 1, 1, {model.device, dtype});
  KvCacheSpec spec{64, 0, 0, dtype};
  spec.full_blocks = spec.sliding_blocks = full_blocks_needed(spec, static_cast<std::int64_t>(ids.size()));
  const KvCache cache(c, spec, model.device);
  std::vector<std::int32_t> table(static_cast<std::size_t>(spec.full_blocks));
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>(i);
  DecodeRunner runner(model, cache, acts, 1, spec.full_blocks, path);
  EXPECT_EQ(runner.path(), path);
  std::vector<float> logits(static_cast<std::size_t>(c.vocab_size));
  std::vector<std::vector<double>> all;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    const DecodeRow row{ids[i], static_cast<std::int32_t>(i), at, at, table, table};
    runner.set(ctx, std::span(&row, 1));
    runner.run(ctx);
    copy_bytes(logits.data(), DeviceKind::kCpu, acts.logits.data, model.device, logits.size() * sizeof(float),
               ctx.stream);
    synchronize(ctx.stream);
    double largest = -INFINITY, sum = 0;
    for (const float l : logits) largest = std::max(largest, static_cast<double>(l));
    for (const float l : logits) sum += std::exp(static_cast<double>(l) - largest);
    std::vector<double> logs;
    for (const float l : logits) logs.push_back(static_cast<double>(l) - largest - std::log(sum));
    all.push_back(std::move(logs));
  }
  return all;
}

struct Quality {
  double perplexity = 0;  // of the text
  double divergence = 0;  // mean Kullback-Leibler divergence from the first distribution, nats a token
  double agreement = 0;   // share of positions with the same likeliest token
};

Quality quality(const std::vector<std::vector<double>>& base, const std::vector<std::vector<double>>& other,
                const std::vector<std::int32_t>& ids) {
  Quality q;
  const auto count = static_cast<double>(ids.size() - 1);
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
    q.perplexity -= other[i][static_cast<std::size_t>(ids[i + 1])] / count;
    for (std::size_t v = 0; v < base[i].size(); ++v)
      q.divergence += std::exp(base[i][v]) * (base[i][v] - other[i][v]) / count;
    const auto best = [](const std::vector<double>& p) { return std::max_element(p.begin(), p.end()) - p.begin(); };
    q.agreement += (best(base[i]) == best(other[i])) / count;
  }
  q.perplexity = std::exp(q.perplexity);
  return q;
}

TEST(DecodePaths, QualityOnDevice) {
  GOV_NEEDS_TEST_DEVICE();
  ThreadPool pool(2);
  ModelPackage package = load_package(kSource / "models/nano", pool);
  const Model model = to_device(std::move(package.model), {test::test_ordinal(), false, {}}, pool);
  if (cuda_device_info(model.ordinal).capability != 90) GTEST_SKIP() << "the fused step needs compute capability 9.0";
  const auto ids = sentences(package.tokenizer, 600);
  ASSERT_GT(ids.size(), 300u);
  const auto exact = log_probabilities(model, ids, DType::kF32, "ops");
  const auto report = [&](const char* name, const std::vector<std::vector<double>>& other) {
    const Quality q = quality(exact, other, ids);
    std::printf("%-32s perplexity %.4f, divergence from exact %.2e nats a token, same likeliest token %.2f %%\n", name,
                q.perplexity, q.divergence, 100 * q.agreement);
    return q;
  };
  const Quality self = report("ops, f32", exact);
  const Quality fused = report("fused, f32 cache", log_probabilities(model, ids, DType::kF32, "fused"));
  const Quality ops16 = report("ops, bf16", log_probabilities(model, ids, DType::kBF16, "ops"));
  const Quality fused16 = report("fused, bf16 cache", log_probabilities(model, ids, DType::kBF16, "fused"));
  const Quality int8 = report("fused-int8, bf16 cache", log_probabilities(model, ids, DType::kBF16, "fused-int8"));
  EXPECT_LT(fused.divergence, 1e-8);
  EXPECT_LT(fused16.divergence, ops16.divergence);  // only the cache is rounded
  EXPECT_LT(int8.divergence, 5e-3);
  EXPECT_NEAR(int8.perplexity / self.perplexity, 1, 0.01);
  EXPECT_GT(int8.agreement, 0.98);
}

}  // namespace
}  // namespace gov
