// adamw, add_squares and mxfp4_quantize.
#include <cmath>

#include "base/mxfp4.h"
#include "tests/ops/backward_setup.h"

namespace gov::test {
namespace {

// Several steps against the algorithm in double.
Doubles adamw_case(Context& ctx, std::int64_t count, bool with_copy) {
  Memory memory(151);
  memory.aligned = count % 8 == 0;
  const Tensor param = memory.normal(DType::kF32, {count}), grad = memory.normal(DType::kF32, {count}, 0.3);
  const Tensor m = memory.zeros(DType::kF32, {count}), v = memory.zeros(DType::kF32, {count});
  const Tensor copy = with_copy ? memory.make(DType::kBF16, {count}) : Tensor();
  ops::AdamwArgs args;
  args.lr = 1e-2f;
  args.decay = 0.1f;
  args.grad_scale = 0.7f;
  Doubles p = values(param), first(p.size()), second(p.size());
  const Doubles g = values(grad);
  for (int step = 1; step <= 3; ++step) {
    args.step = step;
    call(ctx, ops::adamw, args, grad, param, m, v, copy);
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double slope = double(args.grad_scale) * g[i];
      first[i] = double(args.beta1) * first[i] + (1 - double(args.beta1)) * slope;
      second[i] = double(args.beta2) * second[i] + (1 - double(args.beta2)) * slope * slope;
      const double change = first[i] / (1 - std::pow(double(args.beta1), step)) /
                            (std::sqrt(second[i] / (1 - std::pow(double(args.beta2), step))) + double(args.eps));
      p[i] -= double(args.lr) * (change + double(args.decay) * p[i]);
    }
  }
  EXPECT_TRUE(close(values(param), p, {4 * kEps, 8 * kEps * largest(p)}));
  EXPECT_TRUE(close(values(m), first, {16 * kEps, 16 * kEps * largest(first)}));
  EXPECT_TRUE(close(values(v), second, {16 * kEps, 16 * kEps * largest(second)}));
  for (std::int64_t i = 0; with_copy && i < count; ++i)
    EXPECT_EQ(copy.as<bf16>()[i].bits, to_bf16(param.as<float>()[i]).bits) << i;
  Doubles all = values(param);
  append(all, m);
  append(all, v);
  return all;
}

Doubles add_squares_case(Context& ctx, std::int64_t count) {
  Memory memory(152);
  memory.aligned = count % 8 == 0;
  const Tensor x = memory.normal(DType::kF32, {count}, 3), out = memory.zeros(DType::kF64, {1});
  call(ctx, ops::add_squares, x, out);
  const double once = norm(values(x)) * norm(values(x));
  EXPECT_NEAR(values(out)[0], once, 1e-12 * once);
  call(ctx, ops::add_squares, x, out);
  EXPECT_NEAR(values(out)[0], 2 * once, 1e-12 * once);
  return values(out);
}

// The bytes of base/mxfp4.h, for ordinary, zero, tiny and saturating blocks and values halfway between codes.
Doubles mxfp4_quantize_case(Context& ctx) {
  Memory memory(153);
  constexpr std::int64_t kRows = 40, kWidth = 96;
  const Tensor x = memory.normal(DType::kF32, {2, kRows / 2, kWidth});
  float* v = x.as<float>();
  for (int i = 0; i < 32; ++i) {
    v[i] = 0;
    v[32 + i] = float(i - 16) * 0.25f;  // ties
    v[64 + i] = 1e-38f * float(i);
    v[96 + i] = float(i) * 1e30f;
  }
  const Tensor blocks = memory.make(DType::kU8, {2, kRows / 2, kWidth / 32, 16}),
               scales = memory.make(DType::kU8, {2, kRows / 2, kWidth / 32});
  call(ctx, ops::mxfp4_quantize, x, blocks, scales);
  Doubles all;
  for (std::int64_t b = 0; b < kRows * kWidth / 32; ++b) {
    std::uint8_t packed[16], scale;
    mxfp4_encode_block(v + b * 32, packed, &scale);
    EXPECT_EQ(scales.as<std::uint8_t>()[b], scale) << "block " << b;
    all.push_back(scale);
    for (int i = 0; i < 16; ++i) {
      EXPECT_EQ(blocks.as<std::uint8_t>()[b * 16 + i], packed[i]) << "block " << b << " byte " << i;
      all.push_back(packed[i]);
    }
  }
  return all;
}

}  // namespace

std::vector<OpCase> optimizer_cases() {
  std::vector<OpCase> cases;
  for (const std::int64_t count : {1, 37, 4096, 10'001}) {
    for (const bool copy : {false, true})
      cases.push_back({fmt::format("adamw_{}{}", count, copy ? "_with_copy" : ""),
                       [=](Context& c) { return adamw_case(c, count, copy); }});
    cases.push_back({fmt::format("add_squares_{}", count), [=](Context& c) { return add_squares_case(c, count); }});
  }
  cases.push_back({"mxfp4_quantize", mxfp4_quantize_case});
  return cases;
}

}  // namespace gov::test
