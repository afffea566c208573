#include "tests/ops/expert_setup.h"

#include <cmath>

#include "base/mxfp4.h"

namespace gov::test {
namespace {

// Weights of standard deviation about 1 / sqrt(in), so that every layer keeps the size of its input. MXFP4 scales vary
// by block.
ops::ExpertProjection projection(Memory& memory, const MoeProblem& p, std::int64_t out, std::int64_t in,
                                 Doubles& weights, Doubles& bias) {
  ops::ExpertProjection result;
  const double scale = 1 / std::sqrt(static_cast<double>(in));
  if (p.mxfp4) {
    std::vector<std::uint8_t> blocks, scales;
    const int exponent = 127 + static_cast<int>(std::lround(std::log2(scale / 2.5)));
    for (std::int64_t b = 0; b < p.experts * out * in / kMxfp4Block; ++b) {
      std::uint8_t packed[kMxfp4BlockBytes];
      for (auto& byte : packed) byte = static_cast<std::uint8_t>(memory.random.below(256));
      const std::uint8_t e = static_cast<std::uint8_t>(exponent + memory.random.below(3) - 1);
      float decoded[kMxfp4Block];
      mxfp4_decode_block(packed, e, decoded);
      blocks.insert(blocks.end(), packed, packed + kMxfp4BlockBytes);
      scales.push_back(e);
      weights.insert(weights.end(), decoded, decoded + kMxfp4Block);
    }
    result.blocks = memory.bytes(blocks, {p.experts, out, in / 32, 16});
    result.scales = memory.bytes(scales, {p.experts, out, in / 32});
  } else {
    result.weight = memory.normal(p.dtype, {p.experts, out, in}, scale);
    weights = values(result.weight);
  }
  result.bias = memory.normal(p.dtype, {p.experts, out}, 0.5);
  bias = values(result.bias);
  return result;
}

}  // namespace

MoeSetup::MoeSetup(Memory& memory, const MoeProblem& p) : problem(p) {
  x = memory.normal(p.act, {p.tokens, p.hidden}, 2);
  experts = {{}, {}, {}, {}, std::size_t(p.experts), std::size_t(p.hidden), std::size_t(p.inner)};
  gate_up = projection(memory, p, 2 * p.inner, p.hidden, experts.gate_up, experts.gate_up_bias);
  down = projection(memory, p, p.hidden, p.inner, experts.down, experts.down_bias);
  std::vector<std::int32_t> chosen;
  Doubles shares;
  for (std::int64_t t = 0; t < p.tokens; ++t) {
    std::vector<bool> taken(std::size_t(p.experts));
    double sum = 0;
    for (std::int64_t k = 0; k < p.per_token; ++k) {
      std::int64_t e;
      do e = memory.random.below(p.experts);
      while (taken[std::size_t(e)]);
      taken[std::size_t(e)] = true;
      chosen.push_back(std::int32_t(e));
      shares.push_back(memory.random.uniform());
      sum += shares.back();
    }
    for (std::int64_t k = 0; k < p.per_token; ++k) shares[shares.size() - 1 - std::size_t(k)] /= sum;
  }
  indices = memory.ints(chosen, {p.tokens, p.per_token});
  weights = memory.floats(shares, {p.tokens, p.per_token});
}

Doubles MoeSetup::reference() const {
  return reference::moe(values(x), ints_of(indices), values(weights), experts, double(1.702f), 7);
}

// Two sums in a row, one through the activation, whose slope stays below about 8 (up + 1, at the limit).
Tolerance MoeSetup::tolerance() const {
  const Doubles want = reference();
  Tolerance tolerance = sum_tolerance(static_cast<double>(problem.hidden + problem.inner), largest(want), 2);
  // With BF16 operands the activation is rounded too, perhaps before and behind its nonlinearity.
  for (int i = 0; i < 4; ++i) tolerance = rounded(tolerance, problem.act, want);
  return tolerance;
}

}  // namespace gov::test
