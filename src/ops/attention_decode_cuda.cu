// Attention of few query rows over many cached keys: bound by the bytes of keys and values, or for short contexts by
// the latency of a chain of loads.
//
// Grid (splits, kv heads, sequences): a block streams a share of a sequence's keys past the up to eight query heads of
// a kv head; which share, it learns from the length in device memory, so that one recorded launch serves every length:
// blocks that are not needed exit at once. Each of the 8 warps takes every eighth step of 16 keys with a softmax of its
// own; they are merged in shared memory, and the last block of a (row, kv head) to finish merges those of all splits,
// in their order. Aim: the memory's bandwidth.
//
// Keys and values go from memory to the registers that mma.m16n8k16 wants them in, 16 bytes a load, without a detour:
// - S [heads, keys] = Q K^T: lane (g, t) = (lane / 4, lane % 4) holds key g of eight as operand B. Which dimension
// stands
//   where in the sum does not matter as long as Q agrees, so a lane's words are neighbours in memory.
// - O^T [dims, heads] = V^T P^T: the sums of S are operand B as they are; of V, lane (g, t) holds dimensions 8 g .. 8 g
// + 7
//   of keys 2t, 2t + 1, 2t + 8, 2t + 9, which pair up by byte permutes.
// F32 queries and their probabilities are split into three bf16 parts each, exactly; the sums of such products are
// added to the running ones in F32 with rounding, since the tensor cores truncate.
#include "ops/cuda/attention.cuh"

#include <algorithm>

#include "ops/cuda/library.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kDecodeWarps = 8;
constexpr int kDecodeThreads = kDecodeWarps * kWarp;
constexpr int kHeads = 8;         // of a block
constexpr int kStep = 16;         // keys
constexpr int kMostSplits = 64;   // two a lane in the merge
constexpr int kLongSplit = 8192;  // keys of a split at most, where there are enough splits

struct Splits {
  int most;                // grid.x
  int fill;                // as many fill the GPU when all sequences are equally long
  int head_blocks;         // of a kv head
  float* partial;          // [rows, kv heads * head_blocks, most, kHeads * (dim + 2)]
  std::uint32_t* tickets;  // [rows, kv heads * head_blocks], zero
};

// 16 or 8 bytes that are read once; `fill` instead where !valid.
__device__ inline void load_once(const void* from, bool valid, std::uint32_t fill, std::uint32_t (&to)[4]) {
  asm volatile(
      "{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %5, 0;\n\t"
      "mov.b32 %0, %6;\n\tmov.b32 %1, %6;\n\tmov.b32 %2, %6;\n\tmov.b32 %3, %6;\n\t"
      "@p ld.global.nc.L1::no_allocate.v4.b32 {%0, %1, %2, %3}, [%4];\n\t}"
      : "=&r"(to[0]), "=&r"(to[1]), "=&r"(to[2]), "=&r"(to[3])
      : "l"(from), "r"(static_cast<int>(valid)), "r"(fill));
}
__device__ inline void load_once(const void* from, bool valid, std::uint32_t fill, std::uint32_t (&to)[2]) {
  asm volatile(
      "{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %3, 0;\n\t"
      "mov.b32 %0, %4;\n\tmov.b32 %1, %4;\n\t"
      "@p ld.global.nc.L1::no_allocate.v2.b32 {%0, %1}, [%2];\n\t}"
      : "=&r"(to[0]), "=&r"(to[1])
      : "l"(from), "r"(static_cast<int>(valid)), "r"(fill));
}

// The registers of one warp's step, and their meaning for each type of cache.
template <class Cache, int kDim>
struct Step {
  static constexpr bool kF8 = sizeof(Cache) == 1;
  static constexpr int kWords = kDim / 8;  // bf16 pairs of a key that a lane holds
  static constexpr int kKeyLoads = kF8 ? kWords / 8 : kWords / 4;
  static constexpr int kValueLoads = kDim / 64;  // a key
  std::uint32_t k[2][kKeyLoads][4];              // keys g, 8 + g
  std::uint32_t v[4][kValueLoads][kF8 ? 2 : 4];  // keys 2t, 2t + 1, 2t + 8, 2t + 9

  // The first of the 8 dimensions that words 4 i .. 4 i + 3 of lane t hold.
  __device__ static int dimension(int i, int t) { return kF8 ? i / 2 * 64 + 16 * t + i % 2 * 8 : 32 * i + 8 * t; }

  // `row`: of lane i < 16, the row of the step's key i; -1 reads as NaN, -2 as zero.
  __device__ void load_keys(const Cache* from, int row, int g, int t) {
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int r = __shfl_sync(kAllLanes, row, 8 * b + g);
      const Cache* const at = from + static_cast<std::int64_t>(r) * kDim;
#pragma unroll
      for (int i = 0; i < kKeyLoads; ++i)
        load_once(at + dimension(kF8 ? 2 * i : i, t), r >= 0, r == -1 ? ~0u : 0u, k[b][i]);
    }
  }
  __device__ void load_values(const Cache* from, int row, int g, int t) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int r = __shfl_sync(kAllLanes, row, 2 * t + j % 2 + j / 2 * 8);
      const Cache* const at = from + static_cast<std::int64_t>(r) * kDim + 8 * g;
#pragma unroll
      for (int i = 0; i < kValueLoads; ++i) load_once(at + 64 * i, r >= 0, r == -1 ? ~0u : 0u, v[j][i]);
    }
  }
  // Word i of key 8 b + g.
  __device__ std::uint32_t key_word(int b, int i) const {
    if constexpr (kF8) return widen_f8(k[b][i / 8][i % 8 / 2] >> (i % 2 * 16) & 0xffffu);
    else return k[b][i / 4][i % 4];
  }
  // Dimensions 64 i + 8 g + 2 m and + 1 of the lane's key j.
  __device__ std::uint32_t value_word(int j, int i, int m) const {
    if constexpr (kF8) return widen_f8(v[j][i][m / 2] >> (m % 2 * 16) & 0xffffu);
    else return v[j][i][m];
  }
};

// x and y as bf16 parts whose sums they are: one part for bf16 values, three for F32.
template <int kParts>
__device__ inline void split_bf16(float x, float y, std::uint32_t (&parts)[kParts]) {
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    parts[i] = pack_bf16(x, y);
    if (i + 1 < kParts) {
      x -= __uint_as_float(parts[i] << 16);
      y -= __uint_as_float(parts[i] & 0xffff0000u);
    }
  }
}

// What a warp knows of its keys: for lane (g, t) the largest score and the sum of head g (the sum over its own keys
// only), and O^T: sums[4 i + m][e] belongs to dimension 64 i + 8 g + 2 m + e / 2 of head 2 t + e % 2.
template <int kDim>
struct Softmax {
  float largest = -INFINITY;  // times log2(e) * scale
  float sum = 0;
  float sums[kDim / 16][4] = {};

  // Raises `largest` where a lane's quad has found a larger score.
  __device__ void raise(float found, int t) {
    found = fmaxf(found, __shfl_xor_sync(kAllLanes, found, 1));
    found = fmaxf(found, __shfl_xor_sync(kAllLanes, found, 2));
    const float next = fmaxf(largest, found);
    if (!__any_sync(kAllLanes, next > largest)) return;
    const float shrink = next > largest ? exp2_fast(largest - next) : 1.f;
    largest = next;
    sum *= shrink;
    const float first = __shfl_sync(kAllLanes, shrink, 8 * t), second = __shfl_sync(kAllLanes, shrink, 8 * t + 4);
#pragma unroll
    for (auto& s : sums) {
      s[0] *= first;
      s[1] *= second;
      s[2] *= first;
      s[3] *= second;
    }
  }
};

// Query heads head .. head + heads of one row as operand A: part 0 in rows 0-7, part 1 in rows 8-15 of the same
// product, part 2 in rows 0-7 of another.
template <class Query, class Cache, int kDim>
struct Queries {
  static constexpr int kParts = sizeof(Query) == 4 ? 3 : 1;
  static constexpr int kWords = Step<Cache, kDim>::kWords;
  std::uint32_t words[kWords][kParts];

  __device__ void load(const Query* from, bool valid, int t) {
#pragma unroll
    for (int i = 0; i < kWords / 4; ++i) {
      float x[8] = {};
      if (valid) load_row(from + Step<Cache, kDim>::dimension(i, t), x);
#pragma unroll
      for (int j = 0; j < 4; ++j) split_bf16(x[2 * j], x[2 * j + 1], words[4 * i + j]);
    }
  }
  // Products of head g with keys 8 b + 2 t and + 1.
  __device__ float2 scores(const Step<Cache, kDim>& step, int b) const {
    float d[4] = {};
    std::uint32_t key[kWords];
#pragma unroll
    for (int i = 0; i < kWords; ++i) key[i] = step.key_word(b, i);
    if constexpr (kParts == 3) {
#pragma unroll
      for (int i = 0; i < kWords; i += 2) mma_bf16(d, words[i][2], 0, words[i + 1][2], 0, key[i], key[i + 1]);
    }
#pragma unroll
    for (int i = 0; i < kWords; i += 2) {
      if constexpr (kParts == 3)
        mma_bf16(d, words[i][0], words[i][1], words[i + 1][0], words[i + 1][1], key[i], key[i + 1]);
      else mma_bf16(d, words[i][0], 0, words[i + 1][0], 0, key[i], key[i + 1]);
    }
    return {d[0] + d[2], d[1] + d[3]};
  }
};

// Adds P V of one step. p: head g's probabilities of keys 2t, 2t + 1, 2t + 8, 2t + 9.
template <int kParts, class Cache, int kDim>
__device__ inline void add_values(const Step<Cache, kDim>& step, const float (&p)[4], Softmax<kDim>& state) {
  std::uint32_t low[kParts], high[kParts];
  split_bf16(p[0], p[1], low);
  split_bf16(p[2], p[3], high);
#pragma unroll
  for (int i = 0; i < kDim / 64; ++i)
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      std::uint32_t word[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) word[j] = step.value_word(j, i, m);
      const std::uint32_t a0 = __byte_perm(word[0], word[1], 0x5410), a1 = __byte_perm(word[0], word[1], 0x7632);
      const std::uint32_t a2 = __byte_perm(word[2], word[3], 0x5410), a3 = __byte_perm(word[2], word[3], 0x7632);
      float(&sums)[4] = state.sums[4 * i + m];
      if constexpr (kParts == 1) {
        mma_bf16(sums, a0, a1, a2, a3, low[0], high[0]);
      } else {
        float d[4] = {};
#pragma unroll
        for (int part = kParts - 1; part >= 0; --part) mma_bf16(d, a0, a1, a2, a3, low[part], high[part]);
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[e] += d[e];
      }
    }
}

// One query row of one sequence, as a block sees it.
struct DecodeRow {
  int sequence, row, first_row, kv_head, head, heads;
  KeyRange range;
};

// This warp's steps of [begin, end).
template <class Query, class Cache, int kDim>
__device__ Softmax<kDim> stream_keys(const Attention& a, const DecodeRow& r, int begin, int end) {
  constexpr int kParts = Queries<Query, Cache, kDim>::kParts;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int g = lane / 4, t = lane % 4;
  const auto* k = static_cast<const Cache*>(a.k);
  const auto* v = static_cast<const Cache*>(a.v);
  const auto locate = [&](int step) {
    const int key = r.range.first + step * kStep + lane % kStep;
    return step < end && key < r.range.end ? static_cast<int>(key_row(a, r.sequence, r.first_row, key, r.kv_head)) : -2;
  };
  Softmax<kDim> state;
  Step<Cache, kDim> step;
  int at = begin + warp;
  if (at >= end) return state;
  int rows = locate(at);
  step.load_keys(k, rows, g, t);
  step.load_values(v, rows, g, t);
  rows = locate(at + kDecodeWarps);
  Queries<Query, Cache, kDim> queries;
  const std::int64_t vector = static_cast<std::int64_t>(r.row) * a.heads + r.head + g;
  queries.load(static_cast<const Query*>(a.q) + vector * kDim, g < r.heads, t);
  const float scale = a.scale * kLog2E;
  for (; at < end; at += kDecodeWarps) {
    const bool more = at + kDecodeWarps < end;
    const float2 s0 = queries.scores(step, 0), s1 = queries.scores(step, 1);
    if (more) step.load_keys(k, rows, g, t);
    float p[4] = {s0.x, s0.y, s1.x, s1.y};
    const int key = r.range.first + at * kStep + 2 * t;
    float found = -INFINITY;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (key + j % 2 + j / 2 * 8 >= r.range.end) p[j] = -INFINITY;
      found = fmaxf(found, p[j]);
    }
    state.raise(found * scale, t);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      p[j] = exp2_fast(fmaf(p[j], scale, -state.largest));
      state.sum += p[j];
    }
    add_values<kParts>(step, p, state);
    if (more) {
      step.load_values(v, rows, g, t);
      rows = locate(at + 2 * kDecodeWarps);
    }
  }
  state.sum += __shfl_xor_sync(kAllLanes, state.sum, 1);
  state.sum += __shfl_xor_sync(kAllLanes, state.sum, 2);
  return state;
}

// The warps' results side by side.
template <int kDim>
struct Merge {
  static constexpr int kPitch = kDim + 4;
  float sums[kDecodeWarps][kHeads][kPitch];
  float largest[kDecodeWarps][kHeads], sum[kDecodeWarps][kHeads];
  bool last;
};

template <int kDim>
__device__ void store_state(const Softmax<kDim>& state, Merge<kDim>& merge) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int e = 0; e < 2; ++e)
#pragma unroll
    for (int i = 0; i < kDim / 64; ++i) {
      float* const to = &merge.sums[warp][2 * t + e][64 * i + 8 * g];
      const auto& s = state.sums;
      *reinterpret_cast<float4*>(to) = {s[4 * i][e], s[4 * i][e + 2], s[4 * i + 1][e], s[4 * i + 1][e + 2]};
      *reinterpret_cast<float4*>(to + 4) = {s[4 * i + 2][e], s[4 * i + 2][e + 2], s[4 * i + 3][e], s[4 * i + 3][e + 2]};
    }
  if (t == 0) {
    merge.largest[warp][g] = state.largest;
    merge.sum[warp][g] = state.sum;
  }
}

// A head's result so far: lane l holds dimensions 2 l, 2 l + 1 (and so on every 64).
template <int kDim>
struct HeadState {
  float largest = -INFINITY, sum = 0;
  float2 sums[kDim / 64] = {};
};

// Head `warp` over the block's warps, in their order.
template <int kDim>
__device__ HeadState<kDim> merge_warps(const Merge<kDim>& merge) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, head = static_cast<int>(threadIdx.x) / kWarp;
  HeadState<kDim> out;
#pragma unroll
  for (int w = 0; w < kDecodeWarps; ++w) out.largest = fmaxf(out.largest, merge.largest[w][head]);
#pragma unroll
  for (int w = 0; w < kDecodeWarps; ++w) {
    const float largest = merge.largest[w][head];
    const float weight = largest == -INFINITY ? 0.f : exp2_fast(largest - out.largest);
    out.sum += weight * merge.sum[w][head];
#pragma unroll
    for (int i = 0; i < kDim / 64; ++i) {
      const float2 part = *reinterpret_cast<const float2*>(&merge.sums[w][head][64 * i + 2 * lane]);
      out.sums[i].x += weight * part.x;
      out.sums[i].y += weight * part.y;
    }
  }
  return out;
}

template <int kDim>
constexpr int kPartialFloats = kHeads*(kDim + 2);

// Head `warp` over `count` splits, in their order. partial: of split 0; what other blocks wrote is read past the L1
// cache.
template <int kDim>
__device__ HeadState<kDim> merge_splits(const float* partial, int count) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, head = static_cast<int>(threadIdx.x) / kWarp;
  HeadState<kDim> out;
  float2 ends[2];  // of splits lane, lane + 32: largest, sum
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int split = lane + i * kWarp;
    ends[i] = {-INFINITY, 0};
    if (split < count)
      ends[i] = __ldcg(reinterpret_cast<const float2*>(partial + split * kPartialFloats<kDim> + kHeads * kDim) + head);
    out.largest = fmaxf(out.largest, ends[i].x);
  }
  out.largest = warp_max(out.largest);
  float weight[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    weight[i] = ends[i].x == -INFINITY ? 0.f : exp2_fast(ends[i].x - out.largest);
    out.sum += weight[i] * ends[i].y;
  }
  out.sum = warp_sum(out.sum);
  const float* const from = partial + head * kDim + 2 * lane;
  constexpr int kTogether = 8;
  for (int base = 0; base < count; base += kTogether) {
    float2 part[kTogether][kDim / 64];
#pragma unroll
    for (int j = 0; j < kTogether; ++j)
#pragma unroll
      for (int i = 0; i < kDim / 64; ++i) {
        part[j][i] = {0, 0};
        if (base + j < count)
          part[j][i] = __ldcg(reinterpret_cast<const float2*>(from + (base + j) * kPartialFloats<kDim> + 64 * i));
      }
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      const int split = base + j;
      const float w = __shfl_sync(kAllLanes, split < kWarp ? weight[0] : weight[1], split % kWarp);
#pragma unroll
      for (int i = 0; i < kDim / 64; ++i) {
        out.sums[i].x += w * part[j][i].x;
        out.sums[i].y += w * part[j][i].y;
      }
    }
  }
  return out;
}

template <int kDim>
__device__ void write_head(const Attention& a, const DecodeRow& r, const HeadState<kDim>& state) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, head = static_cast<int>(threadIdx.x) / kWarp;
  if (head >= r.heads) return;
  float total = state.sum;
  if (a.sinks) total += exp2f(load_weight(a.sinks, a.sink_type, r.head + head) * kLog2E - state.largest);
  const float inverse = r.range.first < r.range.end ? 1.f / total : 0.f;
  const std::int64_t at = (static_cast<std::int64_t>(r.row) * a.heads + r.head + head) * kDim + 2 * lane;
#pragma unroll
  for (int i = 0; i < kDim / 64; ++i) {
    const float x = state.sums[i].x * inverse, y = state.sums[i].y * inverse;
    if (a.out_type == DType::kBF16)
      *reinterpret_cast<std::uint32_t*>(static_cast<bf16_t*>(a.out) + at + 64 * i) = pack_bf16(x, y);
    else *reinterpret_cast<float2*>(static_cast<float*>(a.out) + at + 64 * i) = {x, y};
  }
}

// How many blocks share a row of `steps` steps.
__device__ inline int active_splits(const Splits& splits, int steps) {
  const int filling = min(splits.fill, (steps + kDecodeWarps - 1) / kDecodeWarps);
  const int needed = (steps + kLongSplit / kStep - 1) / (kLongSplit / kStep);
  return max(1, min(splits.most, max(filling, needed)));
}

template <class Query, class Cache, int kDim>
__device__ void decode_row(const Attention& a, const Splits& splits, const DecodeRow& r, Merge<kDim>& merge) {
  const int steps = (max(0, r.range.end - r.range.first) + kStep - 1) / kStep, split = static_cast<int>(blockIdx.x);
  const int active = active_splits(splits, steps);
  if (split >= active) return;
  const auto bound = [&](int i) { return static_cast<int>(static_cast<std::int64_t>(steps) * i / active); };
  store_state(stream_keys<Query, Cache, kDim>(a, r, bound(split), bound(split + 1)), merge);
  __syncthreads();
  HeadState<kDim> state = merge_warps(merge);
  if (active == 1) {
    write_head(a, r, state);
    return;
  }
  const std::int64_t pair = static_cast<std::int64_t>(r.row) * gridDim.y + blockIdx.y;
  float* const partial = splits.partial + pair * splits.most * kPartialFloats<kDim>;
  float* const own = partial + split * kPartialFloats<kDim>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, head = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int i = 0; i < kDim / 64; ++i)
    __stcg(reinterpret_cast<float2*>(own + head * kDim + 64 * i + 2 * lane), state.sums[i]);
  if (lane == 0) __stcg(reinterpret_cast<float2*>(own + kHeads * kDim) + head, float2{state.largest, state.sum});
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    merge.last = atomicAdd(splits.tickets + pair, 1u) == static_cast<unsigned>(active) - 1;
    if (merge.last) splits.tickets[pair] = 0;
  }
  __syncthreads();
  if (!merge.last) return;
  __threadfence();
  write_head(a, r, merge_splits<kDim>(partial, active));
}

template <class Query, class Cache, int kDim>
__global__ void __launch_bounds__(kDecodeThreads, kDim == 64 ? 2 : 1)
    decode_kernel(const __grid_constant__ Attention a, const __grid_constant__ Splits splits) {
  __shared__ Merge<kDim> merge;
  grid_dependency_launch();
  grid_dependency_wait();
  const int part = static_cast<int>(blockIdx.y) % splits.head_blocks;
  DecodeRow r;
  r.sequence = static_cast<int>(blockIdx.z);
  r.kv_head = static_cast<int>(blockIdx.y) / splits.head_blocks;
  r.head = r.kv_head * a.group + part * kHeads;
  r.heads = min(kHeads, a.group - part * kHeads);
  r.first_row = __ldcg(a.cu_seqlens + r.sequence);
  const int rows = __ldcg(a.cu_seqlens + r.sequence + 1) - r.first_row, keys = __ldcg(a.kv_lens + r.sequence);
  for (int i = 0; i < rows; ++i) {
    r.row = r.first_row + i;
    r.range = visible_keys(a, keys - rows + i, keys);
    decode_row<Query, Cache, kDim>(a, splits, r, merge);
    __syncthreads();  // `merge` is free again
  }
}

Splits plan_splits(const Context& ctx, const Attention& a) {
  constexpr std::int64_t kMostPartials = 8192;  // times 2 KB of scratch
  Splits splits{};
  splits.head_blocks = static_cast<int>(ceil_div(a.group, kHeads));
  const std::int64_t pairs = static_cast<std::int64_t>(a.sequences) * a.kv_heads * splits.head_blocks;
  const std::int64_t slots = 2 * static_cast<std::int64_t>(device_of(ctx).multiprocessors);
  const std::int64_t useful = std::max<std::int64_t>(1, ceil_div(a.most_keys, kStep * kDecodeWarps));
  const std::int64_t fill = std::clamp<std::int64_t>(slots / pairs, 1, std::min<std::int64_t>(useful, kMostSplits));
  const std::int64_t longest = std::min<std::int64_t>(ceil_div(a.most_keys, kLongSplit), kMostSplits);
  splits.fill = static_cast<int>(fill);
  splits.most = static_cast<int>(std::max(fill, std::min(longest, kMostPartials / pairs)));
  return splits;
}

}  // namespace

bool attention_decode_supported(const Context&, const Attention& a) {
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  const std::int64_t cache_rows = static_cast<std::int64_t>(a.blocks) * a.kv_heads * a.block_size;
  return a.block_tables && (a.dim == 64 || a.dim == 128) && a.scale > 0 && a.sequences <= 65535 &&
         a.kv_heads * ceil_div(a.group, kHeads) <= 65535 && cache_rows < (std::int64_t{1} << 31) &&
         (a.k_type == DType::kBF16 || a.k_type == DType::kF8E4M3) && aligned(a.q) && aligned(a.k) && aligned(a.v) &&
         aligned(a.out);
}

void attention_decode(Context& ctx, const Attention& a) {
  Splits splits = plan_splits(ctx, a);
  const std::int64_t pairs = static_cast<std::int64_t>(a.rows) * a.kv_heads * splits.head_blocks;
  if (splits.most > 1) {
    splits.partial = ctx.workspace.take<float>(pairs * splits.most * kHeads * (a.dim + 2));
    splits.tickets = counters(ctx, pairs);
  }
  const dim3 grid(static_cast<unsigned>(splits.most), static_cast<unsigned>(a.kv_heads * splits.head_blocks),
                  static_cast<unsigned>(a.sequences));
  dispatch_act(a.q_type, [&](auto query) {
    using Query = decltype(query);
    const auto run = [&](auto cache, auto dim) {
      launch(ctx, "attention", decode_kernel<Query, decltype(cache), decltype(dim)::value>,
             {grid, dim3(kDecodeThreads), 0, true}, a, splits);
    };
    const auto run_dim = [&](auto dim) {
      if (a.k_type == DType::kBF16) run(bf16_t{}, dim);
      else run(f8_t{}, dim);
    };
    if (a.dim == 64) run_dim(std::integral_constant<int, 64>{});
    else run_dim(std::integral_constant<int, 128>{});
  });
}

}  // namespace gov::ops::cuda
