#include <cmath>

#include "ops/reference/math.h"
#include "tests/ops/harness.h"

namespace gov::test {
namespace {

constexpr DType kWeightTypes[] = {DType::kF32, DType::kBF16, DType::kF16};

// Types and sizes of one product, and whether all rows go through one call only.
struct LinearProblem {
  DType act, weight, out;
  std::int64_t tokens, in, outputs;
  bool bias;
};

Doubles linear_case(Context& ctx, const LinearProblem& p, bool aligned) {
  Memory memory(static_cast<std::uint64_t>(p.in * 1000 + p.outputs));
  memory.aligned = aligned;
  const Tensor x = memory.normal(p.act, {p.tokens, p.in}), weight = memory.normal(p.weight, {p.outputs, p.in}, 0.5);
  const Tensor bias = p.bias ? memory.normal(p.weight, {p.outputs}) : Tensor();
  const Tensor out = memory.make(p.out, {p.tokens, p.outputs});
  call(ctx, ops::linear, x, weight, bias, out, false);
  const Doubles want =
      reference::linear(values(x), values(weight), p.bias ? values(bias) : Doubles{}, std::size_t(p.in));
  const double scale = std::sqrt(double(p.in)) * 0.5 + (p.bias ? 1 : 0);  // the size of a typical sum
  const Tolerance sums = sum_tolerance(double(p.in), 2 * scale), tolerance = rounded(sums, p.out, want);
  EXPECT_TRUE(close(values(out), want, tolerance));
  // Any subset of the rows, and accumulation, give the same.
  const Tolerance twice{2 * tolerance.relative_l2, 2 * tolerance.absolute};
  for (const std::int64_t count : {std::int64_t{1}, std::int64_t{5}, p.tokens - 1}) {
    if (count >= p.tokens) continue;
    const Tensor part = memory.make(p.out, {count, p.outputs});
    call(ctx, ops::linear, x.slice(p.tokens - count, count), weight, bias, part, false);
    EXPECT_TRUE(agree(ctx, values(part), values(out.slice(p.tokens - count, count)), twice)) << count << " rows";
  }
  if (p.outputs > 2) {
    const Tensor column = memory.make(p.out, {p.tokens, p.outputs - 2});
    call(ctx, ops::linear, x, weight.slice(2, p.outputs - 2), p.bias ? bias.slice(2, p.outputs - 2) : Tensor(), column,
         false);
    for (std::int64_t t = 0; t < p.tokens; ++t) {
      const Doubles row = values(out.slice(t, 1));
      EXPECT_TRUE(agree(ctx, values(column.slice(t, 1)), Doubles(row.begin() + 2, row.end()), twice));
    }
  }
  const Tensor sum = memory.normal(DType::kF32, out.shape);
  const Doubles before = values(sum), product = values(out);
  call(ctx, ops::linear, x, weight, bias, sum, true);
  Doubles added;
  for (std::size_t i = 0; i < before.size(); ++i)
    added.push_back(ctx.on_cuda() ? before[i] + want[i] : double(float(before[i]) + float(product[i])));
  EXPECT_TRUE(agree(ctx, values(sum), added, {sums.relative_l2 + kEps, sums.absolute + 2 * kEps * largest(added)}));
  return values(out);
}

// More tokens and rows than one block of the work division.
Doubles linear_blocks(Context& ctx) {
  Memory memory(5);
  const Tensor x = memory.normal(DType::kF32, {131, 96}), weight = memory.normal(DType::kBF16, {1100, 96});
  const Tensor bias = memory.normal(DType::kBF16, {1100}), out = memory.make(DType::kF32, {131, 1100});
  call(ctx, ops::linear, x, weight, bias, out, false);
  EXPECT_TRUE(
      close(values(out), reference::linear(values(x), values(weight), values(bias), 96), sum_tolerance(96, 20)));
  const Tensor one = memory.make(DType::kF32, {1, 1100});
  call(ctx, ops::linear, x.slice(130, 1), weight, bias, one, false);
  EXPECT_TRUE(agree(ctx, values(one), values(out.slice(130, 1)), sum_tolerance(96, 40)));
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
  call(ctx, ops::linear, xt, wt, Tensor(), out, false);
  EXPECT_TRUE(close(values(out), {1}, {1e9, 4 * kEps * norm(x) * std::sqrt(2001.0)}));
  return values(out);
}

Doubles patch_embed_case(Context& ctx, DType dtype, DType act, std::int64_t height, std::int64_t width,
                         std::int64_t patch, std::int64_t outputs = 10, bool aligned = false) {
  Memory memory(7);
  memory.aligned = aligned;
  const Tensor pixels = memory.normal(DType::kF32, {2, 3, height, width}),
               weight = memory.normal(dtype, {outputs, 3, patch, patch});
  const Tensor bias = memory.normal(dtype, {outputs}),
               out = memory.make(act, {2, height / patch * (width / patch), outputs});
  call(ctx, ops::patch_embed, pixels, weight, bias, out);
  const reference::PatchShape shape{
      2, 3, std::size_t(height), std::size_t(width), std::size_t(patch), std::size_t(outputs)};
  const double terms = double(3 * patch * patch);
  Doubles wide = values(pixels);
  if (act == DType::kBF16 && dtype == DType::kBF16) {  // the operands of the tensor cores
    for (double& v : wide) v = double(to_f32(to_bf16(float(v))));
  }
  const Doubles want = reference::patch_embed(wide, values(weight), values(bias), shape);
  EXPECT_TRUE(close(values(out), want, rounded(sum_tolerance(terms, 3 * std::sqrt(terms)), act, want)));
  return values(out);
}

}  // namespace

std::vector<OpCase> linear_cases() {
  std::vector<OpCase> cases;
  const auto linear = [&](const LinearProblem& p, bool aligned, bool cuda_only) {
    const std::string types = cuda_only
                                  ? fmt::format("{}_{}_{}", dtype_name(p.act), dtype_name(p.weight), dtype_name(p.out))
                                  : dtype_name(p.weight);
    const std::string rows = cuda_only ? fmt::format("{}x", p.tokens) : "";
    cases.push_back({fmt::format("linear_{}_{}{}x{}{}", types, rows, p.in, p.outputs, aligned ? "_aligned" : ""),
                     [=](Context& ctx) { return linear_case(ctx, p, aligned); }, cuda_only});
  };
  for (const DType dtype : kWeightTypes)
    for (const std::int64_t in : {1, 7, 33, 96, 100, 2880})
      for (const std::int64_t out : {1, 7, 35}) {
        const bool bias = (in + out) % 2 == 0;
        // 14 tokens: every remainder of every token tile of the CPU.
        linear({DType::kF32, dtype, DType::kF32, 14, in, out, bias}, false, false);
        for (const DType to : {DType::kF32, DType::kBF16})
          if (in != 7 && in != 96) linear({DType::kBF16, dtype, to, 14, in, out, bias}, false, true);
      }
  constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16;
  for (const bool bias : {true, false}) {
    linear({kF32, kBF16, kF32, bias ? 70 : 8, 2880, 136, bias}, true, true);
    linear({kF32, kF32, kF32, bias ? 3 : 200, 512, 130, bias}, true, true);
    for (const DType to : {kF32, kBF16}) {
      linear({kBF16, kBF16, to, bias ? 2 : 7, 2880, 1024, bias}, true, true);
      linear({kBF16, kBF16, to, bias ? 64 : 33, 2880, 512, bias}, true, true);
      linear({kBF16, kBF16, to, bias ? 300 : 257, 1024, 640, bias}, true, true);
    }
  }
  cases.push_back({"linear_blocks", linear_blocks});
  cases.push_back({"linear_cancellation", linear_cancellation});
  for (const DType dtype : kWeightTypes) {
    for (const DType act : {kF32, kBF16}) {
      cases.push_back({fmt::format("patch_embed_{}{}", dtype_name(dtype), act == kBF16 ? "_to_bf16" : ""),
                       [=](Context& ctx) { return patch_embed_case(ctx, dtype, act, 29, 31, 7); }, act == kBF16});
    }
  }
  for (const DType act : {kF32, kBF16}) {
    cases.push_back({act == kF32 ? "patch_embed_14" : "patch_embed_14_to_bf16",
                     [=](Context& ctx) { return patch_embed_case(ctx, kBF16, act, 56, 56, 14); }, act == kBF16});
    cases.push_back({act == kF32 ? "patch_embed_224" : "patch_embed_224_to_bf16",
                     [=](Context& ctx) { return patch_embed_case(ctx, kBF16, act, 224, 224, 14, 128); }, true});
    for (const bool aligned : {true, false}) {
      cases.push_back({fmt::format("patch_embed_16{}{}", act == kF32 ? "" : "_to_bf16", aligned ? "_aligned" : ""),
                       [=](Context& ctx) { return patch_embed_case(ctx, kBF16, act, 96, 96, 16, 128, aligned); },
                       true});
    }
  }
  return cases;
}

}  // namespace gov::test
