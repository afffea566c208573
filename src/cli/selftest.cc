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

SelfTestResult run_case(const OpCase& op, Context& ctx, std::string where, double tolerance) {
  SelfTestResult result;
  result.op = op.name;
  result.where = std::move(where);
  try {
    const auto [values, expected] = op.run(ctx);
    result.error = relative_distance(values, expected);
    bool finite = !values.empty();
    for (const float value : values) finite = finite && std::isfinite(value);
    if (!finite) result.message = "not finite";
    result.ok = finite && result.error <= tolerance;
  } catch (const Error& error) {
    result.message = error.what();
  }
  return result;
}

}  // namespace

std::vector<SelfTestResult> self_test(ThreadPool& pool, const Machine& machine) {
  std::vector<SelfTestResult> results;
  for (const OpCase& op : op_cases()) {
    Context ctx;
    ctx.pool = &pool;
    for (const CpuIsa isa : {CpuIsa::kBaseline, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
      if (isa > cpu_info().best) break;
      ctx.isa = isa;
      results.push_back(run_case(op, ctx, cpu_isa_name(isa), kSelfTestTolerance));
    }
    if (!machine.on_cuda()) continue;
    Workplace place(machine, pool, cpu_info().best);
    results.push_back(run_case(op, place.ctx, "cuda", kCudaTolerance));
  }
  return results;
}

}  // namespace gov::cli
