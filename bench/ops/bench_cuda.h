#pragma once
// What the benchmarks of ops on a GPU share: memory, and the time of a row.

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json_writer.h"
#include "bench/ops/bench_ops_cuda.h"
#include "ops/device_limits.h"
#include "ops/device_only.h"
#include "tensor/device.h"

namespace gov {

struct CudaBench {
  explicit CudaBench(const CudaBenchOptions& o, void* stream) : ctx(o.ordinal, stream), options(o) {}

  // Device memory with random contents: zeros would be faster than life.
  Tensor make(DType dtype, Shape shape, float deviation = 1.f) {
    const std::size_t bytes = static_cast<std::size_t>(shape.elements()) * dtype_size(dtype);
    buffers.emplace_back(bytes, DeviceKind::kCuda, "benchmark");
    const Tensor t(buffers.back().data(), dtype, shape, "benchmark", DeviceKind::kCuda);
    if (dtype == DType::kI32 || dtype == DType::kI64) fill_bytes(t.data, DeviceKind::kCuda, 0, bytes, ctx.stream);
    else if (dtype != DType::kI8) ops::fill_random(ctx, t, deviation, ++key);
    return t;
  }
  Tensor integers(const std::vector<std::int32_t>& values, Shape shape) {
    const Tensor t = make(DType::kI32, shape);
    copy_bytes(t.data, DeviceKind::kCuda, values.data(), DeviceKind::kCpu, t.bytes(), ctx.stream);
    synchronize(ctx.stream);
    return t;
  }
  void release() {
    synchronize(ctx.stream);
    buffers.clear();
  }

  // One op, called with 0, 1, 2, ... so that it can take other weights each time: kCalls calls in a graph, which leaves
  // out what launching costs.
  // known: what a call moves and computes, where that depends on lengths in device memory.
  void row(const std::string& name, const std::function<void(std::size_t call)>& run,
           const std::optional<Counters>& known = {}) {
    constexpr std::size_t kCalls = 16;
    if (name.find(options.only) == std::string::npos) return;
    for (std::int64_t before = -1; before != ctx.workspace.generation();) {  // until it has its size
      before = ctx.workspace.generation();
      run(0);
    }
    ctx.workspace.compact();
    ctx.counters = {};
    run(0);
    const Counters once = known.value_or(ctx.counters);
    const Graph graph = Graph::capture(ctx.stream, [&] {
      for (std::size_t i = 0; i < kCalls; ++i) run(i);
    });
    Event begin = Event::create(), end = Event::create();
    std::vector<double> times;
    for (int i = -1; i < 9; ++i) {
      begin.record(ctx.stream);
      graph.launch(ctx.stream);
      end.record(ctx.stream);
      const double seconds = end.seconds_since(begin) / kCalls;
      if (i >= 0) times.push_back(seconds);
    }
    std::nth_element(times.begin(), times.begin() + 4, times.end());
    print(name, once, times[4]);
  }

  void print(const std::string& name, const Counters& once, double median) const {
    const double gbps = once.bytes / median * 1e-9, gflops = once.flops / median * 1e-9;
    const double share = std::max(gbps / limits.read_gbps, gflops / limits.fma_gflops);
    if (options.json) {
      JsonWriter out;
      out.begin_object().field("work", "op").field("op", name).field("device", cuda_device_info(ctx.ordinal).name);
      out.field("value", median * 1e6).field("unit", "us").field("gbps", gbps).field("gflops", gflops);
      out.field("percent", share * 100).field("read_gbps", limits.read_gbps).field("fma_gflops", limits.fma_gflops);
      fmt::print("{}\n", out.end_object().str());
      return;
    }
    fmt::print("{:<44}{:>10.2f} us{:>9.1f} GB/s{:>10.1f} GFLOP/s{:>6.0f} %\n", name, median * 1e6, gbps, gflops,
               share * 100);
  }

  Context ctx;
  CudaBenchOptions options;
  ops::DeviceLimits limits;
  std::vector<Buffer> buffers;
  std::uint64_t key = 0;
};

// Rows of the derivatives and of the optimizer.
void bench_backward_cuda(CudaBench& b);

}  // namespace gov
