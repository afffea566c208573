#pragma once
// What this machine can do at most, measured: the denominators of every "percent of limit".

#include "base/cpu_info.h"
#include "base/thread_pool.h"

namespace gov::ops {

struct DeviceLimits {
  double read_gbps = 0;   // memory read by all threads of the pool, 10^9 bytes a second
  double fma_gflops = 0;  // binary32 multiply-adds of all threads, counted as two
};

// Takes about half a second and up to 256 MiB of memory. `isa` picks the kernels, as Context::isa does.
DeviceLimits measure_device_limits(ThreadPool& pool, CpuIsa isa = cpu_info().best);

}  // namespace gov::ops
