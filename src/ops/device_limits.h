#pragma once
// What this machine can do at most, measured: the denominators of every "percent of limit".

#include "base/cpu_info.h"
#include "base/thread_pool.h"
#include "tensor/context.h"

namespace gov::ops {

struct DeviceLimits {
  double read_gbps = 0;   // memory read by all threads of the pool, or by a GPU, 10^9 bytes a second
  double fma_gflops = 0;  // multiply-adds, counted as two: binary32 of all threads; on a GPU BF16 of the tensor cores
  // Of a GPU: bytes read plus bytes written while copying, and what page-locked memory of the host sends to it.
  double copy_gbps = 0, host_gbps = 0;
};

// Takes about half a second and up to 256 MiB of memory. `isa` picks the kernels, as Context::isa does.
DeviceLimits measure_device_limits(ThreadPool& pool, CpuIsa isa = cpu_info().best);
// Of the context's GPU, all on random data: a reduction that only reads, copies, and a BF16 matrix product of 8192^3 by
// cuBLASLt. Takes about half a second and up to 4 GiB of its memory, a quarter of what is free at most.
DeviceLimits measure_cuda_limits(Context& ctx);

}  // namespace gov::ops
