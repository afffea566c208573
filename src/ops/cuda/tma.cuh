#pragma once
// Hopper's asynchronous machinery in thin wrappers: tensor copies, clusters, wgmma bookkeeping, and
// (on the host) tensor maps.

#include <cuda.h>

#include "ops/cuda/mbarrier.cuh"

namespace gov::ops::cuda::hopper {

// --- host: tensor maps --------------------------------------------------------------------------------------------

// A map of a row-major tensor of `rank` extents, innermost first, whose row of extents[0] elements is contiguous and
// whose other strides are packed but for `pitch` elements between rows. Elements outside read as zero.
struct MapShape {
  int rank;
  std::uint64_t extents[3];
  std::uint64_t pitch;
  std::uint32_t box[3];
};

inline CUtensorMap tensor_map(const char* op, CUtensorMapDataType type, std::size_t element_bytes, const void* data,
                              const MapShape& shape, CUtensorMapSwizzle swizzle) {
  using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                              const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static const Encode encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
          "cuTensorMapEncodeTiled");
#else
    check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found),
          "cuTensorMapEncodeTiled");
#endif
    if (found != cudaDriverEntryPointSuccess || function == nullptr)
      fail(ErrorCode::kDevice, "CUDA: the driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<Encode>(function);
  }();
  CUtensorMap map{};
  cuuint64_t strides[2];  // bytes
  std::uint64_t stride = shape.pitch * element_bytes;
  for (int i = 1; i < shape.rank; ++i) {
    strides[i - 1] = stride;
    stride *= shape.extents[i];
  }
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult status = encode(&map, type, static_cast<cuuint32_t>(shape.rank), const_cast<void*>(data),
                                 shape.extents, strides, shape.box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    fail(ErrorCode::kDevice, "CUDA: {}: a tensor map was refused, error {}", op, static_cast<int>(status));
  return map;
}

// --- device -------------------------------------------------------------------------------------------------------

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Arrives at the barrier of the same offset in block `rank` of the cluster.
__device__ inline void barrier_arrive_at(std::uint32_t barrier, std::uint32_t rank) {
  asm volatile(
      "{\n\t.reg .b32 remote;\n\t"
      "mapa.shared::cluster.u32 remote, %0, %1;\n\t"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n\t}" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
__device__ inline std::uint32_t cluster_rank() {
  std::uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// All threads of all blocks of the cluster.
__device__ inline void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ inline std::uint64_t policy_evict_normal() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ inline void map_prefetch(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
__device__ inline void tile_copy_3d(std::uint32_t to, const CUtensorMap* map, int x, int y, int z,
                                    std::uint32_t barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
      "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier), "l"(policy)
      : "memory");
}
// Brings a tile into the L2 cache.
__device__ inline void tile_prefetch_3d(const CUtensorMap* map, int x, int y, int z) {
  asm volatile("cp.async.bulk.prefetch.tensor.3d.L2.global.tile [%0, {%1, %2, %3}];" ::"l"(map), "r"(x), "r"(y), "r"(z)
               : "memory");
}
// To the same offset in every block of the cluster that `blocks` names; each block's own barrier counts its bytes.
__device__ inline void tile_multicast_2d(std::uint32_t to, const CUtensorMap* map, int x, int y, std::uint32_t barrier,
                                         std::uint16_t blocks, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
      ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5, %6;" ::"r"(to),
      "l"(map), "r"(x), "r"(y), "r"(barrier), "h"(blocks), "l"(policy)
      : "memory");
}

__device__ inline void tile_multicast_3d(std::uint32_t to, const CUtensorMap* map, int x, int y, int z,
                                         std::uint32_t barrier, std::uint16_t blocks, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
      ".L2::cache_hint [%0], [%1, {%2, %3, %4}], [%5], %6, %7;" ::"r"(to),
      "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier), "h"(blocks), "l"(policy)
      : "memory");
}

// The low half of the descriptor of a K-major operand in shared memory: rows of 128 bytes, swizzled by 128, eight rows
// a kilobyte. 16 elements further in k are 32 bytes further: + 2. (The high half is a constant in wgmma.cuh.)
__device__ inline std::uint32_t operand(std::uint32_t address) { return (address & 0x3ffff) >> 4 | 1u << 16; }

// The same of an operand whose rows are along k, 64 elements each, of which there are several tiles of 64 rows one
// behind the other: 16 rows further in k are 2 KB further: + 128.
__device__ inline std::uint32_t operand_along_k(std::uint32_t address) { return (address & 0x3ffff) >> 4 | 512u << 16; }

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
template <int kRegisters>
__device__ inline void registers_release() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void registers_take() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace gov::ops::cuda::hopper
