// Each tolerance is shown to notice the fault it is there for: the op is right, the reference is made wrong, and the
// comparison that passes with the right reference must fail.
#include <cmath>

#include "tests/ops/attention_setup.h"
#include "tests/ops/expert_setup.h"

namespace gov::test {
namespace {

class SeededFault : public OnDevices {
 protected:
  void notices(const Doubles& got, const Doubles& right, const Doubles& wrong, Tolerance tolerance) {
    EXPECT_TRUE(close(got, right, tolerance));
    EXPECT_FALSE(close(got, wrong, tolerance)) << "the fault goes unnoticed";
  }
};
INSTANTIATE_TEST_SUITE_P(All, SeededFault, testing::ValuesIn(test_devices()), device_name);

TEST_P(SeededFault, AttentionSinks) {
  Memory memory(51);
  // A long context, where one sink is a small part of the softmax.
  const AttentionSetup setup(memory, {.rows = {4}, .keys = {4200}, .heads = 8, .kv_heads = 1, .cache = DType::kBF16});
  const Tensor out = setup.output();
  call(context(), ops::attention, setup.args, out);
  Doubles scaled = values(setup.args.sinks), one_dropped = scaled;
  for (double& s : scaled) s *= double(setup.args.scale);
  one_dropped[5] = -1e30;
  const Doubles right = setup.reference();
  notices(values(out), right, setup.reference(setup.shape(), {}), setup.tolerance());
  notices(values(out), right, setup.reference(setup.shape(), one_dropped), setup.tolerance());
  notices(values(out), right, setup.reference(setup.shape(), scaled), setup.tolerance());
}

TEST_P(SeededFault, AttentionWindowAndMask) {
  for (const std::int32_t keys : {200, 4300}) {
    Memory memory(52);
    const AttentionSetup setup(
        memory, {.rows = {5}, .keys = {keys}, .heads = 8, .kv_heads = 1, .cache = DType::kBF16, .window = 128});
    const Tensor out = setup.output();
    call(context(), ops::attention, setup.args, out);
    for (const int shift : {-1, 1}) {
      reference::AttentionShape wrong = setup.shape();
      wrong.window += std::size_t(shift);
      notices(values(out), setup.reference(), setup.reference(wrong, values(setup.args.sinks)), setup.tolerance());
    }
  }
  Memory memory(53);
  const AttentionSetup setup(memory, {.rows = {200}, .keys = {200}});
  const Tensor out = setup.output();
  call(context(), ops::attention, setup.args, out);
  reference::AttentionShape wrong = setup.shape();
  wrong.causal = false;
  notices(values(out), setup.reference(), setup.reference(wrong, values(setup.args.sinks)), setup.tolerance());
}

TEST_P(SeededFault, RopeFactorAndPairing) {
  Memory memory(54);
  Doubles frequencies;
  for (int i = 0; i < 32; ++i) frequencies.push_back(double(float(std::pow(150000.0, -i / 32.0))));
  const std::vector<std::int32_t> positions = {5, 4097, 131'071};
  const Tensor cos = memory.make(DType::kF32, {3, 32}), sin = memory.make(DType::kF32, {3, 32});
  const double factor = 1.3465735902799727;
  call(context(), ops::rope_table, memory.ints(positions), memory.floats(frequencies, {32}), float(factor), cos, sin);
  const auto right = reference::rope_table(positions, frequencies, factor),
             wrong = reference::rope_table(positions, frequencies, 1);
  const Tolerance tolerance{2 * kEps, 4 * kEps};
  notices(values(cos), right.cos, wrong.cos, tolerance);
  // Angles formed in double instead of binary32 differ at far positions.
  Doubles exact;
  for (const std::int32_t p : positions)
    for (const double f : frequencies) exact.push_back(std::sin(p * f) * factor);
  notices(values(sin), right.sin, exact, tolerance);
  const Tensor x = memory.normal(DType::kF32, {3, 2, 64});
  const Doubles before = values(x);
  call(context(), ops::rope, cos, sin, x);
  Doubles interleaved(before.size());
  for (std::size_t i = 0; i < before.size(); ++i) interleaved[i] = before[i / 64 * 64 + (i % 2) * 32 + i % 64 / 2];
  const Tolerance sums = sum_tolerance(2, 2 * largest(before));
  notices(values(x), reference::rope(before, values(cos), values(sin), 2, 64),
          reference::rope(interleaved, values(cos), values(sin), 2, 64), sums);
}

TEST_P(SeededFault, ExpertActivation) {
  Memory memory(55);
  const Tensor h = memory.normal(DType::kF32, {6, 200}, 5), out = memory.make(DType::kF32, {6, 100});
  call(context(), ops::swiglu, h, 1.702f, 7.f, out);
  const Doubles in = values(h), right = reference::swiglu(in, double(1.702f), 7);
  const Tolerance tolerance = sum_tolerance(16, largest(right));
  Doubles swapped = in, clamped = in, halves = in;
  for (std::size_t i = 0; i < in.size(); i += 2) {
    std::swap(swapped[i], swapped[i + 1]);
    clamped[i] = std::max(in[i], -7.0);
    halves[i] = in[i / 200 * 200 + i % 200 / 2];
    halves[i + 1] = in[i / 200 * 200 + 100 + i % 200 / 2];
  }
  notices(values(out), right, reference::swiglu(swapped, double(1.702f), 7), tolerance);
  notices(values(out), right, reference::swiglu(clamped, double(1.702f), 7), tolerance);
  notices(values(out), right, reference::swiglu(halves, double(1.702f), 7), tolerance);
  notices(values(out), right, reference::swiglu(in, 1, 7), tolerance);
}

TEST_P(SeededFault, Router) {
  Memory memory(56);
  const Tensor x = memory.normal(DType::kF32, {8, 96}), weight = memory.normal(DType::kF32, {32, 96}, 0.1);
  const Tensor bias = memory.normal(DType::kF32, {32}, 0.1), logits = memory.make(DType::kF32, {8, 32});
  const Tensor indices = memory.make(DType::kI32, {8, 4}), weights = memory.make(DType::kF32, {8, 4});
  call(context(), ops::router, x, weight, bias, Tensor(), Tensor(), logits, indices, weights);
  const auto right = reference::router(values(x), values(weight), values(bias), {}, {}, 96, 4);
  // Softmax over all experts before the selection.
  Doubles before;
  const auto all = reference::top_k_softmax(right.logits, 32, 32);
  for (std::size_t t = 0; t < 8; ++t)
    before.insert(before.end(), all.weights.begin() + std::ptrdiff_t(t) * 32,
                  all.weights.begin() + std::ptrdiff_t(t) * 32 + 4);
  const Tolerance tolerance = sum_tolerance(96 + 8, 1);
  notices(values(weights), right.weights, before, tolerance);
  notices(values(logits), right.logits, reference::linear(values(x), values(weight), {}, 96), sum_tolerance(96, 2));
}

TEST_P(SeededFault, RouterTiesGoToTheLowerIndex) {
  Memory memory(57);
  const Tensor x = memory.zeros(DType::kF32, {1, 4}), weight = memory.zeros(DType::kF32, {6, 4});
  const Tensor bias = memory.floats({1, 2, 2, 0, 2, 1}, {6}), logits = memory.make(DType::kF32, {1, 6});
  const Tensor indices = memory.make(DType::kI32, {1, 4}), weights = memory.make(DType::kF32, {1, 4});
  call(context(), ops::router, x, weight, bias, Tensor(), Tensor(), logits, indices, weights);
  EXPECT_EQ(ints_of(indices), (std::vector<std::int32_t>{1, 2, 4, 0}));
}

TEST_P(SeededFault, MixtureOfExperts) {
  for (const bool mxfp4 : {false, true}) {
    Memory memory(58);
    const MoeSetup setup(memory, {6, 3, 5, 64, 64, mxfp4, DType::kF32});
    const Tensor out = memory.zeros(DType::kF32, setup.x.shape);
    setup.run(context(), out);
    const Doubles x = values(setup.x), shares = values(setup.weights), right = setup.reference();
    const auto wrong = [&](const reference::Experts<double>& e, const Doubles& w) {
      return reference::moe(x, ints_of(setup.indices), w, e, double(1.702f), 7);
    };
    // The down bias outside the weighted sum: added once per expert with weight one.
    reference::Experts<double> no_bias = setup.experts;
    no_bias.down_bias.clear();
    Doubles outside = wrong(no_bias, shares);
    for (std::size_t i = 0; i < shares.size(); ++i)
      for (std::size_t c = 0; c < 64; ++c)
        outside[i / 3 * 64 + c] += setup.experts.down_bias[std::size_t(ints_of(setup.indices)[i]) * 64 + c];
    notices(values(out), right, outside, setup.tolerance());
    // Gate and up rows swapped.
    reference::Experts<double> swapped = setup.experts;
    for (std::size_t row = 0; row < 5 * 128; row += 2) {
      std::swap(swapped.gate_up_bias[row], swapped.gate_up_bias[row + 1]);
      for (std::size_t c = 0; c < 64; ++c)
        std::swap(swapped.gate_up[row * 64 + c], swapped.gate_up[(row + 1) * 64 + c]);
    }
    notices(values(out), right, wrong(swapped, shares), setup.tolerance());
    // A square down projection transposed passes every shape check.
    reference::Experts<double> transposed = setup.experts;
    for (std::size_t i = 0; i < transposed.down.size(); ++i) {
      transposed.down[i] = setup.experts.down[i / 4096 * 4096 + i % 64 * 64 + i / 64 % 64];
    }
    notices(values(out), right, wrong(transposed, shares), setup.tolerance());
    // Nibbles in the other order: neighbours along the input swapped.
    reference::Experts<double> nibbles = setup.experts;
    for (std::size_t i = 0; i < nibbles.gate_up.size(); i += 2) std::swap(nibbles.gate_up[i], nibbles.gate_up[i + 1]);
    notices(values(out), right, wrong(nibbles, shares), setup.tolerance());
  }
}

TEST_P(SeededFault, GeluForms) {
  Memory memory(59);
  const Tensor x = memory.normal(DType::kF32, {4, 100}, 2), out = memory.make(DType::kF32, x.shape);
  call(context(), ops::gelu, x, ops::Gelu::kErf, out);
  const Doubles right = reference::gelu(values(x), reference::Gelu::kErf);
  notices(values(out), right, reference::gelu(values(x), reference::Gelu::kTanh), sum_tolerance(16, largest(right)));
}

TEST_P(SeededFault, LayerNormEpsilon) {
  Memory memory(60);
  const Tensor x = memory.normal(DType::kF32, {4, 64}, 0.1), w = memory.normal(DType::kF32, {64}),
               out = memory.make(DType::kF32, x.shape);
  call(context(), ops::layer_norm, x, w, w, 1e-5f, out);
  const Doubles right = reference::layer_norm(values(x), values(w), values(w), double(1e-5f));
  notices(values(out), right, reference::layer_norm(values(x), values(w), values(w), 1e-12),
          sum_tolerance(8, largest(right)));
}

// One wrong element among many is caught by the second metric where the first would let it pass.
TEST_P(SeededFault, SingleElement) {
  Doubles right(1'000'000, 1.0), got = right;
  got[123'456] += 1e-4;
  EXPECT_TRUE(close(got, right, {sum_tolerance(4, 1).relative_l2, 1}));
  EXPECT_FALSE(close(got, right, sum_tolerance(4, 1)));
}

}  // namespace
}  // namespace gov::test
