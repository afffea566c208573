#pragma once
// Derivatives of the reference by complex steps, to compare the backward ops with: exact to the digits of double, for
// every element of every input.

#include <complex>

#include "ops/backward.h"
#include "ops/reference/math.h"
#include "tests/ops/harness.h"

namespace gov::test {

using reference::Complex;
using Complexes = std::vector<Complex>;

// d loss / d each element of each input; loss(std::vector<Complexes>) -> Complex.
template <class Loss>
std::vector<Doubles> gradients(const std::vector<Doubles>& inputs, Loss&& loss) {
  constexpr double kStep = 1e-50;
  std::vector<Complexes> at;
  std::vector<Doubles> result;
  for (const Doubles& input : inputs) at.emplace_back(input.begin(), input.end());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Doubles& slopes = result.emplace_back();
    for (std::size_t j = 0; j < inputs[i].size(); ++j) {
      at[i][j] = {inputs[i][j], kStep};
      slopes.push_back(loss(at).imag() / kStep);
      at[i][j] = inputs[i][j];
    }
  }
  return result;
}

// sum of factor[i] out[i]: what an op's outputs are worth when `factor` is their gradient.
inline Complex dot(const Complexes& out, const Doubles& factor) {
  Complex sum = 0;
  for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * factor[i];
  return sum;
}

inline Doubles plus(Doubles a, const Doubles& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

inline void append(Doubles& all, const Tensor& t) {
  const Doubles part = values(t);
  all.insert(all.end(), part.begin(), part.end());
}

// A gradient that an op has added to.
struct Added {
  Tensor t;
  Doubles before;
  Added(Memory& memory, Shape shape) : t(memory.normal(DType::kF32, shape)), before(values(t)) {}
  // The gradient, and every element of the sum within the tolerance.
  testing::AssertionResult is(const Doubles& want, Tolerance tolerance) const {
    const Doubles sum = plus(before, want);
    tolerance.absolute += 2 * kEps * largest(sum);
    tolerance.relative_l2 = tolerance.relative_l2 * norm(want) / norm(sum) + 2 * kEps;
    return close(values(t), sum, tolerance);
  }
};

// Of gradients: sums of `terms`, through intermediate values of type `act` that are rounded up to four times.
inline Tolerance gradient_tolerance(double terms, const Doubles& want, DType act, double k = 6) {
  Tolerance tolerance =
      sum_tolerance(terms, std::max(largest(want), norm(want) / std::sqrt(1 + double(want.size()))), k);
  for (int i = 0; i < 4; ++i) tolerance = rounded(tolerance, act, want);
  return tolerance;
}

inline constexpr DType kActTypes[] = {DType::kF32, DType::kBF16};
inline std::string act_suffix(DType act) { return act == DType::kBF16 ? "_act_bf16" : ""; }

}  // namespace gov::test
