#pragma once
// Attention on CUDA: the arguments as kernels see them, what all its kernels share, and the kernels' host entries.
//
// Query vectors of a (sequence, kv head) are numbered row by row, the heads of the group within a row: the group's
// heads share every key and value that is read. A tile is a run of such vectors.

#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda {

struct Attention {
  const void *q, *k, *v, *sinks;  // k, v: matrices of rows of `dim` numbers, cached or packed; sinks may be null
  void* out;
  float* lse;  // [rows, heads] or null
  DType q_type, k_type, v_type, sink_type, out_type;
  const std::int32_t *cu_seqlens, *kv_lens;
  const std::int32_t* block_tables;  // null: k and v are packed like q
  int columns, block_size, blocks;   // of the cache
  int rows, sequences, heads, kv_heads, group, dim;
  int window;
  bool causal;
  float scale;

  // Most keys that a query sees, as far as the host knows.
  int most_keys;
};

// Each checks that it can do the job at hand, or does it. The dispatch in attention_cuda.cu says when which is taken.
void attention_general(Context& ctx, const Attention& a);
bool attention_decode_supported(const Context& ctx, const Attention& a);
void attention_decode(Context& ctx, const Attention& a);
bool attention_tiles_supported(const Context& ctx, const Attention& a);
void attention_tiles(Context& ctx, const Attention& a);
bool attention_hopper_supported(const Context& ctx, const Attention& a);
void attention_hopper(Context& ctx, const Attention& a);

inline constexpr float kLog2E = 1.4426950408889634f;

// --- device -------------------------------------------------------------------------------------------------------

struct KeyRange {
  int first, end;  // [first, end)
};

// Keys that the query at `position` of a sequence of `keys` keys sees.
__device__ inline KeyRange visible_keys(const Attention& a, int position, int keys) {
  return {a.window > 0 ? max(0, position - a.window + 1) : 0, a.causal ? min(position + 1, keys) : keys};
}

// The row of k and v that holds a sequence's key, or -1 where the block table names no block.
__device__ inline std::int64_t key_row(const Attention& a, int sequence, int first_row, int key, int kv_head) {
  if (!a.block_tables) return (static_cast<std::int64_t>(first_row) + key) * a.kv_heads + kv_head;
  const unsigned size = static_cast<unsigned>(a.block_size);
  const unsigned column = static_cast<unsigned>(key) / size, place = static_cast<unsigned>(key) - column * size;
  if (column >= static_cast<unsigned>(a.columns)) return -1;
  const int block = a.block_tables[static_cast<std::int64_t>(sequence) * a.columns + column];
  if (static_cast<unsigned>(block) >= static_cast<unsigned>(a.blocks)) return -1;
  return (static_cast<std::int64_t>(block) * a.kv_heads + kv_head) * a.block_size + place;
}

// Where each sequence's tiles begin, `times` / `per_tile` tiles a row: no sum over the sequences before is needed if
// each is allowed one tile too many, which is empty.
struct TileMap {
  int times, per_tile;
  __host__ __device__ std::int64_t start(int row, int sequence) const {
    return static_cast<std::int64_t>(row) * times / per_tile + sequence;
  }
  std::int64_t count(const Attention& a) const { return start(a.rows, a.sequences); }
};

// The sequence that owns tile `tile`. Called by whole warps.
__device__ inline int sequence_of_tile(const Attention& a, const TileMap& map, std::int64_t tile) {
  int low = 0, count = a.sequences;
  while (count > 1) {  // the answer is in [low, low + count)
    const int step = (count + kWarp - 1) / kWarp, at = static_cast<int>(threadIdx.x) % kWarp * step;
    const bool before = at < count && map.start(a.cu_seqlens[low + at], low + at) <= tile;
    const int steps = max(__popc(__ballot_sync(kAllLanes, before)) - 1, 0);
    low += steps * step;
    count = min(step, count - steps * step);
  }
  return low;
}

__device__ inline float load_act(const void* from, DType type, std::int64_t i) {
  return type == DType::kBF16 ? to_float(static_cast<const bf16_t*>(from)[i]) : static_cast<const float*>(from)[i];
}
__device__ inline void store_act(void* to, DType type, std::int64_t i, float x) {
  if (type == DType::kBF16) static_cast<bf16_t*>(to)[i] = from_float<bf16_t>(x);
  else static_cast<float*>(to)[i] = x;
}

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
// Two F8 as two bf16, which hold them exactly.
__device__ inline std::uint32_t widen_f8(std::uint32_t two) {
  const __half2_raw halves = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(two), __NV_E4M3);
  const float2 wide = __half22float2(__half2(halves));
  return pack_bf16(wide.x, wide.y);
}

// d += a b: 16 x 16 times 16 x 8, bf16 with F32 sums.
__device__ inline void mma_bf16(float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                                std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

}  // namespace gov::ops::cuda
