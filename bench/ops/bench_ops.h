#pragma once
// What the benchmarks of ops on the CPU share: tensors of random data, and the rows that are printed.

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "base/timer.h"
#include "ops/backward.h"
#include "ops/device_limits.h"

namespace gov::bench {

inline constexpr std::int64_t kHidden = 2880, kHeads = 64, kKvHeads = 8, kHeadDim = 64, kVocabulary = 201'088;

// Memory for the tensors of one benchmark, filled with random data: zeros would be faster than life.
struct Tensors {
  std::vector<Buffer> buffers;
  std::uint64_t next_key = 1;

  Tensor make(DType dtype, Shape shape) {
    const std::size_t bytes = static_cast<std::size_t>(shape.elements()) * dtype_size(dtype);
    buffers.emplace_back(bytes, DeviceKind::kCpu, "benchmark");
    std::memset(buffers.back().data(), 0, bytes);
    return Tensor(buffers.back().data(), dtype, shape);
  }
  Tensor random(DType dtype, Shape shape, float scale = 0.05f) {
    Tensor t = make(dtype, shape);
    std::uint64_t state = next_key++ * 0x9E3779B97F4A7C15ull;
    for (std::int64_t i = 0; i < t.elements(); ++i) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      const float u = (static_cast<float>(state >> 40) * 0x1p-23f - 1.f) * scale;
      switch (dtype) {
        case DType::kF32: t.as<float>()[i] = u; break;
        case DType::kBF16: t.as<bf16>()[i] = to_bf16(u); break;
        case DType::kF16: t.as<f16>()[i] = to_f16(u); break;
        default: t.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(state >> 56); break;
      }
    }
    return t;
  }
  Tensor integers(std::vector<std::int32_t> values) {
    const std::int64_t count = static_cast<std::int64_t>(values.size());
    Tensor t = make(DType::kI32, {count});
    std::copy(values.begin(), values.end(), t.as<std::int32_t>());
    return t;
  }
};

struct Bench {
  Context ctx;
  ops::DeviceLimits limits;
  double seconds = 0.25;
  std::string only;

  void row(const std::string& name, const std::function<void()>& run) {
    if (name.find(only) == std::string::npos) return;
    run();
    ctx.counters = {};
    run();
    const Counters once = ctx.counters;
    std::vector<double> times;
    const Timer total;
    while (times.size() < 5 || (total.seconds() < seconds && times.size() < 10'000)) {
      const Timer timer;
      run();
      times.push_back(timer.seconds());
    }
    std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
    const double median = times[times.size() / 2];
    const double gbps = once.bytes / median * 1e-9, gflops = once.flops / median * 1e-9;
    const double share = std::max(gbps / limits.read_gbps, gflops / limits.fma_gflops);
    fmt::print("{:<34}{:>12.4f} ms{:>9.1f} GB/s{:>9.1f} GFLOP/s{:>7.0f} %\n", name, median * 1e3, gbps, gflops,
               share * 100);
  }
};

inline ops::ExpertProjection mxfp4_projection(Tensors& memory, std::int64_t experts, std::int64_t out,
                                              std::int64_t in) {
  ops::ExpertProjection p;
  p.blocks = memory.random(DType::kU8, {experts, out, in / 32, 16});
  p.scales = memory.make(DType::kU8, {experts, out, in / 32});
  for (std::int64_t i = 0; i < p.scales.elements(); ++i)
    p.scales.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(119 + i % 3);
  p.bias = memory.random(DType::kBF16, {experts, out});
  return p;
}

// bench_backward.cc
void bench_backward(Bench& bench);

}  // namespace gov::bench
