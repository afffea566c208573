#include "base/cpu_info.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>

namespace gov {
namespace {

std::string proc_field(const char* file_name, const std::string& key) {
  std::ifstream file(file_name);
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const auto colon = line.find(':');
    if (colon == std::string::npos) continue;
    const auto begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

std::uint64_t number_in(const char* file_name) {
  std::ifstream file(file_name);
  std::uint64_t value = 0;
  return file >> value ? value : std::numeric_limits<std::uint64_t>::max();  // "max" and absent files: no limit
}

CpuInfo detect() {
  CpuInfo info;
  info.model = proc_field("/proc/cpuinfo", "model name");
  if (info.model.empty()) info.model = "unknown";
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2) info.best = CpuIsa::kAvx2;
  if (avx512) info.best = CpuIsa::kAvx512;
  info.avx512_bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  info.avx512_vnni = avx512 && __builtin_cpu_supports("avx512vnni");
#endif
  return info;
}

}  // namespace

const CpuInfo& cpu_info() {
  static const CpuInfo info = detect();
  return info;
}

const char* cpu_isa_name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kBaseline: return "baseline";
    case CpuIsa::kAvx2: return "avx2";
    case CpuIsa::kAvx512: return "avx512";
  }
  return "unknown";
}

std::uint64_t total_memory() {
  const std::uint64_t machine = std::strtoull(proc_field("/proc/meminfo", "MemTotal").c_str(), nullptr, 10) * 1024;
  return std::min(machine, number_in("/sys/fs/cgroup/memory.max"));
}

std::uint64_t available_memory() {
  const std::uint64_t machine = std::strtoull(proc_field("/proc/meminfo", "MemAvailable").c_str(), nullptr, 10) * 1024;
  const std::uint64_t limit = number_in("/sys/fs/cgroup/memory.max");
  const std::uint64_t used = number_in("/sys/fs/cgroup/memory.current");
  if (limit == std::numeric_limits<std::uint64_t>::max() || used > limit) return machine;
  return std::min(machine, limit - used);
}

}  // namespace gov
