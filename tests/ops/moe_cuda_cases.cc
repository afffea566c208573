// Mixtures of experts for the tensor-core paths of CUDA (src/ops/moe_cuda.cu): chunk widths around every kernel's,
// experts without rows, all rows at one expert, pairs to skip, both forms of the weights.
#include <algorithm>

#include "tests/ops/expert_setup.h"

namespace gov::test {
namespace {

enum class Routes { kRandom, kOneExpert, kSkipped };

// The reference knows no indices outside [0, E): there a skipped pair is one without weight.
Doubles reference_of(const MoeSetup& setup) {
  std::vector<std::int32_t> chosen = ints_of(setup.indices);
  Doubles shares = values(setup.weights);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (chosen[i] >= 0 && chosen[i] < setup.problem.experts) continue;
    chosen[i] = 0;
    shares[i] = 0;
  }
  return reference::moe(values(setup.x), chosen, shares, setup.experts, double(1.702f), 7);
}

Doubles tensor_core_case(Context& ctx, const MoeProblem& problem, Routes routes, bool expanded) {
  Memory memory(47);
  memory.aligned = true;
  MoeSetup setup(memory, problem);
  std::vector<std::int32_t> chosen = ints_of(setup.indices);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (routes == Routes::kOneExpert) chosen[i] = std::int32_t(problem.experts - 1);
    if (routes == Routes::kSkipped && i % 3 == 0) chosen[i] = i % 2 == 0 ? -1 : std::int32_t(problem.experts);
  }
  setup.indices = memory.ints(chosen, setup.indices.shape);
  setup.gate_up.moderate_scales = setup.down.moderate_scales = true;
  if (expanded) {
    const auto wide = [&](const Doubles& weights, const ops::ExpertProjection& p) {
      return memory.floats(weights, {p.experts(), p.out_features(), p.in_features()}, DType::kBF16);
    };
    setup.gate_up.expanded = wide(setup.experts.gate_up, setup.gate_up);
    setup.down.expanded = wide(setup.experts.down, setup.down);
  }
  const Doubles want = reference_of(setup);
  const Tensor out = memory.zeros(DType::kF32, setup.x.shape);
  setup.run(ctx, out);
  Tolerance tolerance = sum_tolerance(static_cast<double>(problem.hidden + problem.inner), largest(want), 2);
  // Activations are rounded before and behind their nonlinearity, and the experts' results of large batches.
  for (int i = 0; i < 5; ++i) tolerance = rounded(tolerance, DType::kBF16, want);
  EXPECT_TRUE(close(values(out), want, tolerance));
  return values(out);
}

}  // namespace

std::vector<OpCase> moe_cuda_cases() {
  std::vector<OpCase> cases;
  const auto add = [&](std::string name, MoeProblem p, Routes routes = Routes::kRandom, bool expanded = false) {
    p.act = p.dtype = DType::kBF16;
    cases.push_back(
        {"moe_tensor_cores_" + name, [=](Context& ctx) { return tensor_core_case(ctx, p, routes, expanded); }, true});
  };
  // Tokens chosen so that the fullest experts have 1, 8 and 9, 16 and more rows, and so on past every chunk width.
  for (const std::int64_t tokens : {1, 2, 9, 17, 40, 70, 110, 200, 500}) {
    add(fmt::format("mxfp4_{}", tokens), {tokens, 2, 4, 96, 160, true});
  }
  add("mxfp4_one_block", {3, 1, 1, 32, 32, true});
  add("mxfp4_many_experts", {30, 4, 300, 64, 32, true});
  add("mxfp4_one_expert", {300, 2, 5, 288, 96, true}, Routes::kOneExpert);
  add("mxfp4_skipped", {61, 3, 6, 160, 224, true}, Routes::kSkipped);
  add("mxfp4_wide", {12, 4, 4, 1440, 416, true});
  add("expanded", {1100, 2, 4, 96, 160, true}, Routes::kRandom, true);
  for (const std::int64_t tokens : {1, 40, 600}) add(fmt::format("bf16_{}", tokens), {tokens, 2, 3, 208, 136});
  add("bf16_one_expert", {400, 2, 5, 192, 96}, Routes::kOneExpert);
  add("bf16_skipped", {90, 3, 6, 144, 72}, Routes::kSkipped);
  return cases;
}

}  // namespace gov::test
