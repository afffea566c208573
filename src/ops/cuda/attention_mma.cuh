#pragma once
// What the attention kernels for the tensor cores of compute capability 8.0 share: copies into shared memory, and
// fragments out of it.

#include "ops/cuda/attention.cuh"

namespace gov::ops::cuda {

// 16 bytes to shared memory without passing registers; zeros where !valid.
__device__ inline void copy_async(std::uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
__device__ inline void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
__device__ inline void copies_wait() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }
// Four bytes.
__device__ inline void copy_async_word(std::uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(valid ? 4 : 0) : "memory");
}

__device__ inline void load_matrices(std::uint32_t from, std::uint32_t (&to)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}
__device__ inline void load_transposed(std::uint32_t from, std::uint32_t (&to)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}

// Rows of kDim bf16 in shared memory. Pieces of 16 bytes are exchanged within a row, so that neither rows nor columns
// of pieces share banks.
template <int kDim>
__device__ inline std::uint32_t piece_offset(int row, int piece) {
  return static_cast<std::uint32_t>(row * kDim * 2 + ((piece ^ (row & 7)) << 4));
}

}  // namespace gov::ops::cuda
