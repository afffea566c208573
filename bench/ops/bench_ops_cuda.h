#pragma once
// The op benchmark on a GPU, at the widths of gpt-oss-20b.

#include <string>

namespace gov {

struct CudaBenchOptions {
  int ordinal = 0;
  std::string only;   // rows whose name holds this text
  bool json = false;  // one object a row, the form of bench/log
};

// Prints a row for each op: median microseconds of a call within a graph, GB/s and GFLOP/s by the op's own formula, and
// the share of what the device was measured to do. Error kUnsupported without CUDA.
void bench_cuda_ops(const CudaBenchOptions& options);

}  // namespace gov
