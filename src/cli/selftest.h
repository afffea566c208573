#pragma once
// The self-test that `doctor` runs: every op, on the baseline kernels, on each faster instruction set of this processor
// and on the GPU if one is chosen, against the scalar reference in double (ops/reference).

#include <functional>
#include <string>
#include <vector>

#include "cli/common.h"
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
  std::string where;  // "avx2", "cuda"
  double error = 0;   // relative L2 distance from the reference
  bool ok = false;
  std::string message;  // of an exception
};

// Sums in another order and fused products: a few units in the last place. On a GPU F32 factors are split into parts.
inline constexpr double kSelfTestTolerance = 2e-6, kCudaTolerance = 1e-5;

std::vector<SelfTestResult> self_test(ThreadPool& pool, const Machine& machine);

// "libspng 0.7.3, libjpeg-turbo ...": releases of the picture decoders.
std::string image_libraries();

}  // namespace gov::cli
