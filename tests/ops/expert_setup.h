#pragma once
// Random mixtures of experts in every weight format, with their reference.

#include "ops/reference/math.h"
#include "tests/ops/harness.h"

namespace gov::test {

struct MoeProblem {
  std::int64_t tokens, per_token, experts, hidden, inner;
  bool mxfp4 = false;
  DType dtype = DType::kF32;  // of dense weights and of biases
  DType act = DType::kF32;    // of x
};

struct MoeSetup {
  MoeSetup(Memory& memory, const MoeProblem& problem);
  void run(Context& ctx, const Tensor& out) const {
    call(ctx, ops::moe, x, indices, weights, gate_up, down, 1.702f, 7.f, out);
  }
  Doubles reference() const;
  Tolerance tolerance() const;

  MoeProblem problem;
  Tensor x, indices, weights;
  ops::ExpertProjection gate_up, down;
  reference::Experts<double> experts;
};

}  // namespace gov::test
