// Backward of the router and of the mixture of experts.
#include <cmath>

#include "tests/ops/backward_setup.h"
#include "tests/ops/expert_setup.h"

namespace gov::test {
namespace {

using reference::Index;

struct RouterProblem {
  DType act, weight;
  std::int64_t tokens, hidden, experts, count;
  bool aux = true, vision = true;
};

// The forward's results for random inputs whose K-th and next logit are not within reach of a rounding.
struct RouterSetup {
  Tensor x, weight, bias, vision_bias, modality, logits, indices, weights;
  std::vector<std::uint8_t> kinds;
  RouterSetup(Context& ctx, Memory& memory, const RouterProblem& p) {
    x = memory.normal(p.act, {p.tokens, p.hidden});
    weight = memory.normal(p.weight, {p.experts, p.hidden}, 1 / std::sqrt(double(p.hidden)));
    bias = memory.normal(p.weight, {p.experts});
    if (p.vision) {
      vision_bias = memory.normal(p.weight, {p.experts});
      for (std::int64_t t = 0; t < p.tokens; ++t) kinds.push_back(std::uint8_t(t % 3 == 1 ? 1 + t : 0));
      modality = memory.bytes(kinds, {p.tokens});
    }
    logits = memory.make(DType::kF32, {p.tokens, p.experts});
    indices = memory.make(DType::kI32, {p.tokens, p.count});
    weights = memory.make(DType::kF32, {p.tokens, p.count});
    call(ctx, ops::router, x, weight, bias, vision_bias, modality, logits, indices, weights);
  }
};

// Softmax over all experts of each row, and ln of the sum of exponentials.
struct FullSoftmax {
  Complexes p, log_sum;
};
FullSoftmax full_softmax(const Complexes& logits, Index experts) {
  FullSoftmax all;
  for (Index row = 0; row < logits.size(); row += experts) {
    double most = -INFINITY;
    for (Index e = 0; e < experts; ++e) most = std::max(most, logits[row + e].real());
    Complex sum = 0;
    for (Index e = 0; e < experts; ++e) sum += std::exp(logits[row + e] - most);
    for (Index e = 0; e < experts; ++e) all.p.push_back(std::exp(logits[row + e] - most) / sum);
    all.log_sum.push_back(std::log(sum) + most);
  }
  return all;
}

Doubles router_case(Context& ctx, const RouterProblem& p) {
  Memory memory(141);
  memory.aligned = p.act == DType::kBF16;
  const RouterSetup s(ctx, memory, p);
  const Tensor dweights = memory.normal(DType::kF32, {p.tokens, p.count});
  const Tensor slopes = p.aux ? memory.normal(DType::kF32, {p.experts}, 0.3) : Tensor();
  const float z_slope = p.aux ? 0.02f : 0.f;
  const Tensor dlogits = memory.make(DType::kF32, s.logits.shape);
  const Added dx(memory, s.x.shape), dweight(memory, s.weight.shape), dbias(memory, {p.experts}),
      dvision(memory, {p.experts});
  const ops::RouterGradients to{dlogits, dx.t, dweight.t, dbias.t, p.vision ? dvision.t : Tensor()};
  call(ctx, ops::router_backward, s.x, s.weight, s.modality, s.logits, s.indices, s.weights, dweights, slopes, z_slope,
       to);
  const Doubles steer = values(dweights), wanted_slopes = p.aux ? values(slopes) : Doubles(std::size_t(p.experts));
  const auto want =
      gradients({values(s.x), values(s.weight), values(s.bias), p.vision ? values(s.vision_bias) : Doubles{}},
                [&](const auto& in) {
                  const auto r = reference::router(in[0], in[1], in[2], in[3], s.kinds, std::size_t(p.hidden),
                                                   std::size_t(p.count));
                  const FullSoftmax all = full_softmax(r.logits, std::size_t(p.experts));
                  Complex loss = dot(r.weights, steer);
                  for (Index i = 0; i < all.p.size(); ++i) loss += all.p[i] * wanted_slopes[i % Index(p.experts)];
                  for (const Complex& z : all.log_sum) loss += double(z_slope) * z * z;
                  return loss;
                });
  const double terms = double(p.hidden + p.tokens + p.experts);
  const DType f32 = DType::kF32;
  EXPECT_TRUE(dx.is(want[0], gradient_tolerance(terms, want[0], f32)));
  EXPECT_TRUE(dweight.is(want[1], gradient_tolerance(terms, want[1], f32)));
  EXPECT_TRUE(dbias.is(want[2], gradient_tolerance(terms, want[2], f32)));
  if (p.vision) {
    EXPECT_TRUE(dvision.is(want[3], gradient_tolerance(terms, want[3], f32)));
  }
  Doubles all = values(dx.t);
  for (const Tensor& t : {dweight.t, dbias.t, dlogits, dvision.t}) append(all, t);
  // All frozen: the logits' gradient alone.
  const Tensor alone = memory.make(DType::kF32, dlogits.shape);
  call(ctx, ops::router_backward, s.x, s.weight, s.modality, s.logits, s.indices, s.weights, dweights, slopes, z_slope,
       ops::RouterGradients{alone, {}, {}, {}, {}});
  EXPECT_TRUE(same_bits(values(alone), values(dlogits)));
  return all;
}

Doubles router_load_case(Context& ctx, const RouterProblem& p) {
  Memory memory(142);
  const RouterSetup s(ctx, memory, p);
  const Added counts(memory, {2, p.experts}), probabilities(memory, {2, p.experts}), z(memory, {1});
  call(ctx, ops::router_load, s.logits, s.indices, s.modality, counts.t, probabilities.t, z.t);
  const Index experts = Index(p.experts), per_token = Index(p.count);
  const Doubles logits = values(s.logits);
  const FullSoftmax all = full_softmax(Complexes(logits.begin(), logits.end()), experts);
  Doubles want_counts(2 * experts), want_p(2 * experts), want_z(1);
  const std::vector<std::int32_t> indices = ints_of(s.indices);
  for (Index t = 0; t < Index(p.tokens); ++t) {
    const Index row = p.vision && s.kinds[t] != 0 ? experts : 0;
    for (Index k = 0; k < per_token; ++k) want_counts[row + Index(indices[t * per_token + k])] += 1;
    for (Index e = 0; e < experts; ++e) want_p[row + e] += all.p[t * experts + e].real();
    want_z[0] += all.log_sum[t].real() * all.log_sum[t].real();
  }
  EXPECT_TRUE(counts.is(want_counts, {2 * kEps, 2 * kEps}));
  EXPECT_TRUE(probabilities.is(want_p, gradient_tolerance(double(p.tokens), want_p, DType::kF32)));
  EXPECT_TRUE(z.is(want_z, gradient_tolerance(double(p.tokens), want_z, DType::kF32)));
  Doubles result = values(counts.t);
  append(result, probabilities.t);
  append(result, z.t);
  return result;
}

// Gradients of the experts: of their dense values, whatever their form.
struct ExpertResults {
  Tensor out, dx, dweights;
  Added gate_up, gate_up_bias, down, down_bias;
  ExpertResults(Memory& memory, const MoeProblem& p)
      : out(memory.zeros(DType::kF32, {p.tokens, p.hidden})),
        dx(memory.make(p.act, {p.tokens, p.hidden})),
        dweights(memory.make(DType::kF32, {p.tokens, p.per_token})),
        gate_up(memory, {p.experts, 2 * p.inner, p.hidden}),
        gate_up_bias(memory, {p.experts, 2 * p.inner}),
        down(memory, {p.experts, p.hidden, p.inner}),
        down_bias(memory, {p.experts, p.hidden}) {}
};

void run_moe_backward(Context& ctx, const MoeSetup& s, const Tensor& h, const Tensor& dout, const Tensor& dx,
                      const Tensor& dweights, const ops::ExpertGradients& gate_up, const ops::ExpertGradients& down) {
  call(ctx, ops::moe_backward, s.x, s.indices, s.weights, s.gate_up, s.down, 1.702f, 7.f, h, dout, dx, dweights,
       gate_up, down);
}

struct MoeGradients {
  Doubles dx, dweights, gate_up, gate_up_bias, down, down_bias;
  Doubles h;  // of moe_by_hand: unrounded
};
MoeGradients moe_by_steps(const MoeSetup& s, const Doubles& dout) {
  const auto g = gradients(
      {values(s.x), values(s.weights), s.experts.gate_up, s.experts.gate_up_bias, s.experts.down, s.experts.down_bias},
      [&](const auto& in) {
        const reference::Experts<Complex> e{in[2],          in[3], in[4], in[5], s.experts.count, s.experts.hidden,
                                            s.experts.inner};
        return dot(reference::moe(in[0], ints_of(s.indices), in[1], e, double(1.702f), 7), dout);
      });
  return {g[0], g[1], g[2], g[3], g[4], g[5], {}};
}

// The chain rule by hand, in double, for sizes where complex steps would take minutes; the small cases say that both
// are the same. At `kept`, what the forward left as h: rounding may have carried it across a clamp, where the slope
// jumps.
MoeGradients moe_by_hand(const MoeSetup& s, const Doubles& dout, const Doubles& kept) {
  const reference::Experts<double>& e = s.experts;
  const Doubles x = values(s.x), weights = values(s.weights);
  const std::vector<std::int32_t> indices = ints_of(s.indices);
  const Index hidden = e.hidden, inner = e.inner, per_token = Index(s.problem.per_token);
  MoeGradients g{Doubles(x.size()),
                 Doubles(weights.size()),
                 Doubles(e.gate_up.size()),
                 Doubles(e.gate_up_bias.size()),
                 Doubles(e.down.size()),
                 Doubles(e.down_bias.size()),
                 {}};
  for (Index i = 0; i < indices.size(); ++i) {
    const Index token = i / per_token, expert = Index(indices[i]);
    const double *up = &e.gate_up[expert * 2 * inner * hidden], *down = &e.down[expert * hidden * inner];
    const double *in = &x[token * hidden], *d = &dout[token * hidden];
    Doubles h(2 * inner), da(inner);
    for (Index r = 0; r < 2 * inner; ++r) {
      h[r] = e.gate_up_bias[expert * 2 * inner + r];
      for (Index c = 0; c < hidden; ++c) h[r] += up[r * hidden + c] * in[c];
    }
    g.h.insert(g.h.end(), h.begin(), h.end());
    std::copy_n(&kept[i * 2 * inner], 2 * inner, h.begin());
    const Doubles a = reference::swiglu(h, double(1.702f), 7);
    for (Index r = 0; r < hidden; ++r) {
      double y = e.down_bias[expert * hidden + r];
      for (Index c = 0; c < inner; ++c) {
        y += down[r * inner + c] * a[c];
        da[c] += weights[i] * d[r] * down[r * inner + c];
        g.down[(expert * hidden + r) * inner + c] += weights[i] * d[r] * a[c];
      }
      g.dweights[i] += y * d[r];
      g.down_bias[expert * hidden + r] += weights[i] * d[r];
    }
    for (Index r = 0; r < 2 * inner; ++r) {
      Complexes step(h.begin() + std::ptrdiff_t(r / 2 * 2), h.begin() + std::ptrdiff_t(r / 2 * 2 + 2));
      step[r % 2] += Complex(0, 1e-50);
      const double dh = da[r / 2] * reference::swiglu(step, double(1.702f), 7)[0].imag() / 1e-50;
      g.gate_up_bias[expert * 2 * inner + r] += dh;
      for (Index c = 0; c < hidden; ++c) {
        g.gate_up[(expert * 2 * inner + r) * hidden + c] += dh * in[c];
        g.dx[token * hidden + c] += dh * up[r * hidden + c];
      }
    }
  }
  return g;
}

Doubles moe_case(Context& ctx, const MoeProblem& p, bool by_steps) {
  Memory memory(143);
  memory.aligned = p.act == DType::kBF16;
  const MoeSetup s(memory, p);
  ExpertResults r(memory, p);
  const Tensor h = memory.make(p.act, {p.tokens * p.per_token, 2 * p.inner});
  call(ctx, ops::moe_forward, s.x, s.indices, s.weights, s.gate_up, s.down, 1.702f, 7.f, r.out, h);
  EXPECT_TRUE(close(values(r.out), s.reference(), s.tolerance()));
  const Tensor dout = memory.normal(p.act, s.x.shape);
  run_moe_backward(ctx, s, h, dout, r.dx, r.dweights, {r.gate_up.t, r.gate_up_bias.t}, {r.down.t, r.down_bias.t});
  const MoeGradients want = by_steps ? moe_by_steps(s, values(dout)) : moe_by_hand(s, values(dout), values(h));
  if (!by_steps) {
    EXPECT_TRUE(close(values(h), want.h, rounded(sum_tolerance(double(p.hidden), largest(want.h), 6), p.act, want.h)));
  }
  const double terms = double(p.hidden + 2 * p.inner + p.tokens * p.per_token);
  const auto tolerance = [&](const Doubles& g) { return gradient_tolerance(terms, g, p.act); };
  EXPECT_TRUE(close(values(r.dx), want.dx, tolerance(want.dx)));
  EXPECT_TRUE(close(values(r.dweights), want.dweights, tolerance(want.dweights)));
  EXPECT_TRUE(r.gate_up.is(want.gate_up, tolerance(want.gate_up)));
  EXPECT_TRUE(r.gate_up_bias.is(want.gate_up_bias, tolerance(want.gate_up_bias)));
  EXPECT_TRUE(r.down.is(want.down, tolerance(want.down)));
  EXPECT_TRUE(r.down_bias.is(want.down_bias, tolerance(want.down_bias)));
  Doubles all = values(r.dx);
  for (const Tensor& t : {r.dweights, r.gate_up.t, r.gate_up_bias.t, r.down.t, r.down_bias.t, r.out}) append(all, t);
  // h computed again, experts frozen: the same bits. And without dx.
  ExpertResults again(memory, p);
  run_moe_backward(ctx, s, Tensor(), dout, again.dx, again.dweights, {}, {});
  EXPECT_TRUE(same_bits(values(again.dx), values(r.dx)));
  EXPECT_TRUE(same_bits(values(again.dweights), values(r.dweights)));
  // Overwritten instead of added to.
  run_moe_backward(ctx, s, h, dout, again.dx, again.dweights, {again.gate_up.t, again.gate_up_bias.t, false},
                   {again.down.t, again.down_bias.t, false});
  EXPECT_TRUE(close(values(again.gate_up.t), want.gate_up, tolerance(want.gate_up)));
  EXPECT_TRUE(close(values(again.gate_up_bias.t), want.gate_up_bias, tolerance(want.gate_up_bias)));
  EXPECT_TRUE(close(values(again.down.t), want.down, tolerance(want.down)));
  EXPECT_TRUE(close(values(again.down_bias.t), want.down_bias, tolerance(want.down_bias)));
  const Tensor down = memory.floats(r.down.before, r.down.t.shape);
  run_moe_backward(ctx, s, Tensor(), dout, Tensor(), again.dweights, {}, {down, {}});
  EXPECT_TRUE(same_bits(values(down), values(r.down.t)));
  // The forward that keeps nothing.
  call(ctx, ops::moe_forward, s.x, s.indices, s.weights, s.gate_up, s.down, 1.702f, 7.f, again.out, Tensor());
  EXPECT_TRUE(same_bits(values(again.out), values(r.out)));
  return all;
}

}  // namespace

std::vector<OpCase> backward_expert_cases() {
  std::vector<OpCase> cases;
  for (const DType act : kActTypes) {
    const bool cuda_only = act == DType::kBF16;
    const auto router = [&](const std::string& name, const RouterProblem& p) {
      cases.push_back(
          {"router_backward_" + name + act_suffix(act), [=](Context& c) { return router_case(c, p); }, cuda_only});
      cases.push_back(
          {"router_load_" + name + act_suffix(act), [=](Context& c) { return router_load_case(c, p); }, cuda_only});
    };
    router("f32", {act, DType::kF32, 9, 10, 6, 4});
    router("bf16_no_aux", {act, DType::kBF16, 7, 33, 5, 2, false});
    router("f16_text_only", {act, DType::kF16, 5, 7, 3, 3, true, false});
    router("one_expert", {act, DType::kF32, 4, 6, 1, 1});
    router("many_experts", {act, DType::kBF16, 70, 8, 130, 4});
    router("16_experts", {act, DType::kBF16, 40, 32, 16, 4});
    const auto moe = [&](const std::string& name, MoeProblem p, bool by_steps) {
      p.act = act;
      cases.push_back(
          {"moe_backward_" + name + act_suffix(act), [=](Context& c) { return moe_case(c, p, by_steps); }, cuda_only});
    };
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16})
      moe(fmt::format("steps_{}", dtype_name(dtype)), {3, 2, 4, 5, 6, false, dtype},
          true);  // some experts without rows
    moe("steps_one", {1, 1, 1, 1, 1, false, DType::kF32}, true);
    moe("odd", {17, 3, 5, 33, 35, false, DType::kBF16}, false);
    moe("unused_experts", {2, 2, 30, 40, 20, false, DType::kF32}, false);
    moe("many_tokens", {150, 2, 2, 100, 130, false, DType::kBF16}, false);
    moe("mxfp4", {5, 4, 6, 96, 32, true, DType::kBF16}, false);
    moe("mxfp4_many_tokens", {140, 2, 3, 64, 160, true, DType::kF32}, false);
  }
  return cases;
}

}  // namespace gov::test
