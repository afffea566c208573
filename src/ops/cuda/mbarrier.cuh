#pragma once
// mbarriers and bulk copies in thin wrappers: what every GPU of compute capability 9.0 or newer has. Kernels that use
// them are launched on such GPUs only; for older ones they compile to a trap.

#include "ops/cuda/support.cuh"

namespace gov::ops::cuda {

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

__device__ inline void barrier_init(std::uint32_t barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
// Makes initialised barriers known to the copy engine and to the other blocks of the cluster.
__device__ inline void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// Arrives, and announces `bytes` that the copy engine will add.
__device__ inline void barrier_expect(std::uint32_t barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ inline void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  asm volatile(
      "{\n\t.reg .pred done;\n\t"
      "wait_%=:\n\t"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
      "@done bra go_%=;\n\t"
      "bra wait_%=;\n\t"
      "go_%=:\n\t}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
// What is read once leaves the cache first.
__device__ inline std::uint64_t policy_evict_first() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// 16-byte aligned addresses and size.
__device__ inline void bulk_copy(std::uint32_t to, const void* from, std::uint32_t bytes, std::uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}
__device__ inline void bulk_copy(std::uint32_t to, const void* from, std::uint32_t bytes, std::uint32_t barrier,
                                 std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

#else

__device__ inline void barrier_init(std::uint32_t, int) { __trap(); }
__device__ inline void barrier_init_fence() { __trap(); }
__device__ inline void barrier_expect(std::uint32_t, std::uint32_t) { __trap(); }
__device__ inline void barrier_arrive(std::uint32_t) { __trap(); }
__device__ inline void barrier_wait(std::uint32_t, std::uint32_t) { __trap(); }
__device__ inline std::uint64_t policy_evict_first() { return 0; }
__device__ inline void bulk_copy(std::uint32_t, const void*, std::uint32_t, std::uint32_t) { __trap(); }
__device__ inline void bulk_copy(std::uint32_t, const void*, std::uint32_t, std::uint32_t, std::uint64_t) { __trap(); }

#endif

}  // namespace gov::ops::cuda
