#include "ops/device_limits.h"

#include <algorithm>
#include <vector>

#include "base/timer.h"
#include "ops/kernels.h"
#include "tensor/tensor.h"

namespace gov::ops {
namespace {

// The best of repeated runs within `budget` seconds: other programs on the machine only ever make a run slower.
template <class Run>
double shortest(double budget, Run&& run) {
  const Timer total;
  double best = 1e9;
  do {
    const Timer timer;
    run();
    best = std::min(best, timer.seconds());
  } while (total.seconds() < budget);
  return best;
}

}  // namespace

DeviceLimits measure_device_limits(ThreadPool& pool, CpuIsa isa) {
  const Kernels& table = kernels(isa);
  std::vector<float> sink(static_cast<std::size_t>(pool.size()));  // keeps the results alive

  const std::size_t bytes = std::min<std::size_t>(std::size_t{256} << 20, available_memory() / 8) & ~std::size_t{4095};
  constexpr std::int64_t kRun = std::int64_t{1} << 16;  // floats per task
  const std::int64_t floats = static_cast<std::int64_t>(bytes / sizeof(float)), runs = floats / kRun;
  DeviceLimits limits;
  if (runs > 0) {
    const Buffer buffer(bytes, DeviceKind::kCpu, "bandwidth measurement");
    float* data = static_cast<float*>(buffer.data());
    pool.parallel_for(runs, 1, [&](std::int64_t begin, std::int64_t end, int) {
      std::fill(data + begin * kRun, data + end * kRun, 1.f);
    });
    const double seconds = shortest(0.2, [&] {
      pool.parallel_for(runs, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
        for (std::int64_t i = begin; i < end; ++i)
          sink[static_cast<std::size_t>(thread)] += table.read_sum(data + i * kRun, kRun);
      });
    });
    limits.read_gbps = static_cast<double>(runs * kRun) * sizeof(float) / seconds * 1e-9;
  }

  constexpr std::int64_t kSteps = 200'000;
  const std::int64_t tasks = 8 * pool.size();
  const double seconds = shortest(0.2, [&] {
    pool.parallel_for(tasks, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
      for (std::int64_t i = begin; i < end; ++i)
        sink[static_cast<std::size_t>(thread)] += table.fma_chains(kSteps, 1e-3f);
    });
  });
  limits.fma_gflops = static_cast<double>(tasks * kSteps * kFmaChains * table.lanes) * 2 / seconds * 1e-9;
  return limits;
}

}  // namespace gov::ops
