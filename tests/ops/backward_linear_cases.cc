// Backward of products: linear, patch_embed, and the head with its loss.
#include <cmath>

#include "tests/ops/backward_setup.h"

namespace gov::test {
namespace {

struct LinearProblem {
  DType act, weight;
  std::int64_t tokens, in, outputs;
  bool aligned = false;
};

// dx [T, in], dweight [out, in] and dbias [out] in double.
struct LinearGradients {
  Doubles dx, dweight, dbias;
};
LinearGradients linear_gradients(const Doubles& x, const Doubles& weight, const Doubles& dout, std::size_t in) {
  const std::size_t outputs = weight.size() / in;
  LinearGradients g{Doubles(x.size()), Doubles(weight.size()), Doubles(outputs)};
  for (std::size_t t = 0; t < dout.size() / outputs; ++t)
    for (std::size_t o = 0; o < outputs; ++o) {
      const double d = dout[t * outputs + o];
      g.dbias[o] += d;
      for (std::size_t i = 0; i < in; ++i) {
        g.dx[t * in + i] += d * weight[o * in + i];
        g.dweight[o * in + i] += d * x[t * in + i];
      }
    }
  return g;
}

Doubles linear_case(Context& ctx, const LinearProblem& p) {
  Memory memory(121);
  memory.aligned = p.aligned;
  const Tensor x = memory.normal(p.act, {p.tokens, p.in}), weight = memory.normal(p.weight, {p.outputs, p.in}, 0.5);
  const Tensor dout = memory.normal(p.act, {p.tokens, p.outputs}), dx = memory.make(p.act, x.shape);
  const Added dweight(memory, weight.shape), dbias(memory, {p.outputs});
  call(ctx, ops::linear_backward, x, weight, dout, dx, dweight.t, dbias.t, false);
  const LinearGradients want = linear_gradients(values(x), values(weight), values(dout), std::size_t(p.in));
  const Tolerance of_x = gradient_tolerance(double(p.outputs), want.dx, DType::kF32);
  EXPECT_TRUE(close(values(dx), want.dx, rounded(of_x, p.act, want.dx)));
  EXPECT_TRUE(dweight.is(want.dweight, gradient_tolerance(double(p.tokens), want.dweight, DType::kF32)));
  EXPECT_TRUE(dbias.is(want.dbias, gradient_tolerance(double(p.tokens), want.dbias, DType::kF32)));
  Doubles all = values(dx);
  append(all, dweight.t);
  append(all, dbias.t);
  // Each gradient alone; x is not needed without dweight; dx added to.
  const Added sum(memory, x.shape);
  call(ctx, ops::linear_backward, Tensor(), weight, dout, sum.t, Tensor(), Tensor(), true);
  EXPECT_TRUE(sum.is(want.dx, of_x));
  const Tensor weight_only = memory.floats(dweight.before, weight.shape);
  call(ctx, ops::linear_backward, x, weight, dout, Tensor(), weight_only, Tensor(), false);
  EXPECT_TRUE(same_bits(values(weight_only), values(dweight.t)));
  return all;
}

// What linear_gradients() says is what complex steps say.
Doubles linear_by_steps(Context& ctx) {
  Memory memory(122);
  const Tensor x = memory.normal(DType::kF32, {3, 4}), weight = memory.normal(DType::kF32, {5, 4});
  const Tensor dout = memory.normal(DType::kF32, {3, 5}), dx = memory.make(DType::kF32, x.shape);
  const Added dweight(memory, weight.shape), dbias(memory, {5});
  call(ctx, ops::linear_backward, x, weight, dout, dx, dweight.t, dbias.t, false);
  const auto want = gradients({values(x), values(weight), Doubles(5)}, [&](const auto& in) {
    return dot(reference::linear(in[0], in[1], in[2], 4), values(dout));
  });
  EXPECT_TRUE(close(values(dx), want[0], gradient_tolerance(5, want[0], DType::kF32)));
  EXPECT_TRUE(dweight.is(want[1], gradient_tolerance(3, want[1], DType::kF32)));
  EXPECT_TRUE(dbias.is(want[2], gradient_tolerance(3, want[2], DType::kF32)));
  return values(dx);
}

Doubles patch_case(Context& ctx, DType act, std::int64_t patch) {
  Memory memory(123);
  constexpr std::int64_t kOutputs = 6, kHeight = 9, kWidth = 10;
  const Tensor pixels = memory.normal(DType::kF32, {2, 3, kHeight, kWidth});
  const std::int64_t patches = (kHeight / patch) * (kWidth / patch);
  const Tensor dout = memory.normal(act, {2, patches, kOutputs});
  const Added dweight(memory, {kOutputs, 3, patch, patch}), dbias(memory, {kOutputs});
  call(ctx, ops::patch_embed_backward, pixels, patch, dout, dweight.t, dbias.t);
  const reference::PatchShape shape{2, 3, kHeight, kWidth, std::size_t(patch), kOutputs};
  Doubles wide = values(pixels);
  if (act == DType::kBF16) {  // the operands of the tensor cores
    for (double& v : wide) v = double(to_f32(to_bf16(float(v))));
  }
  const Complexes fixed(wide.begin(), wide.end());
  const auto want = gradients({Doubles(dweight.before.size()), Doubles(kOutputs)}, [&](const auto& in) {
    return dot(reference::patch_embed(fixed, in[0], in[1], shape), values(dout));
  });
  // Pixels may be taken as they are, or rounded.
  EXPECT_TRUE(
      dweight.is(want[0], rounded(gradient_tolerance(double(2 * patches), want[0], DType::kF32), act, want[0])));
  EXPECT_TRUE(dbias.is(want[1], gradient_tolerance(double(2 * patches), want[1], DType::kF32)));
  Doubles all = values(dweight.t);
  append(all, dbias.t);
  const Tensor again = memory.floats(dweight.before, dweight.t.shape);
  call(ctx, ops::patch_embed_backward, pixels, patch, dout, again, Tensor());
  EXPECT_TRUE(same_bits(values(again), values(dweight.t)));
  return all;
}

struct HeadProblem {
  DType act, weight;
  std::int64_t rows, hidden, vocabulary, chunk;
  bool aligned = false;
};

Doubles head_case(Context& ctx, const HeadProblem& p) {
  Memory memory(124);
  memory.aligned = p.aligned;
  const Tensor x = memory.normal(p.act, {p.rows, p.hidden}), weight = memory.normal(p.weight, {p.vocabulary, p.hidden});
  std::vector<std::int32_t> targets;
  Doubles factors;
  for (std::int64_t r = 0; r < p.rows; ++r) {
    targets.push_back(r % 5 == 3 ? -1 : std::int32_t((r * 7) % p.vocabulary));
    factors.push_back(r % 7 == 2 ? 0 : 0.25 * double(1 + r % 3));
  }
  const Tensor row_weights = memory.floats(factors, {p.rows}), target = memory.ints(targets);
  const Tensor logits = memory.make(DType::kF32, {p.chunk, p.vocabulary}), losses = memory.make(DType::kF32, {p.rows});
  const Tensor dx = memory.make(p.act, x.shape);
  const Added dweight(memory, weight.shape);
  call(ctx, ops::linear_cross_entropy, x, weight, target, row_weights, logits, losses, dx, dweight.t);
  const Doubles wide_x = values(x), wide_weight = values(weight);
  const Doubles want_losses =
      reference::cross_entropy(reference::linear(wide_x, wide_weight, {}, std::size_t(p.hidden)), targets);
  const double terms = double(p.hidden) + 16;
  EXPECT_TRUE(close(values(losses), want_losses, sum_tolerance(terms, std::max(1.0, largest(want_losses)), 4)));
  const auto want = gradients({wide_x, wide_weight}, [&](const auto& in) {
    return dot(reference::cross_entropy(reference::linear(in[0], in[1], {}, std::size_t(p.hidden)), targets), factors);
  });
  const double sums = terms + double(p.vocabulary + p.rows);
  // The slopes of the logits may be rounded to the type of the activations.
  EXPECT_TRUE(close(values(dx), want[0], gradient_tolerance(sums, want[0], p.act)));
  EXPECT_TRUE(dweight.is(want[1], gradient_tolerance(sums, want[1], p.act)));
  Doubles all = values(dx);
  append(all, dweight.t);
  append(all, losses);
  // Losses alone; and dx without dweight, whatever the chunk.
  const Tensor only = memory.make(DType::kF32, {p.rows}), dx_only = memory.make(p.act, x.shape);
  const Tensor whole = memory.make(DType::kF32, {p.rows + 3, p.vocabulary});
  call(ctx, ops::linear_cross_entropy, x, weight, target, row_weights, logits, only, Tensor(), Tensor());
  EXPECT_TRUE(same_bits(values(only), values(losses)));
  call(ctx, ops::linear_cross_entropy, x, weight, target, row_weights, whole, only, dx_only, Tensor());
  EXPECT_TRUE(agree(ctx, values(only), values(losses), sum_tolerance(terms, std::max(1.0, largest(want_losses)), 8)));
  EXPECT_TRUE(agree(ctx, values(dx_only), values(dx), gradient_tolerance(sums, want[0], p.act, 12)));
  return all;
}

}  // namespace

std::vector<OpCase> backward_linear_cases() {
  std::vector<OpCase> cases;
  const auto linear = [&](const LinearProblem& p, bool cuda_only = false) {
    cases.push_back({fmt::format("linear_backward_{}_{}x{}x{}{}{}", dtype_name(p.weight), p.tokens, p.in, p.outputs,
                                 p.aligned ? "_aligned" : "", act_suffix(p.act)),
                     [=](Context& c) { return linear_case(c, p); }, cuda_only || p.act == DType::kBF16});
  };
  for (const DType act : kActTypes) {
    for (const DType weight : {DType::kF32, DType::kBF16, DType::kF16}) {
      linear({act, weight, 5, 33, 17});
      linear({act, weight, 1, 1, 1});
    }
    linear({act, DType::kBF16, 300, 100, 260});
    linear({act, DType::kF32, 130, 98, 270});
    linear({act, DType::kBF16, 64, 64, 64, true});
    linear({act, DType::kBF16, 256, 320, 384, true}, true);
    linear({act, DType::kF32, 200, 320, 384, true}, true);
    const bool cuda_only = act == DType::kBF16;
    for (const std::int64_t patch : {2, 3})
      cases.push_back({fmt::format("patch_embed_backward_{}{}", patch, act_suffix(act)),
                       [=](Context& c) { return patch_case(c, act, patch); }, cuda_only});
    for (const auto& [weight, chunk] : {std::pair(DType::kF32, 4), {DType::kBF16, 3}, {DType::kF16, 64}}) {
      const HeadProblem p{act, weight, 11, 10, 23, chunk};
      cases.push_back({fmt::format("linear_cross_entropy_{}_{}{}", dtype_name(weight), chunk, act_suffix(act)),
                       [=](Context& c) { return head_case(c, p); }, cuda_only});
    }
    const HeadProblem fast{act, DType::kBF16, 24, 16, 72, 16, true};
    cases.push_back(
        {"linear_cross_entropy_aligned" + act_suffix(act), [=](Context& c) { return head_case(c, fast); }, cuda_only});
  }
  cases.push_back({"linear_backward_by_steps", linear_by_steps});
  return cases;
}

}  // namespace gov::test
