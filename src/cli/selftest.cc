#include "cli/selftest.h"

#include <cmath>

namespace gov::cli {
namespace {

double relative_distance(const std::vector<float>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return HUGE_VAL;
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - b[i];
    difference += d * d;
    norm += b[i] * b[i];
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

}  // namespace

std::vector<SelfTestResult> self_test(ThreadPool& pool) {
  std::vector<SelfTestResult> results;
  for (const OpCase& op : op_cases()) {
    Context ctx;
    ctx.pool = &pool;
    ctx.isa = CpuIsa::kBaseline;
    for (const CpuIsa isa : {CpuIsa::kBaseline, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
      if (isa > cpu_info().best) break;
      SelfTestResult result;
      result.op = op.name;
      result.isa = isa;
      ctx.isa = isa;
      try {
        const auto [values, expected] = op.run(ctx);
        result.error = relative_distance(values, expected);
        bool finite = !values.empty();
        for (const float value : values) finite = finite && std::isfinite(value);
        if (!finite) result.message = "not finite";
        result.ok = finite && result.error <= kSelfTestTolerance;
      } catch (const Error& error) {
        result.message = error.what();
      }
      results.push_back(std::move(result));
    }
  }
  return results;
}

}  // namespace gov::cli
