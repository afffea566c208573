#pragma once
// The derivative of attention on CUDA: the arguments as kernels see them, and the kernels' host entries.

#include "ops/cuda/attention.cuh"

namespace gov::ops::cuda {

struct AttentionBack {
  Attention f;  // out: the forward's; lse given
  const void* dout;
  void *dq, *dk, *dv;
  DType dout_type, dq_type, dk_type, dv_type;
  const float* delta;   // [rows, heads]: dout . out
  const float2* stats;  // [kv_heads, rows, group] of (lse log2(e), delta), infinity for -infinity; with room for a tile
};

// dq, dk and dv. Each checks that it can do the job at hand, or does it.
void attention_back_general(Context& ctx, const AttentionBack& a);
bool attention_back_tiles_supported(const Context& ctx, const AttentionBack& a);
void attention_back_tiles(Context& ctx, const AttentionBack& a);
bool attention_back_hopper_supported(const Context& ctx, const AttentionBack& a);
void attention_back_hopper(Context& ctx, const AttentionBack& a);

// Rows of a sequence of `rows` that see any of its keys [first, first + count): [first, end).
__device__ inline KeyRange rows_that_see(const Attention& a, int first, int count, int rows) {
  return {a.causal ? first : 0, a.window > 0 ? min(rows, first + count - 1 + a.window) : rows};
}
__device__ inline bool sees(const Attention& a, int row, int key) {
  return (!a.causal || key <= row) && (a.window == 0 || row - key < a.window);
}

}  // namespace gov::ops::cuda
