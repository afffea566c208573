#pragma once
// The self-test that `doctor` runs: every op, on the baseline kernels and on each faster instruction set of this
// processor, against the scalar reference in double (ops/reference).

#include <functional>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace gov::cli {

// All outputs of one op on fixed inputs, and the reference's.
struct OpRun {
  std::vector<float> values;
  std::vector<double> expected;
};

struct OpCase {
  std::string name;
  std::function<OpRun(Context&)> run;
};
std::vector<OpCase> op_cases();

struct SelfTestResult {
  std::string op;
  CpuIsa isa = CpuIsa::kBaseline;
  double error = 0;  // relative L2 distance from the reference
  bool ok = false;
  std::string message;  // of an exception
};

inline constexpr double kSelfTestTolerance =
    2e-6;  // sums in another order and fused products: a few units in the last place

std::vector<SelfTestResult> self_test(ThreadPool& pool);

// "libspng 0.7.3, libjpeg-turbo ...": releases of the picture decoders.
std::string image_libraries();

}  // namespace gov::cli
