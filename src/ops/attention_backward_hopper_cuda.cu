// The derivative of attention by tiles on Hopper (sm_90a): BF16 throughout, heads of 64 dimensions, groups of 2 to 64.
//
// Two kernels of one form: a block owns 64 rows of each of its warpgroups that multiply, 128 keys for dk and dv or 192
// query vectors for dq, and meets tiles of 64 rows of the other side, which one thread copies ahead into a ring of
// shared memory. With X the own rows, Y the others', a tile is
//   s = X0 Y0^T, r = X1 Y1^T      keys: k q^T, v dout^T       vectors: q k^T, dout v^T
//   p = 2^(s scale - lse), ds = p (r - delta)
//   sums += p Y1, ds Y0           keys: dv, dk                vectors: dq += ds k
// all by wgmma: s and r from shared memory, p and ds from the registers in which s and r arrived.
//
// Seven products of 2 * 64 FLOPs for a visible pair instead of five: no sum is shared by blocks, so the bits are always
// the same. Limits: the tensor cores (896 FLOPs a pair), close behind shared memory; the exponentials are half of that
// and pass in the shadow of the warpgroup's own products and of the others'.
#include <algorithm>

#include "ops/cuda/attention_backward.cuh"
#include "ops/cuda/attention_wgmma.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kDim = 64, kWarpgroup = 128;
// Warpgroups that multiply: keys have two sums, whose registers leave room for two.
template <bool kKeys>
constexpr int kGroups = kKeys ? 2 : 3;
template <bool kKeys>
constexpr int kThreads = (kGroups<kKeys> + 1) * kWarpgroup;
constexpr int kMostGroups = 3;
constexpr int kTile = 64;                     // rows of a warpgroup, and of a step
constexpr int kTileBytes = kTile * kDim * 2;  // of 64 rows
constexpr int kStages = 6;
constexpr int kRingAt = 2 * kMostGroups * kTileBytes;
constexpr int kStatsAt = kRingAt + kStages * 2 * kTileBytes;
constexpr int kStatsBytes = kTile * 8;
constexpr int kBarriersAt = kStatsAt + kStages * kStatsBytes;
constexpr int kBytes = 1024 + kBarriersAt + 256;

struct BackPlan {
  TileMap map;
  int shift;  // log2 of the group
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

using namespace hopper;

// A block's work. Rows and keys are counted within the sequence.
struct BackTile {
  int first_row;  // the sequence's, in memory
  int rows;       // of the sequence
  int kv_head;
  int own;         // first own key, or row
  int begin, end;  // rows, or keys, to meet
  int chunk;       // of them in a step
  int steps;
};

// kKeys: the block owns keys; otherwise vectors.
template <bool kKeys>
__device__ BackTile find_tile(const Attention& a, const BackPlan& plan) {
  BackTile t;
  const int tiles = static_cast<int>(gridDim.x) / a.kv_heads, place = static_cast<int>(blockIdx.x) / a.kv_heads;
  const int tile = kKeys ? place : tiles - 1 - place;  // those that meet the most come first
  const int s = sequence_of_tile(a, plan.map, tile);
  t.kv_head = static_cast<int>(blockIdx.x) % a.kv_heads;
  t.first_row = a.cu_seqlens[s];
  t.rows = a.cu_seqlens[s + 1] - t.first_row;
  const int own_rows = kGroups<kKeys> * kTile >> (kKeys ? 0 : plan.shift);
  t.own = static_cast<int>(tile - plan.map.start(t.first_row, s)) * own_rows;
  const int last = min(t.own + own_rows, t.rows) - 1;
  KeyRange range;
  if constexpr (kKeys) range = rows_that_see(a, t.own, last - t.own + 1, t.rows);
  else range = {visible_keys(a, t.own, t.rows).first, visible_keys(a, last, t.rows).end};
  t.begin = range.first;
  t.end = range.end;
  t.chunk = kTile >> (kKeys ? plan.shift : 0);
  t.steps = t.own < t.rows ? max(0, (t.end - t.begin + t.chunk - 1) / t.chunk) : 0;
  return t;
}

struct BackShared {
  std::uint32_t base;
  unsigned char* raw;
  __device__ explicit BackShared(unsigned char* memory) {
    raw = memory + (1024 - shared_address(memory) % 1024) % 1024;
    base = shared_address(raw);
  }
  __device__ std::uint32_t own(int operand, int group) const { return base + (operand * kMostGroups + group) * kTileBytes; }
  __device__ std::uint32_t other(int operand, int stage) const {
    return base + kRingAt + (stage * 2 + operand) * kTileBytes;
  }
  __device__ int stats_at(int stage) const { return kStatsAt + stage * kStatsBytes; }
  __device__ std::uint32_t full(int stage) const { return base + kBarriersAt + 8 * stage; }
  __device__ std::uint32_t empty(int stage) const { return full(kStages + stage); }
  __device__ std::uint32_t own_full() const { return full(2 * kStages); }
};

struct BackRing {
  int stage = 0;
  std::uint32_t parity = 0;
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// x, y: the own side's maps; z, w: the other's.
template <bool kKeys>
__device__ void copy_tiles(const AttentionBack& b, const BackPlan& plan, const BackShared& shared, const BackTile& t,
                           const CUtensorMap* x, const CUtensorMap* y, const CUtensorMap* z, const CUtensorMap* w) {
  const Attention& a = b.f;
  const std::uint64_t policy = policy_evict_normal();
  const int vector_head = t.kv_head << plan.shift, own_head = kKeys ? t.kv_head : vector_head;
  const int other_head = kKeys ? vector_head : t.kv_head, own_step = kTile >> (kKeys ? 0 : plan.shift);
  barrier_expect(shared.own_full(), 2 * kGroups<kKeys> * kTileBytes);
  for (int g = 0; g < kGroups<kKeys>; ++g) {
    const int row = t.first_row + t.own + g * own_step;
    tile_copy_3d(shared.own(0, g), x, 0, own_head, row, shared.own_full(), policy);
    tile_copy_3d(shared.own(1, g), y, 0, own_head, row, shared.own_full(), policy);
  }
  BackRing ring;
  for (int step = 0; step < t.steps; ++step) {
    const int row = t.first_row + t.begin + step * t.chunk;
    const std::uint32_t full = shared.full(ring.stage);
    barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);
    barrier_expect(full, 2 * kTileBytes + (kKeys ? kStatsBytes : 0));
    tile_copy_3d(shared.other(0, ring.stage), z, 0, other_head, row, full, policy);
    tile_copy_3d(shared.other(1, ring.stage), w, 0, other_head, row, full, policy);
    if constexpr (kKeys) {
      const float2* const from = b.stats + ((static_cast<std::int64_t>(t.kv_head) * a.rows + row) << plan.shift);
      bulk_copy(shared.base + shared.stats_at(ring.stage), from, kStatsBytes, full);
    }
    ring.advance();
  }
}

__device__ inline void pack(const float (&s)[32], std::uint32_t (&p)[16]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) p[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

// d = A B^T over the 64 dimensions; d += p B.
__device__ inline void issue_scores(float (&d)[32], std::uint32_t x, std::uint32_t y) {
  const std::uint64_t u = swizzled_operand(x), v = swizzled_operand(y);
  wgmma_scores<false>(d, u, v);
#pragma unroll
  for (int i = 1; i < kDim / 16; ++i) wgmma_scores<true>(d, u + 2 * i, v + 2 * i);
}
__device__ inline void issue_sums(float (&d)[32], const std::uint32_t (&p)[16], std::uint32_t y) {
  const std::uint64_t v = swizzled_operand(y);
#pragma unroll
  for (int i = 0; i < kTile / 16; ++i) wgmma_values(d, p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3], v + 128 * i);
}

// The lane's parts of its rows g and g + 8 of the warp's sixteen.
__device__ inline void write_row(void* to, DType type, std::int64_t row, int half, float factor,
                                 const float (&sums)[32]) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int n = 0; n < kDim / 8; ++n) {
    const float x = sums[4 * n + 2 * half] * factor, y = sums[4 * n + 2 * half + 1] * factor;
    const std::int64_t at = row * kDim + 8 * n + 2 * t;
    if (type == DType::kBF16) *reinterpret_cast<std::uint32_t*>(static_cast<bf16_t*>(to) + at) = pack_bf16(x, y);
    else *reinterpret_cast<float2*>(static_cast<float*>(to) + at) = {x, y};
  }
}

template <bool kKeys>
__device__ void multiply_tiles(const AttentionBack& b, const BackPlan& plan, const BackShared& shared,
                               const BackTile& t, int group) {
  const Attention& a = b.f;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) % kWarpgroup / kWarp;
  const int g = lane / 4, l = lane % 4, own_step = kTile >> (kKeys ? 0 : plan.shift);
  const int own_first = t.own + group * own_step, own_last = own_first + own_step - 1;  // the warpgroup's
  const int own_shift = kKeys ? 0 : plan.shift, other_shift = kKeys ? plan.shift : 0;
  const float scale = a.scale * kLog2E;
  // The lane's own rows g and g + 8: keys, or rows and heads of vectors.
  int own[2], head[2];
  float2 own_stats[2] = {};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int place = warp * 16 + g + 8 * h;
    own[h] = own_first + (place >> own_shift);
    head[h] = place - (place >> own_shift << own_shift);
    if (!kKeys && own[h] < t.rows) {
      const std::int64_t row = static_cast<std::int64_t>(t.kv_head) * a.rows + t.first_row + own[h];
      own_stats[h] = b.stats[(row << plan.shift) + head[h]];
    }
  }
  float by_slope[32], by_weight[kKeys ? 32 : 1];  // dk (dq) and dv
#pragma unroll
  for (float& x : by_slope) x = 0;
#pragma unroll
  for (float& x : by_weight) x = 0;
  const std::uint32_t x0 = shared.own(0, group), x1 = shared.own(1, group);
  barrier_wait(shared.own_full(), 0);
  // The sums of a tile are formed while the next tile's exponentials are. Registers that a product reads may only be
  // written while none is under way: with vectors ds, after r has arrived, so that its sums can follow at once; with keys
  // p and ds, whose sums follow the next tile's s.
  std::uint32_t p[kKeys ? 16 : 1] = {}, ds[16] = {};  // read by sums under way
  int before = -1;                                    // their stage
  const auto release = [&](int stage) {
    __syncwarp();
    if (lane == 0) barrier_arrive(shared.empty(stage));
  };
  const auto sum_before = [&](int stage) {
    if constexpr (kKeys) issue_sums(by_weight, p, shared.other(1, stage));
    issue_sums(by_slope, ds, shared.other(0, stage));
    wgmma_commit();
  };
  const auto finish = [&] {
    if constexpr (kKeys) {
      if (before >= 0) {
        wgmma_fence();
        sum_before(before);
      }
    }
    wgmma_wait<0>();
    pin(p);
    pin(ds);
    pin(by_slope);
    pin(by_weight);
    if (before >= 0) release(before);
    before = -1;
  };
  BackRing ring;
#pragma unroll 1
  for (int step = 0; step < t.steps; ++step) {
    const int low = t.begin + step * t.chunk, high = min(low + t.chunk, t.end) - 1;
    const int low_row = kKeys ? low : own_first, high_row = kKeys ? high : own_last;
    const int low_key = kKeys ? own_first : low, high_key = kKeys ? own_last : high;
    const bool none =
        own_first >= t.rows || (a.causal && low_key > high_row) || (a.window > 0 && low_row - high_key >= a.window);
    const bool masked =
        low + t.chunk > t.end || (a.causal && high_key > low_row) || (a.window > 0 && high_row - low_key >= a.window);
    barrier_wait(shared.full(ring.stage), ring.parity);
    if (uniform(none)) {
      finish();
      release(ring.stage);
      ring.advance();
      continue;
    }
    const std::uint32_t y0 = shared.other(0, ring.stage), y1 = shared.other(1, ring.stage);
    float s[32], r[32];
    wgmma_fence();
    issue_scores(s, x0, y0);
    wgmma_commit();
    if constexpr (kKeys) sum_before(before < 0 ? ring.stage : before);  // the first adds zeros
    issue_scores(r, x1, y1);
    wgmma_commit();
    wgmma_wait<kKeys ? 2 : 1>();  // s
    pin(s);
    if constexpr (!kKeys) {  // and all sums before it
      pin(ds);
      pin(by_slope);
      if (before >= 0) release(before);
    }
    const float4* const stats = reinterpret_cast<const float4*>(shared.raw + shared.stats_at(ring.stage));
    // The columns', or rows', two numbers: lse or delta.
    const auto two_of = [&](int n, bool delta, float (&two)[2]) {
      if constexpr (kKeys) {
        const float4 x = stats[4 * n + l];
        two[0] = delta ? x.y : x.x, two[1] = delta ? x.w : x.z;
      } else {
        two[0] = delta ? own_stats[0].y : own_stats[0].x, two[1] = delta ? own_stats[1].y : own_stats[1].x;
      }
    };
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) {
      float lse[2];
      two_of(n, false, lse);
#pragma unroll
      for (int e = 0; e < 4; ++e) s[4 * n + e] = exp2_fast(fmaf(s[4 * n + e], scale, -lse[kKeys ? e % 2 : e / 2]));
    }
    if (masked) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int e = i % 4, column = low + ((i / 4 * 8 + 2 * l + e % 2) >> other_shift);
        const int row = kKeys ? column : own[e / 2], key = kKeys ? own[e / 2] : column;
        s[i] = column < t.end && sees(a, row, key) ? s[i] : 0.f;
      }
    }
    wgmma_wait<0>();
    pin(r);
    if constexpr (kKeys) {
      pin(p);
      pin(ds);
      pin(by_slope);
      pin(by_weight);
      if (before >= 0) release(before);
    }
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) {
      float delta[2];
      two_of(n, true, delta);
#pragma unroll
      for (int e = 0; e < 4; ++e) r[4 * n + e] = s[4 * n + e] * (r[4 * n + e] - delta[kKeys ? e % 2 : e / 2]);
    }
    if (masked) {  // rows beyond the sequence may have any delta
#pragma unroll
      for (int i = 0; i < 32; ++i) r[i] = s[i] == 0.f ? 0.f : r[i];
    }
    pack(r, ds);
    pin(ds);
    if constexpr (kKeys) {
      pack(s, p);
      pin(p);
    } else {
      wgmma_fence();
      issue_sums(by_slope, ds, y0);
      wgmma_commit();
    }
    before = ring.stage;
    ring.advance();
  }
  finish();
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (own[h] >= t.rows) continue;
    const std::int64_t row = t.first_row + own[h];
    if constexpr (kKeys) {
      write_row(b.dk, b.dk_type, row * a.kv_heads + t.kv_head, h, a.scale, by_slope);
      write_row(b.dv, b.dv_type, row * a.kv_heads + t.kv_head, h, 1.f, by_weight);
    } else {
      write_row(b.dq, b.dq_type, row * a.heads + (t.kv_head << plan.shift) + head[h], h, a.scale, by_slope);
    }
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

// Grid: tiles of own rows times kv heads. Maps: boxes of 64 rows, of all the group's heads where they are vectors.
template <bool kKeys>
__global__ void __launch_bounds__(kThreads<kKeys>, 1)
    hopper_back(const __grid_constant__ AttentionBack b, const __grid_constant__ BackPlan plan,
                const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap y,
                const __grid_constant__ CUtensorMap z, const __grid_constant__ CUtensorMap w) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ unsigned char memory[];
  const BackShared shared(memory);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      barrier_init(shared.full(i), 1);
      barrier_init(shared.empty(i), kGroups<kKeys> * kWarpgroup / kWarp);
    }
    barrier_init(shared.own_full(), 1);
    barrier_init_fence();
    map_prefetch(&x);
    map_prefetch(&y);
    map_prefetch(&z);
    map_prefetch(&w);
  }
  __syncthreads();
  grid_dependency_wait();
  grid_dependency_launch();
  BackTile t = find_tile<kKeys>(b.f, plan);
  t.steps = uniform(t.steps);
  if (uniform(t.own >= t.rows)) return;
  if (threadIdx.x < kWarpgroup) {
    registers_release<24>();
    if (threadIdx.x == 0) copy_tiles<kKeys>(b, plan, shared, t, &x, &y, &z, &w);
  } else {
    registers_take<kKeys ? 240 : 160>();
    multiply_tiles<kKeys>(b, plan, shared, t, uniform(static_cast<int>(threadIdx.x) / kWarpgroup - 1));
  }
#else
  __trap();  // dispatch sends no other GPU here
#endif
}

}  // namespace

bool attention_back_hopper_supported(const Context& ctx, const AttentionBack& b) {
  const Attention& a = b.f;
  return device_of(ctx).capability == 90 && attention_back_tiles_supported(ctx, b) && a.group > 1 &&
         kTile % a.group == 0 && static_cast<std::int64_t>(a.rows + a.sequences * 192) * a.heads < (1 << 30);
}

void attention_back_hopper(Context& ctx, const AttentionBack& b) {
  const Attention& a = b.f;
  const auto u = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  const auto map = [&](const void* data, std::int64_t heads, int box_heads, int box_rows) {
    return hopper::tensor_map("attention_backward", CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, sizeof(bf16_t), data,
                              {3,
                               {kDim, u(heads), u(a.rows)},
                               kDim,
                               {kDim, static_cast<std::uint32_t>(box_heads), static_cast<std::uint32_t>(box_rows)}},
                              CU_TENSOR_MAP_SWIZZLE_128B);
  };
  const CUtensorMap q = map(a.q, a.heads, a.group, kTile / a.group),
                    dout = map(b.dout, a.heads, a.group, kTile / a.group);
  const CUtensorMap k = map(a.k, a.kv_heads, 1, kTile), v = map(a.v, a.kv_heads, 1, kTile);
  int shift = 0;
  while (1 << shift < a.group) ++shift;
  const BackPlan keys{{1, kGroups<true> * kTile}, shift}, vectors{{1, kGroups<false> * kTile / a.group}, shift};
  const auto blocks = [&](const BackPlan& plan) { return dim3(static_cast<unsigned>(plan.map.count(a) * a.kv_heads)); };
  launch(ctx, "attention_backward", hopper_back<true>, {blocks(keys), dim3(kThreads<true>), kBytes, true}, b, keys, k, v, q,
         dout);
  launch(ctx, "attention_backward", hopper_back<false>, {blocks(vectors), dim3(kThreads<false>), kBytes, true}, b, vectors, q,
         dout, k, v);
}

}  // namespace gov::ops::cuda
