#include "ops/kernels.h"

namespace gov::ops {

const Kernels& kernels(CpuIsa isa) {
#if defined(__x86_64__)
  const CpuIsa best = cpu_info().best;
  if (isa >= CpuIsa::kAvx512 && best >= CpuIsa::kAvx512) return avx512::kernels();
  if (isa >= CpuIsa::kAvx2 && best >= CpuIsa::kAvx2) return avx2::kernels();
#else
  (void)isa;
#endif
  return baseline::kernels();
}

}  // namespace gov::ops
