// Attention by tiles on Hopper (sm_90a): BF16 queries, keys and values, heads of 64 dimensions, cached or packed.
//
// A tile is up to 192 query vectors (whole rows, the group's heads within a row); it meets its keys in steps of kKeys.
// A block is one warpgroup that copies and three that multiply, 64 vectors each, and takes tiles from a common counter,
// those that see the most keys first, until there are none: while one tile is being finished, the copies of the next
// are on their way. Copies are made by the tensor copy engine, queries as a box of rows x heads, keys and values block
// by block of the cache, into rings of shared memory with 128-byte swizzle.
//
// S = Q K^T and O += P V are wgmma; Q, K and V are read from shared memory, P from the registers in which S arrived. A
// step issues the scores of step i and the sums of step i - 1 together and does the softmax of step i in their shadow.
// Running sums are rescaled only when a score has grown by more than 2^8 over the reference, which changes no result.
//
// Limits: the tensor cores, and just as much the 16 exponentials a clock of a multiprocessor: with 64 dimensions a
// score costs the tensor cores as long as its exponential takes.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/cuda/attention.cuh"
#include "ops/cuda/attention_wgmma.cuh"
#include "ops/cuda/library.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kDim = 64;
constexpr int kGroups = 3;  // warpgroups that multiply
constexpr int kWarpgroup = 128;
constexpr int kHopperThreads = (kGroups + 1) * kWarpgroup;
constexpr int kVectors = kGroups * 64;  // of a tile
constexpr int kRowBytes = kDim * 2;
constexpr int kQueryBytes = kVectors * kRowBytes;
constexpr int kQueryBuffers = 2;

template <int kKeys>
struct HopperShape {
  static constexpr int kStageBytes = kKeys * kRowBytes;  // of keys, and of values
  static constexpr int kStages = kKeys > 112 ? 4 : 5;
  static constexpr int kBytes = 1024 + kQueryBuffers * kQueryBytes + 2 * kStages * kStageBytes + 512;
};

struct HopperPlan {
  TileMap map;
  int tiles;               // over all kv heads
  int tile_rows;           // rows of a full tile
  int box;                 // keys of one copy; divides kKeys and, in a cache, the block size
  int inverse_group;       // 2^16 / group, rounded up: a vector's row of the tile without a division
  std::uint32_t* counter;  // zero
};

[[maybe_unused]] __device__ inline int row_of_vector(const HopperPlan& plan, int vector) {
  return vector * plan.inverse_group >> 16;
}

// What the copying warp tells the others about a tile.
struct TileInfo {
  int first_row;   // in q and out
  int rows;        // 0: there are no more tiles
  int position;    // of its first row
  int keys;        // of the sequence
  int first, end;  // keys that any of its rows sees; first is rounded down to a box
  int kv_head;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

using namespace hopper;

using hopper::uniform;
__device__ inline TileInfo uniform(const TileInfo& t) {
  return {uniform(t.first_row), uniform(t.rows), uniform(t.position), uniform(t.keys),
          uniform(t.first),     uniform(t.end),  uniform(t.kv_head)};
}

__device__ inline void warpgroup_sync(int group) {
  asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(kWarpgroup) : "memory");
}
__device__ inline void proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// A place in a ring of buffers, and the parity of the barriers there.
template <int kStages>
struct Ring {
  int stage = 0;
  std::uint32_t parity = 0;
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Addresses in shared memory.
template <int kKeys>
struct HopperShared {
  using Shape = HopperShape<kKeys>;
  static constexpr int kStages = Shape::kStages;
  std::uint32_t base;
  unsigned char* raw;  // the same place
  TileInfo* info;      // [kQueryBuffers]

  __device__ explicit HopperShared(unsigned char* memory) {
    raw = memory + (1024 - shared_address(memory) % 1024) % 1024;
    base = shared_address(raw);
    info = reinterpret_cast<TileInfo*>(raw + barriers_at() + 256);
  }
  __device__ static constexpr int barriers_at() {
    return kQueryBuffers * kQueryBytes + 2 * kStages * Shape::kStageBytes;
  }
  __device__ std::uint32_t queries(int i) const { return base + i * kQueryBytes; }
  __device__ static constexpr int keys_at(int i) { return kQueryBuffers * kQueryBytes + i * Shape::kStageBytes; }
  __device__ static constexpr int values_at(int i) { return keys_at(kStages + i); }
  __device__ std::uint32_t barrier(int i) const { return base + barriers_at() + 8 * i; }
  __device__ std::uint32_t queries_full(int i) const { return barrier(i); }
  __device__ std::uint32_t queries_empty(int i) const { return barrier(kQueryBuffers + i); }
  __device__ std::uint32_t keys_full(int i) const { return barrier(2 * kQueryBuffers + i); }
  __device__ std::uint32_t keys_empty(int i) const { return barrier(2 * kQueryBuffers + kStages + i); }
  __device__ std::uint32_t values_full(int i) const { return barrier(2 * kQueryBuffers + 2 * kStages + i); }
  __device__ std::uint32_t values_empty(int i) const { return barrier(2 * kQueryBuffers + 3 * kStages + i); }
};

// --- the copying warp ---------------------------------------------------------------------------------------------

// Tile `index` of the list; rows is 0 where a sequence has one tile less than its share of the map.
struct TileOrigin {
  TileInfo info;
  int sequence, sequence_row;  // the sequence and its first row in q
};

__device__ inline TileOrigin find_tile(const Attention& a, const HopperPlan& plan, int index) {
  TileOrigin o{};
  o.info.kv_head = index % a.kv_heads;
  const int tile = plan.tiles / a.kv_heads - 1 - index / a.kv_heads;  // late rows see the most keys
  o.sequence = sequence_of_tile(a, plan.map, tile);
  o.sequence_row = a.cu_seqlens[o.sequence];
  const int rows = a.cu_seqlens[o.sequence + 1] - o.sequence_row, keys = a.kv_lens[o.sequence];
  const int begin = (tile - static_cast<int>(plan.map.start(o.sequence_row, o.sequence))) * plan.tile_rows;
  TileInfo& t = o.info;
  t.first_row = o.sequence_row + begin;
  t.rows = max(0, min(plan.tile_rows, rows - begin));
  t.position = keys - rows + begin;
  t.keys = keys;
  t.first = visible_keys(a, t.position, keys).first / plan.box * plan.box;
  t.end = max(t.first, visible_keys(a, t.position + t.rows - 1, keys).end);
  return o;
}

// Keys (or values) key .. key + kKeys - 1 to `to`, as far as the tile sees any; lane i copies box i.
template <int kKeys>
__device__ void copy_step(const Attention& a, const HopperPlan& plan, const TileOrigin& o, const CUtensorMap* map,
                          int key, int z, int y, std::uint32_t to, std::uint32_t full, std::uint64_t policy) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp,
            boxes = min(kKeys, o.info.end - key + plan.box - 1) / plan.box;
  if (lane == 0) barrier_expect(full, boxes * plan.box * kRowBytes);
  __syncwarp();
  if (lane < boxes) tile_copy_3d(to + lane * plan.box * kRowBytes, map, 0, y, z, full, policy);
}

template <int kKeys>
__device__ void copy_tiles(const Attention& a, const HopperPlan& plan, const HopperShared<kKeys>& shared,
                           const CUtensorMap* q_map, const CUtensorMap* k_map, const CUtensorMap* v_map) {
  constexpr int kStages = HopperShape<kKeys>::kStages;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::uint64_t policy = policy_evict_normal();
  Ring<kQueryBuffers> queries;
  Ring<kStages> ring;
  const auto take = [&] { return lane == 0 ? static_cast<int>(atomicAdd(plan.counter, 1u)) : 0; };
  int next = take();
  while (true) {
    const int index = __shfl_sync(kAllLanes, next, 0);
    const bool done = index >= plan.tiles;
    if (!done) next = take();  // its answer is on its way meanwhile
    TileOrigin o{};
    if (!done) {
      o = find_tile(a, plan, index);
      if (o.info.rows == 0) continue;
    }
    barrier_wait(shared.queries_empty(queries.stage), queries.parity ^ 1);
    if (lane == 0) {
      shared.info[queries.stage] = o.info;
      if (done) {
        barrier_arrive(shared.queries_full(queries.stage));
        // The last of all blocks to come here leaves the counter as it was.
        if (index == plan.tiles + static_cast<int>(gridDim.x) - 1) *plan.counter = 0;
      } else {
        barrier_expect(shared.queries_full(queries.stage), plan.tile_rows * a.group * kRowBytes);
        tile_copy_3d(shared.queries(queries.stage), q_map, 0, o.info.kv_head * a.group, o.info.first_row,
                     shared.queries_full(queries.stage), policy);
      }
    }
    if (done) return;
    queries.advance();
    for (int key = o.info.first; key < o.info.end; key += kKeys) {
      // Where box `lane` is: in the cache (block and kv head, row in the block), packed (row, kv head).
      int z = o.sequence_row + key, y = o.info.kv_head;
      if (a.block_tables) {
        const int own = key + lane * plan.box, column = own / a.block_size;
        const bool mine = lane * plan.box < kKeys && own < o.info.end && column < a.columns;
        const int block = mine ? a.block_tables[static_cast<std::int64_t>(o.sequence) * a.columns + column] : -1;
        z = block * a.kv_heads + o.info.kv_head;  // outside of the map: reads zeros
        if (block < 0) z = -1;
        y = own - column * a.block_size;
      }
      barrier_wait(shared.keys_empty(ring.stage), ring.parity ^ 1);
      copy_step<kKeys>(a, plan, o, k_map, key, z, y, shared.base + shared.keys_at(ring.stage),
                       shared.keys_full(ring.stage), policy);
      barrier_wait(shared.values_empty(ring.stage), ring.parity ^ 1);
      copy_step<kKeys>(a, plan, o, v_map, key, z, y, shared.base + shared.values_at(ring.stage),
                       shared.values_full(ring.stage), policy);
      ring.advance();
    }
  }
}

// --- the warpgroups that multiply ---------------------------------------------------------------------------------

// A warpgroup's 64 vectors. Lane (g, t) of warp w holds parts of vectors 16 w + g and + 8.
template <int kKeys>
struct GroupState {
  float s[kKeys / 2];          // scores: [8 keys each][vector g: keys 2 t, 2 t + 1; vector g + 8: the same]
  std::uint32_t p[kKeys / 4];  // probabilities as operand A
  float sums[kDim / 2];        // like s, over dimensions
  float largest[2], sum[2];    // largest: the reference of p, unscaled; sum: over the lane's own keys
  float sink[2];               // times log2(e)
  KeyRange range[2];
};

template <int kKeys>
__device__ void issue_scores(GroupState<kKeys>& state, std::uint32_t queries, std::uint32_t keys) {
  const std::uint64_t q = swizzled_operand(queries), k = swizzled_operand(keys);
  pin(state.s);
  wgmma_fence();
  wgmma_scores<false>(state.s, q, k);
#pragma unroll
  for (int i = 1; i < kDim / 16; ++i) wgmma_scores<true>(state.s, q + 2 * i, k + 2 * i);
  wgmma_commit();
}

template <int kKeys>
__device__ void issue_sums(GroupState<kKeys>& state, std::uint32_t values) {
  const std::uint64_t v = swizzled_operand(values);
  pin(state.p);
  pin(state.sums);
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < kKeys / 16; ++i)
    wgmma_values(state.sums, state.p[4 * i], state.p[4 * i + 1], state.p[4 * i + 2], state.p[4 * i + 3], v + 128 * i);
  wgmma_commit();
}

// Which ends of the keys of a step some vector of the warpgroup does not see.
struct Masks {
  bool low, high;
};

// Scores of keys key .. to probabilities, in place. Returns whether the sums must be multiplied by `shrink`.
template <int kKeys>
__device__ bool soften(GroupState<kKeys>& state, int key, Masks masks, float scale, float (&shrink)[2]) {
  constexpr float kSlack = 8;
  const int own = key + static_cast<int>(threadIdx.x) % 4 * 2;  // the lane's first key
  float(&s)[kKeys / 2] = state.s;
  if (masks.high) {
    const int end[2] = {state.range[0].end - own, state.range[1].end - own};
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i) {
      if (i / 4 * 8 + i % 2 >= end[i / 2 % 2]) s[i] = -INFINITY;
    }
  }
  if (masks.low) {
    const int first[2] = {state.range[0].first - own, state.range[1].first - own};
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i) {
      if (i / 4 * 8 + i % 2 < first[i / 2 % 2]) s[i] = -INFINITY;
    }
  }
  float found[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float even = s[2 * h], odd = s[2 * h + 1];
#pragma unroll
    for (int n = 1; n < kKeys / 8; ++n) {
      even = fmaxf(even, s[4 * n + 2 * h]);
      odd = fmaxf(odd, s[4 * n + 2 * h + 1]);
    }
    float x = fmaxf(even, odd);
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
    found[h] = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
  }
  const bool grown = (found[0] - state.largest[0]) * scale > kSlack || (found[1] - state.largest[1]) * scale > kSlack;
  const bool rescale = __any_sync(kAllLanes, grown);
  if (rescale) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float next = fmaxf(state.largest[h], found[h]);
      shrink[h] = exp2_fast((state.largest[h] - next) * scale);
      state.largest[h] = next;
      state.sum[h] *= shrink[h];
    }
  }
  const float offset[2] = {state.largest[0] * scale, state.largest[1] * scale};
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) s[4 * n + e] = exp2_fast(fmaf(s[4 * n + e], scale, -offset[e / 2]));
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float even = 0, odd = 0;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
      even += s[4 * n + 2 * h];
      odd += s[4 * n + 2 * h + 1];
    }
    state.sum[h] += even + odd;
  }
  // Never so; but what the answer depends on is then done here, not behind the wait for the tensor cores that follows.
  if (__any_sync(kAllLanes, fminf(state.sum[0], state.sum[1]) < 0)) __nanosleep(1);
  return rescale;
}

template <int kKeys>
__device__ void pack_probabilities(GroupState<kKeys>& state) {
#pragma unroll
  for (int i = 0; i < kKeys / 4; ++i) state.p[i] = pack_bf16(state.s[2 * i], state.s[2 * i + 1]);
}

// Zeros over the values behind the tile's last key, which may be anything: 0 times NaN is NaN. Each warpgroup does it
// for itself, so that none has to wait for another.
template <int kKeys>
__device__ void clear_values(unsigned char* values, int valid, int group) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
  for (int i = valid * (kRowBytes / 16) + thread; i < kKeys * (kRowBytes / 16); i += kWarpgroup)
    reinterpret_cast<uint4*>(values)[i] = uint4{0, 0, 0, 0};
  proxy_fence();
  warpgroup_sync(group);
}

// The warpgroup's results. BF16 passes through the buffer of its queries, so that memory sees whole rows.
template <int kKeys>
__device__ void write_group(const Attention& a, const HopperPlan& plan, const TileInfo& tile, int group, float scale,
                            unsigned char* queries, GroupState<kKeys>& state) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) % kWarpgroup / kWarp;
  const int g = lane / 4, t = lane % 4, first = group * 64 + warp * 16, count = tile.rows * a.group;
  const auto offset_of = [&](int vector) {
    const int row = row_of_vector(plan, vector), head = tile.kv_head * a.group + vector - row * a.group;
    return ((static_cast<std::int64_t>(tile.first_row) + row) * a.heads + head) * kDim;
  };
  float inverse[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float total = state.sum[h];
    total += __shfl_xor_sync(kAllLanes, total, 1);
    total += __shfl_xor_sync(kAllLanes, total, 2);
    total += exp2f(state.sink[h] - state.largest[h] * scale);
    const bool any = state.range[h].first < state.range[h].end;
    inverse[h] = any ? 1.f / total : 0.f;
    const int vector = first + g + 8 * h;
    if (a.lse && t == 0 && vector < count)
      a.lse[offset_of(vector) / kDim] = any ? (state.largest[h] * scale + log2f(total)) / kLog2E : -INFINITY;
  }
  if (a.out_type != DType::kBF16) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int vector = first + g + 8 * h;
      if (vector >= count) continue;
      float* const to = static_cast<float*>(a.out) + offset_of(vector) + 2 * t;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n)
        *reinterpret_cast<float2*>(to + 8 * n) = {state.sums[4 * n + 2 * h] * inverse[h],
                                                  state.sums[4 * n + 2 * h + 1] * inverse[h]};
    }
    return;
  }
  unsigned char* const own = queries + first * kRowBytes;  // the warp's 16 vectors
  warpgroup_sync(group);                                   // no warp's wgmma reads queries any more
#pragma unroll
  for (int h = 0; h < 2; ++h)
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n)
      *reinterpret_cast<std::uint32_t*>(own + (g + 8 * h) * kRowBytes + ((n ^ g) << 4) + 4 * t) =
          pack_bf16(state.sums[4 * n + 2 * h] * inverse[h], state.sums[4 * n + 2 * h + 1] * inverse[h]);
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int place = 4 * i + lane / 8, piece = lane % 8, vector = first + place;
    const uint4 value = *reinterpret_cast<const uint4*>(own + place * kRowBytes + ((piece ^ (place & 7)) << 4));
    if (vector < count) *reinterpret_cast<uint4*>(static_cast<bf16_t*>(a.out) + offset_of(vector) + piece * 8) = value;
  }
  proxy_fence();
}

template <int kKeys>
struct GroupRings {
  Ring<kQueryBuffers> queries;
  Ring<HopperShape<kKeys>::kStages> keys, values;
};

// Lets go of a buffer of keys or values, which only wgmma reads: one arrival a warp.
__device__ inline void release(std::uint32_t barrier) {
  __syncwarp();
  if (threadIdx.x % kWarp == 0) barrier_arrive(barrier);
}

template <int kKeys>
__device__ void run_tile(const Attention& a, const HopperPlan& plan, const HopperShared<kKeys>& shared,
                         const TileInfo& tile, int group, float scale, GroupRings<kKeys>& rings) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) % kWarpgroup / kWarp;
  const std::uint32_t queries = shared.queries(rings.queries.stage) + group * 64 * kRowBytes;
  const int last = tile.rows * a.group - 1;
  const auto range_of = [&](int vector) {
    return visible_keys(a, tile.position + row_of_vector(plan, min(vector, last)), tile.keys);
  };
  GroupState<kKeys> state;
  const KeyRange low = range_of(group * 64), high = range_of(group * 64 + 63);
  const auto masked = [&](int key) { return Masks{key<high.first, key + kKeys> low.end}; };
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int vector = group * 64 + warp * 16 + lane / 4 + 8 * h;
    state.range[h] = range_of(vector);
    state.sink[h] = -INFINITY;
    if (a.sinks) {
      const int head = tile.kv_head * a.group + vector - row_of_vector(plan, vector) * a.group;
      state.sink[h] = load_weight(a.sinks, a.sink_type, head) * kLog2E;
    }
    state.largest[h] = -1e30f;  // finite, so that differences are
    state.sum[h] = 0;
  }
#pragma unroll
  for (float& x : state.sums) x = 0;

  if (tile.first < tile.end) {
    float shrink[2];
    barrier_wait(shared.keys_full(rings.keys.stage), rings.keys.parity);
    issue_scores(state, queries, shared.base + shared.keys_at(rings.keys.stage));
    wgmma_wait<0>();
    pin(state.s);
    release(shared.keys_empty(rings.keys.stage));
    rings.keys.advance();
    soften(state, tile.first, masked(tile.first), scale, shrink);
    pack_probabilities(state);
    int key = tile.first + kKeys;
    for (; key < tile.end; key += kKeys) {
      barrier_wait(shared.keys_full(rings.keys.stage), rings.keys.parity);
      issue_scores(state, queries, shared.base + shared.keys_at(rings.keys.stage));
      barrier_wait(shared.values_full(rings.values.stage), rings.values.parity);
      issue_sums(state, shared.base + shared.values_at(rings.values.stage));
      wgmma_wait<1>();
      pin(state.s);
      release(shared.keys_empty(rings.keys.stage));
      rings.keys.advance();
      const bool rescale = soften(state, key, masked(key), scale, shrink);
      wgmma_wait<0>();
      pin(state.sums);
      pin(state.p);
      release(shared.values_empty(rings.values.stage));
      rings.values.advance();
      if (rescale) {
#pragma unroll
        for (int n = 0; n < kDim / 2; ++n) state.sums[n] *= shrink[n / 2 % 2];
      }
      pack_probabilities(state);
    }
    barrier_wait(shared.values_full(rings.values.stage), rings.values.parity);
    if (key > tile.end)
      clear_values<kKeys>(shared.raw + shared.values_at(rings.values.stage), kKeys - (key - tile.end), group);
    issue_sums(state, shared.base + shared.values_at(rings.values.stage));
    wgmma_wait<0>();
    pin(state.sums);
    release(shared.values_empty(rings.values.stage));
    rings.values.advance();
  }
  write_group(a, plan, tile, group, scale, shared.raw + rings.queries.stage * kQueryBytes, state);
}

// A warpgroup without vectors in this tile: buffers come and go.
template <int kKeys>
__device__ void skip_tile(const HopperShared<kKeys>& shared, const TileInfo& tile, GroupRings<kKeys>& rings) {
  for (int key = tile.first; key < tile.end; key += kKeys) {
    barrier_wait(shared.keys_full(rings.keys.stage), rings.keys.parity);
    release(shared.keys_empty(rings.keys.stage));
    rings.keys.advance();
    barrier_wait(shared.values_full(rings.values.stage), rings.values.parity);
    release(shared.values_empty(rings.values.stage));
    rings.values.advance();
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <int kKeys>
__global__ void __launch_bounds__(kHopperThreads, 1)
    hopper_kernel(const __grid_constant__ Attention a, const __grid_constant__ HopperPlan plan,
                  const __grid_constant__ CUtensorMap q_map, const __grid_constant__ CUtensorMap k_map,
                  const __grid_constant__ CUtensorMap v_map) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr int kStages = HopperShape<kKeys>::kStages;
  extern __shared__ unsigned char memory[];
  const HopperShared<kKeys> shared(memory);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kQueryBuffers; ++i) {
      barrier_init(shared.queries_full(i), 1);
      barrier_init(shared.queries_empty(i), kGroups * kWarpgroup);
    }
    for (int i = 0; i < kStages; ++i) {
      barrier_init(shared.keys_full(i), 1);
      barrier_init(shared.values_full(i), 1);
      barrier_init(shared.keys_empty(i), kGroups * 4);
      barrier_init(shared.values_empty(i), kGroups * 4);
    }
    barrier_init_fence();
    map_prefetch(&q_map);
    map_prefetch(&k_map);
    map_prefetch(&v_map);
  }
  __syncthreads();
  grid_dependency_wait();
  grid_dependency_launch();
  if (threadIdx.x < kWarpgroup) {
    registers_release<32>();
    if (threadIdx.x < kWarp) copy_tiles<kKeys>(a, plan, shared, &q_map, &k_map, &v_map);
  } else {
    registers_take<160>();
    const int group = uniform(static_cast<int>(threadIdx.x) / kWarpgroup - 1);
    const float scale = a.scale * kLog2E;
    GroupRings<kKeys> rings;
    while (true) {
      barrier_wait(shared.queries_full(rings.queries.stage), rings.queries.parity);
      const TileInfo tile = uniform(shared.info[rings.queries.stage]);
      if (tile.rows == 0) break;
      if (group * 64 < tile.rows * a.group) run_tile<kKeys>(a, plan, shared, tile, group, scale, rings);
      else skip_tile<kKeys>(shared, tile, rings);
      barrier_arrive(shared.queries_empty(rings.queries.stage));  // every thread: all have read the tile's description
      rings.queries.advance();
    }
  }
#endif
}

struct Maps {
  CUtensorMap q, k, v;
};

Maps make_maps(const Attention& a, const HopperPlan& plan) {
  const auto u = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  const auto map = [&](const void* data, std::int64_t inner, std::int64_t outer, int box_inner, int box_outer) {
    return hopper::tensor_map("attention", CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, sizeof(bf16_t), data,
                              {3,
                               {kDim, u(inner), u(outer)},
                               kDim,
                               {kDim, static_cast<std::uint32_t>(box_inner), static_cast<std::uint32_t>(box_outer)}},
                              CU_TENSOR_MAP_SWIZZLE_128B);
  };
  Maps maps;
  maps.q = map(a.q, a.heads, a.rows, a.group, plan.tile_rows);
  for (auto [to, data] : {std::pair(&maps.k, a.k), std::pair(&maps.v, a.v)}) {
    if (a.block_tables) *to = map(data, a.block_size, static_cast<std::int64_t>(a.blocks) * a.kv_heads, plan.box, 1);
    else *to = map(data, a.kv_heads, a.rows, 1, plan.box);
  }
  return maps;
}

template <int kKeys>
void run(Context& ctx, const Attention& a) {
  HopperPlan plan{};
  plan.tile_rows = kVectors / a.group;
  plan.map = {1, plan.tile_rows};
  plan.tiles = static_cast<int>(plan.map.count(a) * a.kv_heads);
  plan.box = a.block_tables ? std::gcd(a.block_size, kKeys) : kKeys;
  plan.inverse_group = (65535 + a.group) / a.group;
  plan.counter = counters(ctx, 1);
  const int blocks = std::min(plan.tiles, device_of(ctx).multiprocessors);
  const Maps maps = make_maps(a, plan);
  launch(ctx, "attention", hopper_kernel<kKeys>,
         {dim3(static_cast<unsigned>(blocks)), dim3(kHopperThreads), HopperShape<kKeys>::kBytes, true}, a, plan, maps.q,
         maps.k, maps.v);
}

}  // namespace

bool attention_hopper_supported(const Context& ctx, const Attention& a) {
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  const TileMap map{1, std::max(1, kVectors / a.group)};
  return device_of(ctx).capability == 90 && a.dim == kDim && a.q_type == DType::kBF16 && a.k_type == DType::kBF16 &&
         a.v_type == DType::kBF16 && a.scale > 0 && kVectors % a.group == 0 &&
         static_cast<std::int64_t>(a.blocks) * a.kv_heads < (std::int64_t{1} << 31) &&
         map.count(a) * a.kv_heads < (std::int64_t{1} << 30) && aligned(a.q) && aligned(a.k) && aligned(a.v) &&
         aligned(a.out);
}

// Steps of 96 keys where a tile's keys, few, fill them better than steps of 128: images, windows.
void attention_hopper(Context& ctx, const Attention& a) {
  const auto padded = [&](int step) {
    std::int64_t keys = a.most_keys;
    if (a.block_tables && a.window > 0) keys += kVectors / a.group - 1 + std::gcd(a.block_size, step) - 1;
    return ceil_div(keys, step) * step;
  };
  if (padded(96) < padded(128)) run<96>(ctx, a);
  else run<128>(ctx, a);
}

}  // namespace gov::ops::cuda
