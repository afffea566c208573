#include <cmath>

#include "base/mxfp4.h"
#include "tests/ops/expert_setup.h"

namespace gov::test {
namespace {

Doubles moe_case(Context& ctx, const MoeProblem& problem) {
  Memory memory(41);
  memory.aligned = problem.act == DType::kBF16;
  const MoeSetup setup(memory, problem);
  const Tensor out = memory.zeros(DType::kF32, setup.x.shape);
  setup.run(ctx, out);
  EXPECT_TRUE(close(values(out), setup.reference(), setup.tolerance()));
  // Added to what is there, and each token as if it were alone.
  const Tensor sum = memory.normal(DType::kF32, setup.x.shape);
  const Doubles before = values(sum), product = values(out);
  setup.run(ctx, sum);
  Doubles added;
  for (std::size_t i = 0; i < before.size(); ++i) added.push_back(double(float(before[i]) + float(product[i])));
  const Tolerance tolerance = setup.tolerance();
  EXPECT_TRUE(agree(ctx, values(sum), added,
                    {tolerance.relative_l2 + 2 * kEps, tolerance.absolute + 4 * kEps * largest(added)}));
  for (std::int64_t t = 0; t < problem.tokens; t += 1 + problem.tokens / 5) {
    const Tensor one = memory.zeros(DType::kF32, {1, problem.hidden});
    call(ctx, ops::moe, setup.x.slice(t, 1), setup.indices.slice(t, 1), setup.weights.slice(t, 1), setup.gate_up,
         setup.down, 1.702f, 7.f, one);
    EXPECT_TRUE(agree(ctx, values(one), values(out.slice(t, 1)), {INFINITY, 2 * tolerance.absolute})) << "token " << t;
  }
  return values(out);
}

// Every code with extreme scales, one block per row of the down projection, against unit activations: exact.
Doubles mxfp4_codes(Context& ctx) {
  Memory memory(42);
  constexpr std::int64_t kRows = 64;
  std::vector<std::uint8_t> blocks, scales;
  Doubles want;
  for (std::int64_t r = 0; r < kRows; ++r) {
    const std::uint8_t scale = std::uint8_t(r % 4 == 0 ? 0 : r % 4 == 1 ? 1 : r % 4 == 2 ? 127 : 250);
    for (int j = 0; j < 16; ++j) blocks.push_back(std::uint8_t((r / 4 + j) % 16 * 16 + (r / 4 + 5 * j) % 16));
    scales.push_back(scale);
    float decoded[32];
    mxfp4_decode_block(&blocks[blocks.size() - 16], scale, decoded);
    want.push_back(double(decoded[r % 32]));
  }
  ops::ExpertProjection down;
  down.blocks = memory.bytes(blocks, {1, kRows, 1, 16});
  down.scales = memory.bytes(scales, {1, kRows, 1});
  // The gate_up projection turns token r, the unit vector r, into the activation that is 1 at r % 32.
  const Tensor gate_up = memory.zeros(DType::kF32, {1, 64, kRows});
  const Tensor bias = memory.zeros(DType::kF32, {1, 64});
  for (std::int64_t i = 0; i < 32; ++i) {
    for (std::int64_t r = 0; r < kRows; ++r) gate_up.as<float>()[(2 * i) * kRows + r] = r % 32 == i ? 1.f : 0.f;
  }
  ops::ExpertProjection up;
  up.weight = gate_up;
  up.bias = bias;
  const Tensor identity = memory.zeros(DType::kF32, {kRows, kRows}), out = memory.zeros(DType::kF32, {kRows, kRows});
  for (std::int64_t r = 0; r < kRows; ++r) identity.as<float>()[r * kRows + r] = 1;
  const Tensor indices = memory.ints(std::vector<std::int32_t>(kRows, 0), {kRows, 1}),
               weights = memory.floats(Doubles(kRows, 1.0), {kRows, 1});
  call(ctx, ops::moe, identity, indices, weights, up, down, 1e30f, 7.f,
       out);  // alpha so large that swiglu(1, 0) is exactly 1
  Doubles got;
  for (std::int64_t r = 0; r < kRows; ++r) got.push_back(double(out.as<float>()[r * kRows + r]));
  EXPECT_EQ(got, want);
  return got;
}

struct RouterProblem {
  DType dtype;
  std::int64_t experts, count, hidden, tokens = 21;
  DType act = DType::kF32;
};

Doubles router_case(Context& ctx, const RouterProblem& p) {
  Memory memory(43);
  memory.aligned = p.act == DType::kBF16;
  const std::int64_t experts = p.experts, count = p.count, hidden = p.hidden, tokens = p.tokens;
  const DType dtype = p.dtype;
  const Tensor x = memory.normal(p.act, {tokens, hidden}),
               weight = memory.normal(dtype, {experts, hidden}, 1 / std::sqrt(double(hidden)));
  const Tensor bias = memory.normal(dtype, {experts}), vision = memory.normal(dtype, {experts}, 2);
  std::vector<std::uint8_t> modality;
  for (int t = 0; t < tokens; ++t) modality.push_back(std::uint8_t(t % 3 == 1 ? 1 + t : 0));
  const Tensor logits = memory.make(DType::kF32, {tokens, experts}),
               indices = memory.make(DType::kI32, {tokens, count});
  const Tensor weights = memory.make(DType::kF32, {tokens, count});
  call(ctx, ops::router, x, weight, bias, vision, memory.bytes(modality, {tokens}), logits, indices, weights);
  const auto want = reference::router(values(x), values(weight), values(bias), values(vision), modality,
                                      std::size_t(hidden), std::size_t(count));
  EXPECT_TRUE(close(values(logits), want.logits, sum_tolerance(double(hidden), 2)));
  // Selection is exact on the op's own logits: a near-tie may fall either way between float and double.
  const auto own = reference::top_k_softmax(values(logits), std::size_t(experts), std::size_t(count));
  EXPECT_EQ(ints_of(indices), own.indices);
  EXPECT_TRUE(close(values(weights), own.weights, sum_tolerance(double(count) + 8, 1)));
  Doubles all = values(logits), shares = values(weights);
  all.insert(all.end(), shares.begin(), shares.end());
  return all;
}

// Counts from a loop over every pair; half the rows are pictures', some are padding, some indices are no expert.
Doubles load_case(Context& ctx, std::int64_t layers, std::int64_t rows, std::int64_t experts, std::int64_t count) {
  Memory memory(std::uint64_t(rows * experts) + 31);
  const std::int64_t planned = rows + 3;
  std::vector<std::int32_t> indices;
  std::vector<std::uint8_t> modality;
  std::vector<std::int64_t> slots;
  for (std::int64_t i = 0; i < layers * planned * count; ++i)
    indices.push_back(std::int32_t(memory.random.below(experts + 2) - 1));
  for (std::int64_t t = 0; t < rows; ++t) {
    modality.push_back(std::uint8_t(memory.random.below(2) * 7));
    slots.push_back(memory.random.below(5) - 1);
  }
  const Tensor counts = memory.make(DType::kI64, {2, layers, experts});
  Doubles want;
  for (std::int64_t i = 0; i < counts.elements(); ++i) {
    counts.as<std::int64_t>()[i] = i + (std::int64_t{1} << 40);
    want.push_back(double(i) + 0x1p40);
  }
  for (std::int64_t l = 0; l < layers; ++l)
    for (std::int64_t t = 0; t < rows; ++t)
      for (std::int64_t k = 0; k < count; ++k) {
        const std::int32_t e = indices[std::size_t((l * planned + t) * count + k)];
        if (slots[std::size_t(t)] < 0 || e < 0 || e >= experts) continue;
        want[std::size_t(((modality[std::size_t(t)] != 0) * layers + l) * experts + e)] += 1;
      }
  call(ctx, ops::expert_load, memory.ints(indices, {layers, planned, count}), memory.bytes(modality, {rows}),
       memory.longs(slots), counts);
  Doubles got;
  for (std::int64_t i = 0; i < counts.elements(); ++i) got.push_back(double(counts.as<std::int64_t>()[i]));
  EXPECT_TRUE(same_bits(got, want));
  return got;
}

}  // namespace

std::vector<OpCase> expert_cases() {
  std::vector<OpCase> cases;
  const auto moe = [&](std::string name, MoeProblem p) {
    cases.push_back({"moe_" + name, [p](Context& ctx) { return moe_case(ctx, p); }});
    p.act = DType::kBF16;
    cases.push_back({"moe_" + name + "_act_bf16", [p](Context& ctx) { return moe_case(ctx, p); }, true});
  };
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    moe(fmt::format("{}_odd", dtype_name(dtype)), {7, 3, 5, 33, 35, false, dtype});
    moe(fmt::format("{}_one", dtype_name(dtype)), {1, 1, 1, 1, 1, false, dtype});
  }
  moe("dense_one_expert_many_tokens", {9100, 1, 1, 16, 16, false, DType::kBF16});
  moe("dense_many_tokens", {150, 2, 2, 40, 50, false, DType::kBF16});
  moe("mxfp4_small", {5, 4, 6, 96, 32, true, DType::kBF16});
  moe("mxfp4_single_token", {1, 4, 8, 160, 96, true, DType::kBF16});
  moe("mxfp4_many_tokens", {140, 2, 3, 64, 96, true, DType::kF32});
  moe("mxfp4_released_width", {3, 2, 2, 2880, 64, true, DType::kBF16});
  cases.push_back({"mxfp4_codes_and_scales", mxfp4_codes});
  const auto router = [&](RouterProblem p, bool cuda_only = false) {
    const std::string name = fmt::format("router_{}_{}_{}_{}{}", dtype_name(p.dtype), p.experts, p.count, p.hidden,
                                         cuda_only ? fmt::format("_x{}", p.tokens) : "");
    cases.push_back({name, [=](Context& ctx) { return router_case(ctx, p); }, cuda_only});
    p.act = DType::kBF16;
    cases.push_back({name + "_act_bf16", [=](Context& ctx) { return router_case(ctx, p); }, true});
  };
  for (const std::int64_t rows : {1, 9, 3000}) {
    cases.push_back(
        {fmt::format("expert_load_{}", rows), [rows](Context& ctx) { return load_case(ctx, 3, rows, 32, 4); }});
  }
  cases.push_back({"expert_load_many_experts", [](Context& ctx) { return load_case(ctx, 2, 40, 1024, 64); }});
  router({DType::kF32, 6, 4, 96});
  router({DType::kBF16, 32, 4, 2880});
  router({DType::kF16, 7, 7, 33});
  router({DType::kF32, 1, 1, 1});
  router({DType::kBF16, 1024, 64, 40});
  for (const std::int64_t tokens : {1, 16, 300}) {
    router({DType::kBF16, 32, 4, 2880, tokens}, true);
    router({DType::kBF16, 128, 4, 1024, tokens}, true);
  }
  router({DType::kF32, 1000, 64, 40, 3}, true);
  return cases;
}

}  // namespace gov::test
