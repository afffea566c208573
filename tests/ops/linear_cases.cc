#include <cmath>

#include "ops/reference/math.h"
#include "tests/ops/harness.h"

namespace gov::test {
namespace {

constexpr DType kWeightTypes[] = {DType::kF32, DType::kBF16, DType::kF16};

Doubles linear_case(Context& ctx, DType dtype, std::int64_t in, std::int64_t out_features, bool with_bias) {
  Memory memory(static_cast<std::uint64_t>(in * 1000 + out_features));
  const std::int64_t tokens = 14;  // every remainder of every token tile
  const Tensor x = memory.normal(DType::kF32, {tokens, in}), weight = memory.normal(dtype, {out_features, in}, 0.5);
  const Tensor bias = with_bias ? memory.normal(dtype, {out_features}) : Tensor();
  const Tensor out = memory.make(DType::kF32, {tokens, out_features});
  ops::linear(ctx, x, weight, bias, out);
  const Doubles want =
      reference::linear(values(x), values(weight), with_bias ? values(bias) : Doubles{}, std::size_t(in));
  const double scale = std::sqrt(double(in)) * 0.5 + (with_bias ? 1 : 0);  // the size of a typical sum
  EXPECT_TRUE(close(values(out), want, sum_tolerance(double(in), 2 * scale)));
  // Any subset of the rows, and accumulation, give the same bits.
  for (std::int64_t count : {std::int64_t{1}, std::int64_t{5}, std::int64_t{13}}) {
    const Tensor part = memory.make(DType::kF32, {count, out_features});
    ops::linear(ctx, x.slice(tokens - count, count), weight, bias, part);
    EXPECT_TRUE(same_bits(values(part), values(out.slice(tokens - count, count)))) << count << " rows";
  }
  if (out_features > 2) {
    const Tensor column = memory.make(DType::kF32, {tokens, out_features - 2});
    ops::linear(ctx, x, weight.slice(2, out_features - 2), with_bias ? bias.slice(2, out_features - 2) : Tensor(),
                column);
    for (std::int64_t t = 0; t < tokens; ++t)
      EXPECT_TRUE(same_bits(values(column.slice(t, 1)), [&] {
        const Doubles row = values(out.slice(t, 1));
        return Doubles(row.begin() + 2, row.end());
      }()));
  }
  const Tensor sum = memory.normal(DType::kF32, out.shape);
  const Doubles before = values(sum), product = values(out);
  ops::linear(ctx, x, weight, bias, sum, true);
  Doubles added;
  for (std::size_t i = 0; i < before.size(); ++i) added.push_back(double(float(before[i]) + float(product[i])));
  EXPECT_TRUE(same_bits(values(sum), added));
  return values(out);
}

// More tokens and rows than one block of the work division.
Doubles linear_blocks(Context& ctx) {
  Memory memory(5);
  const Tensor x = memory.normal(DType::kF32, {131, 96}), weight = memory.normal(DType::kBF16, {1100, 96});
  const Tensor bias = memory.normal(DType::kBF16, {1100}), out = memory.make(DType::kF32, {131, 1100});
  ops::linear(ctx, x, weight, bias, out);
  EXPECT_TRUE(
      close(values(out), reference::linear(values(x), values(weight), values(bias), 96), sum_tolerance(96, 20)));
  const Tensor one = memory.make(DType::kF32, {1, 1100});
  ops::linear(ctx, x.slice(130, 1), weight, bias, one);
  EXPECT_TRUE(same_bits(values(one), values(out.slice(130, 1))));
  return values(out);
}

// Terms of size 1e4 that cancel to about 1: the error is bounded by the terms, not by the result.
Doubles linear_cancellation(Context& ctx) {
  Memory memory(6);
  Doubles x, w;
  for (int i = 0; i < 1000; ++i) {
    const double a = double(float(1e4 * (1 + 0.1 * memory.random.normal())));
    x.insert(x.end(), {a, -a});
    w.insert(w.end(), {1, 1});
  }
  x.push_back(1);
  w.push_back(1);
  const Tensor xt = memory.floats(x, {1, 2001}), wt = memory.floats(w, {1, 2001}),
               out = memory.make(DType::kF32, {1, 1});
  ops::linear(ctx, xt, wt, {}, out);
  EXPECT_TRUE(close(values(out), {1}, {1e9, 4 * kEps * norm(x) * std::sqrt(2001.0)}));
  return values(out);
}

Doubles patch_embed_case(Context& ctx, DType dtype, std::int64_t height, std::int64_t width, std::int64_t patch) {
  Memory memory(7);
  const Tensor pixels = memory.normal(DType::kF32, {2, 3, height, width}),
               weight = memory.normal(dtype, {10, 3, patch, patch});
  const Tensor bias = memory.normal(dtype, {10}),
               out = memory.make(DType::kF32, {2, height / patch * (width / patch), 10});
  ops::patch_embed(ctx, pixels, weight, bias, out);
  const reference::PatchShape shape{2, 3, std::size_t(height), std::size_t(width), std::size_t(patch), 10};
  const double terms = double(3 * patch * patch);
  EXPECT_TRUE(close(values(out), reference::patch_embed(values(pixels), values(weight), values(bias), shape),
                    sum_tolerance(terms, 3 * std::sqrt(terms))));
  return values(out);
}

}  // namespace

std::vector<OpCase> linear_cases() {
  std::vector<OpCase> cases;
  for (const DType dtype : kWeightTypes)
    for (const std::int64_t in : {1, 7, 33, 96, 100, 2880})
      for (const std::int64_t out : {1, 7, 35}) {
        const bool bias = (in + out) % 2 == 0;
        cases.push_back({fmt::format("linear_{}_{}x{}", dtype_name(dtype), in, out),
                         [=](Context& ctx) { return linear_case(ctx, dtype, in, out, bias); }});
      }
  cases.push_back({"linear_blocks", linear_blocks});
  cases.push_back({"linear_cancellation", linear_cancellation});
  for (const DType dtype : kWeightTypes) {
    cases.push_back({fmt::format("patch_embed_{}", dtype_name(dtype)),
                     [=](Context& ctx) { return patch_embed_case(ctx, dtype, 29, 31, 7); }});
  }
  cases.push_back({"patch_embed_14", [](Context& ctx) { return patch_embed_case(ctx, DType::kBF16, 56, 56, 14); }});
  return cases;
}

}  // namespace gov::test
