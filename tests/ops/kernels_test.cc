// Kernels behind no op of their own: the exponential, and the machine probes.
#include "ops/kernels.h"

#include <cmath>
#include <limits>

#include "ops/device_limits.h"
#include "tests/ops/harness.h"

namespace gov::test {
namespace {

TEST(Exp, IsAccurateToTwoUlpEverywhere) {
  for (const CpuIsa isa : available_isas()) {
    std::vector<float> x, out;
    for (double v = -87.3; v < 88.7; v += 0.00137) x.push_back(static_cast<float>(v));
    for (const float v : {0.f, -0.f, 1e-30f, -1e-30f, 0.34657359f, -0.34657359f, 88.72f}) x.push_back(v);
    out.resize(x.size());
    ops::kernels(isa).exp_sum(x.data(), std::int64_t(x.size()), 0.f, 1.f, out.data());
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want = std::exp(double(x[i]));
      worst = std::max(worst, std::fabs(double(out[i]) - want) / want);
    }
    EXPECT_LT(worst, 3 * kEps) << cpu_isa_name(isa);  // 1.5 units in the last place
  }
}

TEST(Exp, IsSafeOutsideItsRange) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const CpuIsa isa : available_isas()) {
    const std::vector<float> x = {-kInf, -1e30f, -104.f, -100.f, -88.f, 89.f, 1e30f, kInf, NAN};
    std::vector<float> out(x.size());
    ops::kernels(isa).exp_sum(x.data(), std::int64_t(x.size()), 0.f, 1.f, out.data());
    EXPECT_EQ(out[0], 0);
    EXPECT_EQ(out[1], 0);
    EXPECT_EQ(out[2], 0);
    EXPECT_NEAR(out[3], std::exp(-100.0), 0x1p-149);  // subnormal: within its spacing
    EXPECT_NEAR(out[4], std::exp(-88.0), 0x1p-149);
    EXPECT_EQ(out[5], kInf);
    EXPECT_EQ(out[6], kInf);
    EXPECT_EQ(out[7], kInf);
    EXPECT_TRUE(std::isnan(out[8])) << cpu_isa_name(isa);
  }
}

TEST(Exp, SumCountsEveryElementOnce) {
  for (const CpuIsa isa : available_isas())
    for (const std::size_t n : {1u, 3u, 15u, 16u, 17u, 1023u, 1024u, 1025u, 5000u}) {
      const std::vector<float> x(n, 2.f);
      EXPECT_DOUBLE_EQ(ops::kernels(isa).exp_sum(x.data(), std::int64_t(n), 2.f, 1.f, nullptr), double(n))
          << cpu_isa_name(isa);
    }
}

TEST(Kernels, FallBackToWhatTheMachineHas) {
  EXPECT_EQ(&ops::kernels(CpuIsa::kBaseline), &ops::baseline::kernels());
  for (const CpuIsa isa : {CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    const bool native = isa <= cpu_info().best;
    EXPECT_EQ(ops::kernels(isa).lanes, !native ? ops::kernels(cpu_info().best).lanes : isa == CpuIsa::kAvx2 ? 8 : 16);
  }
}

TEST(DeviceLimits, AreMeasuredPerInstructionSet) {
  ThreadPool pool(2);
  for (const CpuIsa isa : available_isas()) {
    const ops::DeviceLimits limits = ops::measure_device_limits(pool, isa);
    EXPECT_GT(limits.read_gbps, 0.1);
    EXPECT_LT(limits.read_gbps, 20'000);
    EXPECT_GT(limits.fma_gflops, 0.1);
    EXPECT_LT(limits.fma_gflops, 2 * 32 * 2 * 8.0 * 2);  // two threads, two 512-bit units, 8 GHz: beyond any machine
  }
}

}  // namespace
}  // namespace gov::test
