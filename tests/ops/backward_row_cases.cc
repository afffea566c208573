// Backward ops on rows: norms, activations, rope, and those that move rows.
#include <cmath>

#include "tests/ops/backward_setup.h"

namespace gov::test {
namespace {

struct NormProblem {
  DType weight, act;
  std::int64_t tokens, width;
};

Doubles rms_norm_case(Context& ctx, const NormProblem& p) {
  Memory memory(101);
  memory.aligned = p.act == DType::kBF16;
  const Tensor x = memory.normal(p.act, {p.tokens, p.width}, 2), weight = memory.normal(p.weight, {p.width});
  const Tensor dout = memory.normal(p.act, x.shape);
  const Added dx(memory, x.shape), dweight(memory, {p.width});
  call(ctx, ops::rms_norm_backward, x, weight, 1e-3f, dout, dx.t, dweight.t);
  const auto want = gradients({values(x), values(weight)}, [&](const auto& in) {
    return dot(reference::rms_norm(in[0], in[1], double(1e-3f)), values(dout));
  });
  const double terms = double(p.width + p.tokens);
  EXPECT_TRUE(dx.is(want[0], gradient_tolerance(terms, want[0], DType::kF32)));
  EXPECT_TRUE(dweight.is(want[1], gradient_tolerance(terms, want[1], DType::kF32)));
  Doubles all = values(dx.t);
  append(all, dweight.t);
  // A frozen weight, and no gradient of x: the other one is the same.
  const Tensor again = memory.floats(dx.before, x.shape), weight_only = memory.floats(dweight.before, {p.width});
  call(ctx, ops::rms_norm_backward, x, weight, 1e-3f, dout, again, Tensor());
  call(ctx, ops::rms_norm_backward, x, weight, 1e-3f, dout, Tensor(), weight_only);
  EXPECT_TRUE(same_bits(values(again), values(dx.t)));
  EXPECT_TRUE(same_bits(values(weight_only), values(dweight.t)));
  return all;
}

Doubles layer_norm_case(Context& ctx, const NormProblem& p) {
  Memory memory(102);
  memory.aligned = p.act == DType::kBF16;
  const Tensor x = memory.normal(p.act, {p.tokens, p.width}, 2, 0.5), weight = memory.normal(p.weight, {p.width});
  const Tensor dout = memory.normal(p.act, x.shape);
  const Added dx(memory, x.shape), dweight(memory, {p.width}), dbias(memory, {p.width});
  call(ctx, ops::layer_norm_backward, x, weight, 1e-3f, dout, dx.t, dweight.t, dbias.t);
  const auto want = gradients({values(x), values(weight), Doubles(std::size_t(p.width))}, [&](const auto& in) {
    return dot(reference::layer_norm(in[0], in[1], in[2], double(1e-3f)), values(dout));
  });
  const double terms = double(p.width + p.tokens);
  EXPECT_TRUE(dx.is(want[0], gradient_tolerance(terms, want[0], DType::kF32)));
  EXPECT_TRUE(dweight.is(want[1], gradient_tolerance(terms, want[1], DType::kF32)));
  EXPECT_TRUE(dbias.is(want[2], gradient_tolerance(terms, want[2], DType::kF32)));
  Doubles all = values(dx.t);
  append(all, dweight.t);
  append(all, dbias.t);
  const Tensor again = memory.floats(dx.before, x.shape);
  call(ctx, ops::layer_norm_backward, x, weight, 1e-3f, dout, again, Tensor(), Tensor());
  EXPECT_TRUE(same_bits(values(again), values(dx.t)));
  return all;
}

// Widths of the released model: against the sums in double, which need no complex steps.
Doubles wide_rms_norm_case(Context& ctx, DType act, std::int64_t tokens) {
  Memory memory(103);
  memory.aligned = true;
  constexpr std::int64_t kWidth = 2880;
  const Tensor x = memory.normal(act, {tokens, kWidth}, 2), weight = memory.normal(DType::kBF16, {kWidth});
  const Tensor dout = memory.normal(act, x.shape);
  const Added dx(memory, x.shape), dweight(memory, {kWidth});
  call(ctx, ops::rms_norm_backward, x, weight, 1e-5f, dout, dx.t, dweight.t);
  const Doubles a = values(x), w = values(weight), d = values(dout);
  Doubles want_x, want_weight(kWidth);
  for (std::size_t row = 0; row < a.size(); row += kWidth) {
    double squares = 0, products = 0;
    for (std::size_t i = 0; i < kWidth; ++i) {
      squares += a[row + i] * a[row + i];
      products += w[i] * d[row + i] * a[row + i];
    }
    const double r = 1 / std::sqrt(squares / kWidth + double(1e-5f));
    for (std::size_t i = 0; i < kWidth; ++i) {
      want_x.push_back(r * (w[i] * d[row + i] - a[row + i] * r * r * products / kWidth));
      want_weight[i] += d[row + i] * a[row + i] * r;
    }
  }
  EXPECT_TRUE(dx.is(want_x, gradient_tolerance(200, want_x, DType::kF32)));
  EXPECT_TRUE(dweight.is(want_weight, gradient_tolerance(double(tokens), want_weight, DType::kF32)));
  Doubles all = values(dx.t);
  append(all, dweight.t);
  return all;
}

// Values on both sides of the clamps, none within reach of a rounding of them.
Doubles swiglu_case(Context& ctx, DType act, std::int64_t width, bool alias) {
  Memory memory(104);
  const Tensor h = memory.normal(act, {3, 2 * width}, 5), dout = memory.normal(act, {3, width});
  const float special[] = {6.9f, 7.1f, -100.f, 100.f, 0.f, -60.f, -6.9f, -7.1f, 3.f, -8.f};
  for (std::int64_t i = 0; i < std::min<std::int64_t>(10, h.elements()); ++i) {
    if (act == DType::kF32) h.as<float>()[i] = special[i];
    else h.as<bf16>()[i] = to_bf16(special[i]);
  }
  const auto want = gradients(
      {values(h)}, [&](const auto& in) { return dot(reference::swiglu(in[0], double(1.702f), 7), values(dout)); });
  const Tensor dh = alias ? h : memory.make(act, h.shape);
  call(ctx, ops::swiglu_backward, h, 1.702f, 7.f, dout, dh);
  EXPECT_TRUE(close(values(dh), want[0], gradient_tolerance(16, want[0], act)));
  return values(dh);
}

Doubles gelu_case(Context& ctx, DType act, ops::Gelu kind) {
  Memory memory(105);
  Doubles points = {0, 1e-20, 40, -40, -5.5, 13.9, -13.9, 3e38, -3e38};
  for (int i = 0; i < 500; ++i) points.push_back(-9 + 18.0 * i / 499);
  const Tensor x = memory.floats(points, {std::int64_t(points.size())}, act), dx = memory.make(act, x.shape);
  const Tensor dout = memory.normal(act, x.shape);
  call(ctx, ops::gelu_backward, x, kind, dout, dx);
  const auto slope = [&](double at) {
    return reference::gelu(Complexes{{at, 1e-50}}, static_cast<reference::Gelu>(kind))[0].imag() / 1e-50;
  };
  Doubles want;
  const Doubles all = values(x), d = values(dout);
  for (std::size_t i = 0; i < all.size(); ++i)
    want.push_back(d[i] * (std::fabs(all[i]) > 1e30  // where the reference's cube overflows
                               ? (all[i] > 0 ? 1 : 0)
                               : slope(all[i])));
  EXPECT_TRUE(close(values(dx), want, gradient_tolerance(16, want, act)));
  const Doubles separate = values(dx);
  call(ctx, ops::gelu_backward, x, kind, dout, x);
  EXPECT_TRUE(same_bits(values(x), separate));
  return separate;
}

Doubles rope_case(Context& ctx, DType act) {
  Memory memory(106);
  constexpr std::int64_t kTokens = 5, kHeads = 3, kDim = 10;
  const Tensor cos = memory.normal(DType::kF32, {kTokens, kDim / 2}), sin = memory.normal(DType::kF32, cos.shape);
  const Tensor dx = memory.normal(act, {kTokens, kHeads, kDim});
  const Doubles dout = values(dx);
  call(ctx, ops::rope_backward, cos, sin, dx);
  const auto want = gradients({Doubles(dout.size(), 0.5)}, [&](const auto& in) {
    return dot(reference::rope(in[0], values(cos), values(sin), kHeads, kDim), dout);
  });
  EXPECT_TRUE(close(values(dx), want[0], gradient_tolerance(2, want[0], act)));
  return values(dx);
}

Doubles embedding_case(Context& ctx, DType act, std::int64_t width) {
  Memory memory(107);
  const std::vector<std::int32_t> ids = {3, 0, 3, -1, 8, 3, 0, -7};
  const Tensor dout = memory.normal(act, {std::int64_t(ids.size()), width});
  const Added dtable(memory, {9, width});
  call(ctx, ops::embedding_backward, memory.ints(ids), dout, dtable.t);
  Doubles want(dtable.before.size());
  const Doubles d = values(dout);
  for (std::size_t t = 0; t < ids.size(); ++t)
    for (std::size_t i = 0; ids[t] >= 0 && i < std::size_t(width); ++i)
      want[std::size_t(ids[t]) * std::size_t(width) + i] += d[t * std::size_t(width) + i];
  EXPECT_TRUE(dtable.is(want, gradient_tolerance(4, want, DType::kF32)));
  return values(dtable.t);
}

// One id many times: the order of the additions is that of the rows.
Doubles embedding_order_case(Context& ctx, DType act) {
  Memory memory(108);
  constexpr std::int64_t kRows = 700, kWidth = 40;
  std::vector<std::int32_t> ids;
  for (int t = 0; t < kRows; ++t) ids.push_back(t % 7 == 0 ? t % 5 : 2);
  const Tensor dout = memory.normal(act, {kRows, kWidth}), dtable = memory.zeros(DType::kF32, {5, kWidth});
  call(ctx, ops::embedding_backward, memory.ints(ids), dout, dtable);
  std::vector<float> sums(5 * kWidth);
  const Doubles d = values(dout);
  for (std::size_t t = 0; t < kRows; ++t)
    for (std::size_t i = 0; i < kWidth; ++i) sums[std::size_t(ids[t]) * kWidth + i] += float(d[t * kWidth + i]);
  EXPECT_TRUE(same_bits(values(dtable), Doubles(sums.begin(), sums.end())));
  return values(dtable);
}

Doubles gather_case(Context& ctx, DType act) {
  Memory memory(109);
  const std::vector<std::int32_t> rows = {4, 0, 9, 2};
  const Tensor dout = memory.normal(act, {4, 33});
  const Added dx(memory, {10, 33});
  call(ctx, ops::gather_rows_backward, memory.ints(rows), dout, dx.t);
  Doubles want(330);
  for (std::size_t r = 0; r < rows.size(); ++r)
    for (std::size_t i = 0; i < 33; ++i) want[std::size_t(rows[r]) * 33 + i] = values(dout)[r * 33 + i];
  EXPECT_TRUE(dx.is(want, gradient_tolerance(1, want, DType::kF32)));
  return values(dx.t);
}

Doubles prepend_case(Context& ctx, DType act, bool with_token) {
  Memory memory(110);
  constexpr std::int64_t kImages = 3, kPatches = 5, kWidth = 33;
  const std::int64_t rows = kPatches + (with_token ? 1 : 0);
  const Tensor dout = memory.normal(act, {kImages, rows, kWidth}), dx = memory.make(act, {kImages, kPatches, kWidth});
  const Added dtoken(memory, {kWidth}), dpositions(memory, {rows, kWidth});
  call(ctx, ops::prepend_token_backward, with_token, dout, with_token ? dtoken.t : Tensor(), dx, dpositions.t);
  const auto want = gradients(
      {Doubles(with_token ? kWidth : 0), Doubles(kImages * kPatches * kWidth), Doubles(std::size_t(rows * kWidth))},
      [&](const auto& in) { return dot(reference::prepend_token(in[0], in[1], in[2], kImages), values(dout)); });
  if (with_token) {
    EXPECT_TRUE(dtoken.is(want[0], gradient_tolerance(3, want[0], DType::kF32)));
  }
  EXPECT_TRUE(close(values(dx), want[1], {1e-15, 1e-15}));
  EXPECT_TRUE(dpositions.is(want[2], gradient_tolerance(3, want[2], DType::kF32)));
  Doubles all = values(dx);
  append(all, dpositions.t);
  append(all, dtoken.t);
  const Tensor again = memory.floats(dpositions.before, dpositions.t.shape);
  call(ctx, ops::prepend_token_backward, with_token, dout, Tensor(), Tensor(), again);
  EXPECT_TRUE(same_bits(values(again), values(dpositions.t)));
  return all;
}

}  // namespace

std::vector<OpCase> backward_row_cases() {
  std::vector<OpCase> cases;
  for (const DType act : kActTypes) {
    const auto add = [&](std::string name, std::function<Doubles(Context&)> run) {
      cases.push_back({name + act_suffix(act), std::move(run), act == DType::kBF16});
    };
    for (const std::int64_t width : {1, 7, 33, 96})
      for (const DType weight : {DType::kF32, DType::kBF16}) {
        const NormProblem p{weight, act, 4, width};
        const std::string name = fmt::format("{}_{}", dtype_name(weight), width);
        add("rms_norm_backward_" + name, [=](Context& c) { return rms_norm_case(c, p); });
        if (width > 1) add("layer_norm_backward_" + name, [=](Context& c) { return layer_norm_case(c, p); });
      }
    for (const std::int64_t tokens : {1, 70, 300})
      add(fmt::format("rms_norm_backward_2880_x{}", tokens),
          [=](Context& c) { return wide_rms_norm_case(c, act, tokens); });
    for (const std::int64_t width : {1, 5, 17, 64})
      for (const bool alias : {false, true})
        add(fmt::format("swiglu_backward_{}{}", width, alias ? "_in_place" : ""),
            [=](Context& c) { return swiglu_case(c, act, width, alias); });
    add("gelu_backward_erf", [=](Context& c) { return gelu_case(c, act, ops::Gelu::kErf); });
    add("gelu_backward_tanh", [=](Context& c) { return gelu_case(c, act, ops::Gelu::kTanh); });
    add("gelu_backward_quick", [=](Context& c) { return gelu_case(c, act, ops::Gelu::kQuick); });
    add("rope_backward", [=](Context& c) { return rope_case(c, act); });
    for (const std::int64_t width : {1, 33, 96})
      add(fmt::format("embedding_backward_{}", width), [=](Context& c) { return embedding_case(c, act, width); });
    add("embedding_backward_order", [=](Context& c) { return embedding_order_case(c, act); });
    add("gather_rows_backward", [=](Context& c) { return gather_case(c, act); });
    add("prepend_token_backward", [=](Context& c) { return prepend_case(c, act, true); });
    add("prepend_token_backward_without", [=](Context& c) { return prepend_case(c, act, false); });
  }
  return cases;
}

}  // namespace gov::test
