// What a GPU can do at most, measured with the plainest kernels for it: the denominators of every "percent of limit".
#include <cublasLt.h>

#include <algorithm>
#include <vector>

#include "ops/cuda/support.cuh"
#include "ops/device_limits.h"
#include "ops/device_only.h"

namespace gov::ops {
namespace {

using namespace cuda;

constexpr int kThreads = 512;
constexpr int kLoads = 8;  // 16-byte loads of a thread that are under way together

// Every block walks through the array in steps of the grid; nothing is written unless the sum is one that random data
// do not have. The aim is the memory's read speed.
__global__ void __launch_bounds__(kThreads) read_kernel(const uint4* in, std::int64_t count, std::uint32_t* sink) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads * kLoads;
  std::uint32_t mixed = 0;
  for (std::int64_t base = static_cast<std::int64_t>(blockIdx.x) * kThreads * kLoads + threadIdx.x; base < count;
       base += step) {
    uint4 values[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const std::int64_t at = base + static_cast<std::int64_t>(i) * kThreads;
      values[i] = at < count ? __ldcs(in + at) : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) mixed ^= values[i].x ^ values[i].y ^ values[i].z ^ values[i].w;
  }
  if (mixed == 0x12345678u) atomicAdd(sink, 1u);
}

struct Timer {
  Event begin = Event::create(), end = Event::create();
};

// The median of `count` runs, in seconds, after two that warm up.
template <class Run>
double median_seconds(Context& ctx, int count, Run&& run) {
  Timer timer;
  std::vector<double> seconds;
  for (int i = -2; i < count; ++i) {
    timer.begin.record(ctx.stream);
    run();
    timer.end.record(ctx.stream);
    const double taken = timer.end.seconds_since(timer.begin);
    if (i >= 0) seconds.push_back(taken);
  }
  std::nth_element(seconds.begin(), seconds.begin() + count / 2, seconds.end());
  return seconds[static_cast<std::size_t>(count / 2)];
}

void check_lt(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(ErrorCode::kDevice, "cuBLASLt: {}: status {}", what, static_cast<int>(status));
}

// Handles that end with the measurement.
struct Product {
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t layout = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  ~Product() {
    if (preference) cublasLtMatmulPreferenceDestroy(preference);
    if (layout) cublasLtMatrixLayoutDestroy(layout);
    if (operation) cublasLtMatmulDescDestroy(operation);
    if (handle) cublasLtDestroy(handle);
  }
};

// C = A^T B of n x n BF16 matrices with F32 sums.
double product_gflops(Context& ctx, std::int64_t n) {
  const auto bytes = static_cast<std::size_t>(n * n) * sizeof(bf16_t);
  constexpr std::size_t kWorkspace = std::size_t{32} << 20;
  const Buffer memory(3 * bytes + kWorkspace, DeviceKind::kCuda, "arithmetic measurement");
  char* base = static_cast<char*>(memory.data());
  for (std::uint64_t i = 0; i < 2; ++i)
    fill_random(ctx, Tensor(base + i * bytes, DType::kBF16, {n, n}, "matrix", DeviceKind::kCuda), 1.f, i + 1);
  Product p;
  check_lt(cublasLtCreate(&p.handle), "a handle");
  check_lt(cublasLtMatmulDescCreate(&p.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "an operation");
  const cublasOperation_t turned = CUBLAS_OP_T;
  check_lt(cublasLtMatmulDescSetAttribute(p.operation, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof turned),
           "transposing");
  check_lt(cublasLtMatrixLayoutCreate(&p.layout, CUDA_R_16BF, static_cast<std::uint64_t>(n),
                                      static_cast<std::uint64_t>(n), n),
           "a layout");
  check_lt(cublasLtMatmulPreferenceCreate(&p.preference), "a preference");
  check_lt(cublasLtMatmulPreferenceSetAttribute(p.preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace,
                                                sizeof kWorkspace),
           "a preference");
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  check_lt(cublasLtMatmulAlgoGetHeuristic(p.handle, p.operation, p.layout, p.layout, p.layout, p.layout, p.preference,
                                          1, &found, &count),
           "choosing a kernel");
  if (count == 0) fail(ErrorCode::kDevice, "cuBLASLt: no kernel for a BF16 product of {}", n);
  const float one = 1.f, zero = 0.f;
  const double seconds = median_seconds(ctx, 9, [&] {
    check_lt(
        cublasLtMatmul(p.handle, p.operation, &one, base, p.layout, base + bytes, p.layout, &zero, base + 2 * bytes,
                       p.layout, base + 2 * bytes, p.layout, &found.algo, base + 3 * bytes, kWorkspace, stream_of(ctx)),
        "the product");
  });
  const auto size = static_cast<double>(n);
  return 2 * size * size * size / seconds * 1e-9;
}

}  // namespace

DeviceLimits measure_cuda_limits(Context& ctx) {
  DeviceLimits limits;
  const std::uint64_t room = cuda_free_memory() / 8;
  {
    const std::size_t bytes = std::min<std::uint64_t>(std::uint64_t{2} << 30, room) / 4096 * 4096;
    const Buffer memory(2 * bytes + 256, DeviceKind::kCuda, "bandwidth measurement");
    char* base = static_cast<char*>(memory.data());
    fill_random(ctx, Tensor(base, DType::kU8, {static_cast<std::int64_t>(bytes)}, "source", DeviceKind::kCuda), 0, 1);
    const Launch how{dim3(static_cast<unsigned>(4 * device_of(ctx).multiprocessors)), dim3(kThreads)};
    const double read = median_seconds(ctx, 9, [&] {
      launch(ctx, "read", read_kernel, how, reinterpret_cast<const uint4*>(base), static_cast<std::int64_t>(bytes / 16),
             reinterpret_cast<std::uint32_t*>(base + 2 * bytes));
    });
    const double copy = median_seconds(
        ctx, 9, [&] { copy_bytes(base + bytes, DeviceKind::kCuda, base, DeviceKind::kCuda, bytes, ctx.stream); });
    limits.read_gbps = static_cast<double>(bytes) / read * 1e-9;
    const PinnedBuffer host(std::min<std::size_t>(bytes, std::size_t{128} << 20), "bandwidth measurement");
    const double sent = median_seconds(ctx, 5, [&] {
      copy_bytes(base + bytes, DeviceKind::kCuda, host.data(), DeviceKind::kCpu, host.bytes(), ctx.stream);
    });
    limits.host_gbps = static_cast<double>(host.bytes()) / sent * 1e-9;
    limits.copy_gbps = 2 * static_cast<double>(bytes) / copy * 1e-9;
  }
  limits.fma_gflops = product_gflops(ctx, room > (std::uint64_t{512} << 20) ? 8192 : 4096);
  return limits;
}

}  // namespace gov::ops
