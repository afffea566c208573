#include "tests/engine/test_support.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "base/philox.h"
#include "model/activations.h"
#include "model/batch.h"

namespace gov::test {

Config small_config(bool vision) {
  Config c;
  c.model_type = vision ? "gpt_oss_vision" : "gpt_oss";
  c.vocab_size = 260;
  c.hidden_size = 48;
  c.intermediate_size = 32;
  c.num_hidden_layers = 3;
  c.num_local_experts = 4;
  c.num_experts_per_tok = 2;
  c.head_dim = 16;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.layer_types = {AttentionKind::kSliding, AttentionKind::kFull, AttentionKind::kSliding};
  c.sliding_window = 8;
  c.rope.yarn = true;
  c.eos_token_ids = {};
  c.pad_token_id = 0;
  c.initializer_range = 0.4;  // far from uniform, so that a wrong key changes the text
  if (vision) {
    c.use_vision = true;
    c.image_token_id = kImageToken;
    c.vision.image_size = 28;
    c.vision.embed_dim = 32;
    c.vision.num_layers = 1;
    c.vision.num_heads = 2;
    c.vision.intermediate_size = 48;
  }
  return c;
}

Tokenizer byte_tokenizer() {
  static constexpr char kBase64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string ranks;
  for (int byte = 0; byte < 256; ++byte) {
    ranks += kBase64[byte >> 2];
    ranks += kBase64[(byte & 3) << 4];
    ranks += fmt::format("== {}\n", byte);
  }
  return Tokenizer::from_tiktoken(ranks);
}

std::vector<std::int32_t> random_prompt(std::int64_t count, std::uint64_t seed) {
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<std::int32_t>(Philox{seed}(static_cast<std::uint64_t>(i))[0] % 256));
  }
  return ids;
}

std::vector<float> random_image(const Config& config, std::uint64_t seed) {
  const std::int64_t side = config.vision.image_size;
  std::vector<float> pixels;
  for (std::int64_t i = 0; i < 3 * side * side; ++i)
    pixels.push_back(Philox{seed}.normal(static_cast<std::uint64_t>(i))[0]);
  return pixels;
}

std::vector<InputRow> text_rows(const std::vector<std::int32_t>& tokens) {
  std::vector<InputRow> rows;
  for (const std::int32_t token : tokens) rows.push_back({token, {}});
  return rows;
}

std::vector<InputRow> encode_image(const Model& model, ThreadPool& pool, std::vector<float> pixels) {
  const VisionConfig& vision = model.config.vision;
  const std::int64_t hidden = model.config.hidden_size;
  Context ctx;
  ctx.pool = &pool;
  VisionActivations acts(model.config, 1);
  std::vector<float> out(static_cast<std::size_t>(vision.tokens() * hidden));
  encode_images(ctx, model, Tensor::of(pixels.data(), {1, 3, vision.image_size, vision.image_size}), acts,
                Tensor::of(out.data(), {vision.tokens(), hidden}));
  std::vector<InputRow> rows;
  for (auto at = out.begin(); at != out.end(); at += hidden) rows.push_back({0, {at, at + hidden}});
  return rows;
}

Completion plain_generate(const Model& model, ThreadPool& pool, std::vector<InputRow> rows,
                          const GenerationOptions& options, const std::vector<std::int32_t>& forbidden, int choice,
                          std::optional<TokenConstraint> constraint) {
  const std::int64_t hidden = model.config.hidden_size;
  const std::int64_t most = (static_cast<std::int64_t>(rows.size()) + options.max_new_tokens + 7) / 8 * 8;
  Context ctx;
  ctx.pool = &pool;
  const KvCache cache(model.config, {most, 1, 1, DType::kF32});  // one block holds the whole sequence
  Activations acts(model.config, 1, 1);
  BatchBuilder batch;
  std::map<std::int32_t, std::int32_t> seen;
  for (const InputRow& row : rows) {
    if (row.embed.empty()) seen[row.token] += 0;
  }
  Completion out;
  const std::vector<std::int32_t> table{0};
  for (std::size_t i = 0; static_cast<std::int64_t>(out.tokens.size()) < options.max_new_tokens; ++i) {
    const InputRow row = i < rows.size() ? rows[i] : InputRow{out.tokens[i - rows.size()], {}};
    const std::int64_t position = static_cast<std::int64_t>(i);
    batch.clear(1);
    batch.begin_sequence(static_cast<std::int32_t>(i + 1), table, table);
    batch.add_row(row.token, static_cast<std::int32_t>(i), position, position,
                  {row.embed.empty() ? nullptr : row.embed.data(), 0});
    if (i + 1 >= rows.size()) batch.want_logits();
    forward(ctx, model, batch.view(hidden), cache, acts);
    if (i + 1 < rows.size()) continue;
    std::vector<ops::TokenCount> counts;
    for (const auto& [token, count] : seen) counts.push_back({token, count});
    ops::SampleRow sample_row;
    sample_row.params = options.sampling;
    sample_row.draw = out.tokens.size();
    sample_row.stream = static_cast<std::uint64_t>(choice);
    sample_row.counts = counts;
    sample_row.bias = options.logit_bias;
    sample_row.forbidden = forbidden;
    sample_row.top_logprobs = options.logprobs;
    std::vector<std::uint32_t> mask(static_cast<std::size_t>((model.config.vocab_size + 31) / 32));
    if (constraint && !constraint->ended()) {
      constraint->allowed(mask);
      sample_row.allowed = mask;
    }
    ops::SampleResult drawn;
    ops::sample(ctx, acts.logits.slice(0, 1), {&sample_row, 1}, {&drawn, 1});
    if (constraint) constraint->accept(drawn.token);
    out.tokens.push_back(drawn.token);
    ++seen[drawn.token];
    if (options.logprobs < 0) continue;
    out.logprobs.push_back(drawn.logprob);
    out.top_logprobs.emplace_back();
    for (int k = 0; k < drawn.top_count; ++k)
      out.top_logprobs.back().push_back({drawn.top_tokens[k], drawn.top_logprobs[k]});
  }
  return out;
}

std::vector<std::int32_t> undrawable() { return {256, 257, 258, kImageToken}; }

void expect_same(const Completion& a, const Completion& b, const std::string& what) {
  EXPECT_EQ(a.tokens, b.tokens) << what;
  ASSERT_EQ(a.logprobs.size(), b.logprobs.size()) << what;
  const auto bits = [](float x) { return std::bit_cast<std::uint32_t>(x); };
  for (std::size_t i = 0; i < a.logprobs.size(); ++i) {
    ASSERT_EQ(bits(a.logprobs[i]), bits(b.logprobs[i])) << what << ", token " << i;
    ASSERT_EQ(a.top_logprobs[i].size(), b.top_logprobs[i].size()) << what << ", token " << i;
    for (std::size_t k = 0; k < a.top_logprobs[i].size(); ++k) {
      ASSERT_EQ(a.top_logprobs[i][k].token, b.top_logprobs[i][k].token) << what << ", token " << i;
      ASSERT_EQ(bits(a.top_logprobs[i][k].logprob), bits(b.top_logprobs[i][k].logprob)) << what << ", token " << i;
    }
  }
}

Request make_request(std::vector<std::int32_t> prompt, const GenerationOptions& options) {
  Request request;
  request.prompt = std::move(prompt);
  request.options = options;
  return request;
}

GenerationOptions greedy(std::int64_t max_new_tokens) {
  GenerationOptions o;
  o.sampling.temperature = 0;
  o.max_new_tokens = max_new_tokens;
  o.logprobs = 20;
  return o;
}

GenerationOptions sampled(std::int64_t max_new_tokens, std::uint64_t seed) {
  GenerationOptions o = greedy(max_new_tokens);
  o.sampling.temperature = 1.f;
  o.sampling.seed = seed;
  return o;
}

}  // namespace gov::test
