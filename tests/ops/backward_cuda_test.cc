// The fast kernels of the derivatives on a GPU, at sizes of several tiles, compared with the exact ones, which the
// cases of the registry compare with the reference: the same values, given as F32, take those.
#include <algorithm>

#include "tests/ops/attention_setup.h"
#include "tests/ops/backward_setup.h"
#include "tests/ops/expert_setup.h"

namespace gov::test {
namespace {

class BackwardCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = no_cuda_reason(); !reason.empty()) GTEST_SKIP() << reason;
    memory.aligned = true;
  }
  Tensor wide(const Tensor& t) { return t ? memory.floats(values(t), t.shape) : Tensor(); }
  Context& ctx() { return cuda_context(); }
  Memory memory{171};
};

// BF16 operands, results and intermediate values: each rounding is 2^-9 of a value at most, and at most four lie behind
// each other. terms: where they cancel, the size of what is added up.
testing::AssertionResult near(const Tensor& got, const Tensor& want, double relative = 8e-3,
                              const Doubles& terms = {}) {
  const Doubles g = values(got), w = values(want);
  Doubles difference = g;
  for (std::size_t i = 0; i < g.size(); ++i) difference[i] -= w[i];
  const Doubles& scale = terms.empty() ? w : terms;
  const double error = norm(difference) / std::max(norm(scale), 1e-30),
               most = largest(difference) / std::max(largest(scale), 1e-30);
  if (error <= relative && most <= 5 * relative) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "relative error " << error << ", largest " << most << ", norm " << norm(w);
}

enum class Routes { kRandom, kOneExpert, kSkipped };

struct ExpertRun {
  Tensor out, h, dx, dweights, up, up_bias, down, down_bias;
  Tensor over_up, over_bias;  // overwritten
};

void check_experts(Context& ctx, Memory& memory, MoeProblem p, Routes routes) {
  p.act = p.dtype = DType::kBF16;
  MoeSetup s(memory, p);
  std::vector<std::int32_t> chosen = ints_of(s.indices);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (routes == Routes::kOneExpert) chosen[i] = std::int32_t(p.experts - 1);
    if (routes == Routes::kSkipped && i % 3 == 0) chosen[i] = i % 2 == 0 ? -1 : std::int32_t(p.experts);
  }
  s.indices = memory.ints(chosen, s.indices.shape);
  s.gate_up.moderate_scales = s.down.moderate_scales = true;
  const Tensor dout = memory.normal(DType::kF32, s.x.shape);
  const auto wide = [&](const Tensor& t) { return memory.floats(values(t), t.shape); };
  // kept: take the derivative at this h, not at the run's own. Rounding may have carried one across a clamp of swiglu,
  // where the slope jumps.
  const auto run = [&](bool fast, bool keep, const Tensor& kept) {
    ExpertRun r;
    const DType act = fast ? DType::kBF16 : DType::kF32;
    ops::ExpertProjection gate_up = s.gate_up, down = s.down;
    if (!fast) {
      gate_up.weight = memory.floats(s.experts.gate_up, {p.experts, 2 * p.inner, p.hidden});
      down.weight = memory.floats(s.experts.down, {p.experts, p.hidden, p.inner});
      gate_up.blocks = gate_up.scales = down.blocks = down.scales = Tensor();
    }
    const Tensor x = fast ? s.x : wide(s.x);
    const Tensor h = memory.make(act, {p.tokens * p.per_token, 2 * p.inner});
    r.h = h;
    r.out = memory.zeros(DType::kF32, s.x.shape);
    r.dx = memory.make(act, s.x.shape);
    r.dweights = memory.make(DType::kF32, s.weights.shape);
    r.up = memory.zeros(DType::kF32, {p.experts, 2 * p.inner, p.hidden});
    r.up_bias = memory.zeros(DType::kF32, {p.experts, 2 * p.inner});
    r.down = memory.zeros(DType::kF32, {p.experts, p.hidden, p.inner});
    r.down_bias = memory.zeros(DType::kF32, {p.experts, p.hidden});
    call(ctx, ops::moe_forward, x, s.indices, s.weights, gate_up, down, 1.702f, 7.f, r.out, keep ? h : Tensor());
    const Tensor at = kept ? kept : keep ? h : Tensor();
    call(ctx, ops::moe_backward, x, s.indices, s.weights, gate_up, down, 1.702f, 7.f, at, dout, r.dx, r.dweights,
         ops::ExpertGradients{r.up, r.up_bias}, ops::ExpertGradients{r.down, r.down_bias});
    r.over_up = memory.normal(DType::kF32, r.up.shape);
    r.over_bias = memory.normal(DType::kF32, r.up_bias.shape);
    call(ctx, ops::moe_backward, x, s.indices, s.weights, gate_up, down, 1.702f, 7.f, at, dout, r.dx, r.dweights,
         ops::ExpertGradients{r.over_up, r.over_bias, false}, ops::ExpertGradients{});
    return r;
  };
  const ExpertRun fast = run(true, true, {}), again = run(true, false, {}), exact = run(false, true, wide(fast.h));
  EXPECT_TRUE(near(fast.out, exact.out)) << "out";
  EXPECT_TRUE(near(fast.dx, exact.dx)) << "dx";
  EXPECT_TRUE(near(fast.dweights, exact.dweights)) << "dweights";
  EXPECT_TRUE(near(fast.up, exact.up)) << "gate_up";
  EXPECT_TRUE(near(fast.up_bias, exact.up_bias)) << "gate_up's bias";
  EXPECT_TRUE(near(fast.down, exact.down)) << "down";
  EXPECT_TRUE(near(fast.down_bias, exact.down_bias)) << "down's bias";
  if (routes != Routes::kSkipped) {
    EXPECT_TRUE(near(fast.h, exact.h)) << "h";
  }
  // What is overwritten is what would be added to zeros.
  for (const auto& [one, two] : {std::pair(&fast.out, &again.out),
                                 {&fast.up, &fast.over_up},
                                 {&fast.up_bias, &fast.over_bias},
                                 {&fast.dx, &again.dx},
                                 {&fast.up, &again.up},
                                 {&fast.dweights, &again.dweights},
                                 {&fast.down, &again.down},
                                 {&fast.up_bias, &again.up_bias},
                                 {&fast.down_bias, &again.down_bias}})
    EXPECT_TRUE(same_bits(values(*one), values(*two)));
}

TEST_F(BackwardCuda, Experts) {
  for (const MoeProblem& p :
       {MoeProblem{40, 2, 4, 64, 48}, MoeProblem{700, 4, 8, 400, 208}, MoeProblem{1500, 2, 3, 208, 400},
        MoeProblem{1200, 4, 5, 592, 784}, MoeProblem{1, 1, 3, 16, 16}, MoeProblem{257, 1, 2, 192, 192}}) {
    SCOPED_TRACE(fmt::format("{} tokens, {} experts, {} x {}", p.tokens, p.experts, p.hidden, p.inner));
    check_experts(ctx(), memory, p, Routes::kRandom);
  }
}
TEST_F(BackwardCuda, ExpertsOneFull) { check_experts(ctx(), memory, {500, 2, 5, 192, 96}, Routes::kOneExpert); }
TEST_F(BackwardCuda, ExpertsSkipped) { check_experts(ctx(), memory, {390, 3, 6, 144, 80}, Routes::kSkipped); }
TEST_F(BackwardCuda, ExpertsMxfp4) { check_experts(ctx(), memory, {600, 4, 6, 416, 160, true}, Routes::kRandom); }

void check_attention(Context& ctx, Memory& memory, AttentionProblem p) {
  p.contiguous = true;
  p.keys = p.rows;
  p.act = DType::kBF16;
  AttentionSetup s(memory, p);
  const Tensor dout = memory.normal(DType::kBF16, s.args.q.shape);
  const auto wide = [&](const Tensor& t) { return memory.floats(values(t), t.shape); };
  struct Result {
    Tensor out, lse, dq, dk, dv, dsinks;
  };
  const auto run = [&](bool fast) {
    const DType act = fast ? DType::kBF16 : DType::kF32;
    ops::AttentionArgs args = s.args;
    if (!fast) args.q = wide(args.q), args.k = wide(args.k), args.v = wide(args.v);
    Result r;
    args.lse = r.lse = memory.make(DType::kF32, {args.q.shape[0], p.heads});
    r.out = memory.make(act, args.q.shape);
    r.dq = memory.make(act, args.q.shape);
    r.dk = memory.make(act, args.k.shape);
    r.dv = memory.make(act, args.k.shape);
    r.dsinks = p.sinks ? memory.zeros(DType::kF32, {p.heads}) : Tensor();
    call(ctx, ops::attention, args, r.out);
    call(ctx, ops::attention_backward, args, r.out, fast ? dout : wide(dout), r.dq, r.dk, r.dv, r.dsinks);
    return r;
  };
  const Result fast = run(true), again = run(true), exact = run(false);
  EXPECT_TRUE(near(fast.lse, exact.lse, 1e-4)) << "lse";
  EXPECT_TRUE(near(fast.out, exact.out)) << "out";
  // A row that sees itself alone, without a sink, has the weight 1 whatever its score: ds is dout . v - dout . out, the
  // same twice.
  Doubles dq_terms, dk_terms;
  if (p.window == 1 && !p.sinks) {
    const Doubles q = values(s.args.q), k = values(s.args.k), v = values(s.args.v), d = values(dout);
    for (std::size_t i = 0; i < q.size(); i += 64) {  // as many kv heads as heads
      double sum = 0;
      for (std::size_t j = i; j < i + 64; ++j) sum += d[j] * v[j];
      for (std::size_t j = i; j < i + 64; ++j) {
        dq_terms.push_back(double(s.args.scale) * sum * k[j]);
        dk_terms.push_back(double(s.args.scale) * sum * q[j]);
      }
    }
  }
  EXPECT_TRUE(near(fast.dq, exact.dq, 8e-3, dq_terms)) << "dq";
  EXPECT_TRUE(near(fast.dk, exact.dk, 8e-3, dk_terms)) << "dk";
  EXPECT_TRUE(near(fast.dv, exact.dv)) << "dv";
  if (p.sinks) {
    EXPECT_TRUE(near(fast.dsinks, exact.dsinks, 3e-2)) << "dsinks";
  }
  EXPECT_TRUE(same_bits(values(fast.dq), values(again.dq)));
  EXPECT_TRUE(same_bits(values(fast.dk), values(again.dk)));
  EXPECT_TRUE(same_bits(values(fast.dv), values(again.dv)));
}

TEST_F(BackwardCuda, Attention) {
  for (const int window : {0, 1, 37, 128}) {
    for (const bool causal : {true, false}) {
      for (const auto& [heads, kv_heads] : {std::pair{16, 2}, {8, 8}, {6, 2}, {4, 1}}) {
        SCOPED_TRACE(fmt::format("window {} causal {} heads {}/{}", window, causal, heads, kv_heads));
        check_attention(ctx(), memory,
                        {.rows = {130, 1, 700, 64, 0, 33},
                         .keys = {},
                         .heads = heads,
                         .kv_heads = kv_heads,
                         .causal = causal,
                         .sinks = kv_heads != 8,
                         .window = window});
      }
    }
  }
}

TEST_F(BackwardCuda, Linear) {
  for (const auto& [rows, in, outputs] : {std::array{1000, 512, 776}, {77, 64, 40}, {4096, 128, 32}}) {
    SCOPED_TRACE(rows);
    const Tensor x = memory.normal(DType::kBF16, {rows, in}), weight = memory.normal(DType::kBF16, {outputs, in});
    const Tensor dout = memory.normal(DType::kBF16, {rows, outputs});
    const auto run = [&](bool fast, const Tensor& dx, const Tensor& dweight, const Tensor& dbias) {
      call(ctx(), ops::linear_backward, fast ? x : wide(x), fast ? weight : wide(weight), fast ? dout : wide(dout), dx,
           dweight, dbias, false);
    };
    const Tensor dx = memory.make(DType::kBF16, x.shape), dweight = memory.zeros(DType::kF32, weight.shape);
    const Tensor dbias = memory.zeros(DType::kF32, {outputs});
    const Tensor want_dx = memory.make(DType::kF32, x.shape), want_dweight = memory.zeros(DType::kF32, weight.shape);
    const Tensor want_dbias = memory.zeros(DType::kF32, {outputs});
    run(true, dx, dweight, dbias);
    run(false, want_dx, want_dweight, want_dbias);
    EXPECT_TRUE(near(dx, want_dx));
    EXPECT_TRUE(near(dweight, want_dweight, 1e-5));
    EXPECT_TRUE(near(dbias, want_dbias, 1e-5));
  }
}

TEST_F(BackwardCuda, Head) {
  constexpr std::int64_t kRows = 300, kHidden = 256;
  for (const std::int64_t vocabulary : {5000, 4999, 70'000}) {
    SCOPED_TRACE(vocabulary);
    const Tensor x = memory.normal(DType::kBF16, {kRows, kHidden});
    const Tensor weight = memory.normal(DType::kBF16, {vocabulary, kHidden}, 0.1);
    std::vector<std::int32_t> targets;
    for (std::int64_t r = 0; r < kRows; ++r) targets.push_back(r % 9 == 4 ? -1 : std::int32_t(r * 7919 % vocabulary));
    const Tensor target = memory.ints(targets), factors = memory.normal(DType::kF32, {kRows}, 1, 2);
    struct Result {
      Tensor losses, dx, dweight;
    };
    const auto run = [&](bool fast) {
      const Tensor logits = memory.make(DType::kF32, {128, vocabulary});
      const Result r{memory.make(DType::kF32, {kRows}), memory.make(fast ? DType::kBF16 : DType::kF32, x.shape),
                     memory.zeros(DType::kF32, weight.shape)};
      call(ctx(), ops::linear_cross_entropy, fast ? x : wide(x), fast ? weight : wide(weight), target, factors, logits,
           r.losses, r.dx, r.dweight);
      return r;
    };
    const Result fast = run(true), again = run(true), exact = run(false);
    EXPECT_TRUE(near(fast.losses, exact.losses, 1e-5));
    EXPECT_TRUE(near(fast.dx, exact.dx));
    EXPECT_TRUE(near(fast.dweight, exact.dweight));
    EXPECT_TRUE(same_bits(values(fast.dweight), values(again.dweight)));
    EXPECT_TRUE(same_bits(values(fast.dx), values(again.dx)));
  }
}

TEST_F(BackwardCuda, EmbeddingOfManyRows) {
  constexpr std::int64_t kRows = 3000, kWidth = 72, kVocabulary = 50;
  std::vector<std::int32_t> ids;
  Random random{5};
  for (std::int64_t i = 0; i < kRows; ++i) ids.push_back(std::int32_t(random.below(kVocabulary + 4)) - 4);
  const Tensor dout = memory.normal(DType::kF32, {kRows, kWidth}),
               table = memory.normal(DType::kF32, {kVocabulary, kWidth});
  std::vector<float> want(std::size_t(kVocabulary * kWidth));
  std::copy_n(table.as<float>(), want.size(), want.begin());
  for (std::int64_t i = 0; i < kRows; ++i)
    for (std::int64_t c = 0; ids[std::size_t(i)] >= 0 && c < kWidth; ++c)
      want[std::size_t(ids[std::size_t(i)] * kWidth + c)] += dout.as<float>()[i * kWidth + c];
  call(ctx(), ops::embedding_backward, memory.ints(ids), dout, table);
  EXPECT_TRUE(same_bits(values(table), Doubles(want.begin(), want.end())));
}

}  // namespace
}  // namespace gov::test
