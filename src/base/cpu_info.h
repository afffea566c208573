#pragma once
// What this processor can do, found once at run time. The SIMD kernels are compiled per instruction set and chosen by
// it.

#include <cstdint>
#include <string>

namespace gov {

enum class CpuIsa { kBaseline, kAvx2, kAvx512 };  // each implies the ones before it on x86-64

struct CpuInfo {
  std::string model;                // "AMD EPYC ..." or "unknown"
  CpuIsa best = CpuIsa::kBaseline;  // kAvx2 = AVX2+FMA+F16C; kAvx512 = F+BW+DQ+VL
  bool avx512_bf16 = false;
  bool avx512_vnni = false;
};

const CpuInfo& cpu_info();
const char* cpu_isa_name(CpuIsa isa);  // "baseline", "avx2", "avx512"

// Bytes of physical memory that this process can still take (MemAvailable, cut by the control group's limit).
std::uint64_t available_memory();
// Bytes of physical memory of the machine, cut by the control group's limit.
std::uint64_t total_memory();

}  // namespace gov
