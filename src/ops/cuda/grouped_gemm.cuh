#pragma once
// The products of a mixture of experts in training, BF16 with F32 sums, on Hopper's tensor cores (sm_90a). Slots are
// sorted by expert and padded to whole steps of kDepth (moe_routing.cuh); sums of padding rows are zeros.
//
//   kUp       h[s] = W x[s] + b, and a[s] = swiglu(h[s])     A = W      K-major   B = x     K-major
//   kOut      y[s] = W a[s] + b                              A = W      K-major   B = a     K-major
//   kBack     dx[s] = W^T dout[s]                            A = W      M-major   B = dout  K-major
//   kWeights  dW += sum over an expert's s of dout[s] x[s]^T A = dout   M-major   B = x     N-major
//
// wgmma takes either order from shared memory, so nothing is ever transposed. A block makes a tile of up to 192 x 192:
// widths of gpt-oss (2,880 = 15 * 192) are whole tiles. One thread copies into a ring of stages of 64 along k, three
// warpgroups multiply 64 rows of A each. A cluster of two blocks makes two tiles that have one operand in common: each
// copies half of it, multicast to both. For slots that is the weights, and a chunk of up to 384 slots of one expert is
// divided between the two, in steps of 8, so that no tile is wider than it must be; for kWeights two tiles one above
// the other have x in common, or where a last row of tiles is left over two beside each other have dout.
//
// Persistent: clusters take tiles round robin, an expert's neighbours first, which share their operands in the L2
// cache. The numbers of rows are read on the device. Limit: the tensor cores; kWeights also moves 8 bytes of dW for
// each 2 rows FLOPs, which are as long as its products at about 1,000 rows an expert: they are fetched into the L2
// cache while the tile is multiplied.

#include "ops/cuda/moe_routing.cuh"
#include "ops/cuda/tma.cuh"
#include "ops/cuda/wgmma.cuh"

namespace gov::ops::cuda {

enum class Grouped { kUp, kOut, kBack, kWeights };

struct GroupedShape {
  static constexpr int kTile = 192, kDepth = 64, kStages = 4;
  static constexpr int kChunk = 2 * kTile;  // slots of a cluster
  static constexpr int kGroups = 3, kThreads = 128 * (kGroups + 1), kWarps = 4 * kGroups;
  static constexpr int kCopyRegisters = 40, kMultiplyRegisters = 152;  // together at most 512, four of 128
  static constexpr int kOperandBytes = kTile * kDepth * 2, kStageBytes = 2 * kOperandBytes;
  static constexpr int kHalfRows = kTile / 2;  // of A, K-major: one copy
  static constexpr int kBox = 32;              // slots of one copy
  static constexpr int kTableAt = kStages * kStageBytes + 128;
  static std::size_t bytes(std::int64_t experts) {
    return 1024 + kTableAt + static_cast<std::size_t>(3 * experts + 1) * sizeof(int);
  }
};

struct GroupedArgs {
  Routing routing;
  int first_expert, experts;  // this launch's; weights' maps start at first_expert
  int m, n, steps;            // m: rows of A; n: kWeights alone; steps along k: not for kWeights
  Bias bias;                  // [E, m]
  float alpha, limit;
  bf16_t* activations;  // kUp: [slots, m / 2], or null
  bf16_t* h;            // kUp: [pairs or slots, m], or null
  bool h_by_pair;
  bf16_t* y;       // kOut, kBack: [slots, m]
  float* dweight;  // kWeights: [E, m, n]
  bool accumulate;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

struct GroupedTile {
  int expert, m0;  // expert: of the launch
  int n0;          // first slot, or kWeights: first column
  int columns;     // 0: the block has no tile of its own
  int k0, steps;   // kWeights: first slot
  bool share_a;    // which operand both blocks read
};

struct GroupedShared {
  std::uint32_t ring, full, empty;  // addresses; barriers are 8 bytes
  int *tiles, *begins, *counts;     // [experts + 1], [experts], [experts]

  __device__ GroupedShared(std::uint8_t* raw, int experts) {
    std::uint8_t* const base = raw + (1024 - shared_address(raw) % 1024) % 1024;
    ring = shared_address(base);
    full = ring + GroupedShape::kStages * GroupedShape::kStageBytes;
    empty = full + 8 * GroupedShape::kStages;
    tiles = reinterpret_cast<int*>(base + GroupedShape::kTableAt);
    begins = tiles + experts + 1;
    counts = begins + experts;
  }
};

// Pairs of tiles of an expert with `count` slots.
template <Grouped kKind>
__device__ inline int grouped_pairs(const GroupedArgs& a, int count) {
  constexpr int kTile = GroupedShape::kTile, kChunk = GroupedShape::kChunk;
  if (count == 0 && (kKind != Grouped::kWeights || a.accumulate)) return 0;  // otherwise zeros are written
  const int down = (a.m + kTile - 1) / kTile;
  if constexpr (kKind != Grouped::kWeights) return (count + kChunk - 1) / kChunk * down;
  const int across = (a.n + kTile - 1) / kTile;
  return down / 2 * across + (down % 2) * ((across + 1) / 2);
}

template <Grouped kKind>
__device__ inline GroupedTile grouped_tile(const GroupedShared& s, const GroupedArgs& a, int index, int rank) {
  constexpr int kTile = GroupedShape::kTile, kChunk = GroupedShape::kChunk, kDepth = GroupedShape::kDepth;
  GroupedTile t;
  t.expert = expert_of_chunk(s.tiles, a.experts, index);
  const int local = index - s.tiles[t.expert], count = s.counts[t.expert];
  if constexpr (kKind == Grouped::kWeights) {
    const int down = (a.m + kTile - 1) / kTile, across = (a.n + kTile - 1) / kTile, pairs = down / 2 * across;
    t.share_a = local >= pairs;
    t.m0 = (t.share_a ? down - 1 : local / across * 2 + rank) * kTile;
    t.n0 = (t.share_a ? (local - pairs) * 2 + rank : local % across) * kTile;
    t.columns = min(kTile, max(0, a.n - t.n0));
    t.k0 = s.begins[t.expert];
    t.steps = (count + kDepth - 1) / kDepth;
  } else {
    const int chunks = (count + kChunk - 1) / kChunk, chunk = local % chunks, per = rows_per_chunk(count, chunks);
    const int here = min(per, count - chunk * per), half = ((here + 1) / 2 + 7) / 8 * 8;  // may be none at all
    t.share_a = true;
    t.m0 = local / chunks * kTile;
    t.n0 = s.begins[t.expert] + chunk * per + rank * half;
    t.columns = max(0, rank == 0 ? min(half, here) : here - half);
    t.k0 = 0;
    t.steps = a.steps;
  }
  return t;
}

struct GroupedRing {
  int stage = 0;
  std::uint32_t phase = 0;
  __device__ void advance() {
    if (++stage == GroupedShape::kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// --- the copying thread -------------------------------------------------------------------------------------------

template <Grouped kKind>
__device__ void grouped_copy(const CUtensorMap* a_map, const CUtensorMap* b_map, const CUtensorMap* c_map,
                             const GroupedArgs& a, const GroupedShared& s, int rank) {
  using Shape = GroupedShape;
  constexpr bool kWeights = kKind == Grouped::kWeights;
  constexpr int kHalves = 2, kSquare = 64 * Shape::kDepth * 2;  // bytes of 64 x 64
  const std::uint64_t policy = hopper::policy_evict_normal();
  const int tiles = s.tiles[a.experts], clusters = static_cast<int>(gridDim.x) / 2;
  GroupedRing ring;
  // Half `half` along k of an operand whose rows lie along k.
  const auto copy_along_k = [&](std::uint32_t to, const CUtensorMap* map, int x, int k, int z, int half, bool both,
                                std::uint32_t full) {
#pragma unroll
    for (int j = 0; j < Shape::kTile / 64; ++j) {
      const std::uint32_t at = to + j * kSquare + half * kSquare / kHalves;
      const int row = k + half * Shape::kDepth / kHalves;
      if (both) hopper::tile_multicast_3d(at, map, x + 64 * j, row, z, full, 3, policy);
      else hopper::tile_copy_3d(at, map, x + 64 * j, row, z, full, policy);
    }
  };
  for (int index = static_cast<int>(blockIdx.x) / 2; index < tiles; index += clusters) {
    const GroupedTile tile = grouped_tile<kKind>(s, a, index, rank);
    const int boxes = (tile.columns + Shape::kBox - 1) / Shape::kBox;
    int bytes = Shape::kOperandBytes;
    if constexpr (kWeights) bytes += tile.columns > 0 ? Shape::kOperandBytes : 0;
    else bytes += boxes * Shape::kBox * Shape::kDepth * 2;
    if constexpr (kWeights) {
      if (a.accumulate && tile.columns > 0) hopper::tile_prefetch_3d(c_map, tile.n0, tile.m0, a.first_expert + tile.expert);
    }
    for (int step = 0; step < tile.steps; ++step) {
      barrier_wait(s.empty + 8 * ring.stage, ring.phase ^ 1);
      const std::uint32_t full = s.full + 8 * ring.stage;
      const std::uint32_t to_a = s.ring + ring.stage * Shape::kStageBytes, to_b = to_a + Shape::kOperandBytes;
      const int k = tile.k0 + step * Shape::kDepth;
      barrier_expect(full, static_cast<std::uint32_t>(bytes));
      if constexpr (kWeights) {
        if (tile.share_a) {
          copy_along_k(to_a, a_map, tile.m0, k, 0, rank, true, full);
          if (tile.columns > 0) {
            for (int half = 0; half < kHalves; ++half) copy_along_k(to_b, b_map, tile.n0, k, 0, half, false, full);
          }
        } else {
          for (int half = 0; half < kHalves; ++half) copy_along_k(to_a, a_map, tile.m0, k, 0, half, false, full);
          copy_along_k(to_b, b_map, tile.n0, k, 0, rank, true, full);
        }
      } else {
        if constexpr (kKind == Grouped::kBack) {
          copy_along_k(to_a, a_map, tile.m0, k, tile.expert, rank, true, full);
        } else {
          hopper::tile_multicast_3d(to_a + rank * Shape::kHalfRows * 128, a_map, k, tile.m0 + rank * Shape::kHalfRows,
                                    tile.expert, full, 3, policy);
        }
        for (int i = 0; i < boxes; ++i)
          hopper::tile_copy_3d(to_b + i * Shape::kBox * 128, b_map, k, tile.n0 + i * Shape::kBox, 0, full, policy);
      }
      ring.advance();
    }
  }
}

// --- the multiplying warpgroups -----------------------------------------------------------------------------------

// The thread's place among the multipliers.
struct GroupedLane {
  int group, warp, lane, g, t;  // warpgroup, warp in it, lane = 4 g + t
  __device__ void release(const GroupedShared& s, int stage) const {
    __syncwarp();
    if (lane < 2) hopper::barrier_arrive_at(s.empty + 8 * stage, lane);
  }
};

__device__ inline std::uint32_t pack_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(pair);
}

// sums of 64 rows x N columns: [8 columns each][row g: columns 2 t, 2 t + 1; row g + 8: the same].
template <Grouped kKind, int N>
__device__ inline void grouped_multiply(float (&sums)[N / 2], int steps, const GroupedShared& s, const GroupedLane& me,
                                        GroupedRing& ring) {
  using Shape = GroupedShape;
  constexpr bool kAlongA = kKind == Grouped::kBack || kKind == Grouped::kWeights;  // rows of A lie along k
  constexpr bool kAlongB = kKind == Grouped::kWeights;
  constexpr int kStepA = kAlongA ? 128 : 2, kStepB = kAlongB ? 128 : 2;
  int before = -1;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    barrier_wait(s.full + 8 * ring.stage, ring.phase);
    const std::uint32_t stage = s.ring + ring.stage * Shape::kStageBytes;
    const std::uint32_t left = stage + me.group * 64 * 128, right = stage + Shape::kOperandBytes;
    const std::uint32_t x = kAlongA ? hopper::operand_along_k(left) : hopper::operand(left);
    const std::uint32_t y = kAlongB ? hopper::operand_along_k(right) : hopper::operand(right);
    hopper::wgmma_fence();
#pragma unroll
    for (int i = 0; i < Shape::kDepth / 16; ++i) {
      hopper::wgmma_ss<kAlongA, kAlongB>(hopper::Columns<N>{}, sums, x + kStepA * i, y + kStepB * i);
    }
    hopper::wgmma_commit();
    hopper::wgmma_wait<1>();
    if (before >= 0) me.release(s, before);
    before = ring.stage;
    ring.advance();
  }
  hopper::wgmma_wait<0>();
  if (before >= 0) me.release(s, before);
}

// Rows are gate, up, gate, up ...: lanes whose g differ by one hold a pair's halves for two columns, and take one each.
template <int N>
__device__ inline void grouped_write_up(const float (&sums)[N / 2], const GroupedArgs& a, const GroupedTile& tile,
                                        const GroupedLane& me, int row) {
  const bool even = me.g % 2 == 0, valid = row < a.m;  // m is a multiple of 16
  const std::int64_t bias_row = static_cast<std::int64_t>(a.first_expert + tile.expert) * a.m + row + me.g;
  const float low_bias = valid ? a.bias[bias_row] : 0.f, high_bias = valid ? a.bias[bias_row + 8] : 0.f;
  constexpr int kAtOnce = 8;
  int h_row[kAtOnce];  // asked for together
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
    if (8 * j >= tile.columns) break;
    if (j % kAtOnce == 0 && a.h) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int column = 8 * (j + i) + 2 * me.t + (even ? 0 : 1);
        h_row[i] = tile.n0 + column;
        if (a.h_by_pair && column < tile.columns) h_row[i] = a.routing.pair_of_slot[tile.n0 + column];
      }
    }
    const float l0 = sums[4 * j] + low_bias, l1 = sums[4 * j + 1] + low_bias;
    const float h0 = sums[4 * j + 2] + high_bias, h1 = sums[4 * j + 3] + high_bias;
    const float low_other = __shfl_xor_sync(kAllLanes, even ? l1 : l0, 4);
    const float high_other = __shfl_xor_sync(kAllLanes, even ? h1 : h0, 4);
    const float low_gate = even ? l0 : low_other, low_up = even ? low_other : l1;
    const float high_gate = even ? h0 : high_other, high_up = even ? high_other : h1;
    const int column = 8 * j + 2 * me.t + (even ? 0 : 1);
    const bool mine = valid && column < tile.columns;
    const int slot = tile.n0 + column;
    if (a.h && mine) {
      auto* to = reinterpret_cast<std::uint32_t*>(a.h + static_cast<std::int64_t>(h_row[j % kAtOnce]) * a.m + row +
                                                  me.g / 2 * 2);
      to[0] = pack_pair(low_gate, low_up);
      to[4] = pack_pair(high_gate, high_up);
    }
    if (a.activations == nullptr) continue;
    const auto activation = [&](float gate, float up) {
      gate = fminf(gate, a.limit);
      up = fminf(fmaxf(up, -a.limit), a.limit);
      return (up + 1.f) * __fdividef(gate, 1.f + __expf(-a.alpha * gate));
    };
    const float low = activation(low_gate, low_up), high = activation(high_gate, high_up);
    // Activations are j and j + 4 of 8; lanes whose g differ by two exchange them, so that each writes two neighbours.
    const bool first = me.g / 2 % 2 == 0;
    const float other = __shfl_xor_sync(kAllLanes, first ? high : low, 8);
    if (mine) {
      bf16_t* const to = a.activations + static_cast<std::int64_t>(slot) * (a.m / 2) + row / 2 + me.g / 4 * 2;
      *reinterpret_cast<std::uint32_t*>(to + (first ? 0 : 4)) = first ? pack_pair(low, other) : pack_pair(other, high);
    }
  }
}

// y[slot], transposed on its way: lanes whose g differ by one exchange columns, so that each writes two neighbours.
template <int N>
__device__ inline void grouped_write_rows(const float (&sums)[N / 2], const GroupedArgs& a, const GroupedTile& tile,
                                          const GroupedLane& me, int row) {
  const bool even = me.g % 2 == 0, valid = row < a.m;
  const std::int64_t bias_row = static_cast<std::int64_t>(a.first_expert + tile.expert) * a.m + row + me.g;
  const float low_bias = valid ? a.bias[bias_row] : 0.f, high_bias = valid ? a.bias[bias_row + 8] : 0.f;
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
    if (8 * j >= tile.columns) break;
    const float l0 = sums[4 * j] + low_bias, l1 = sums[4 * j + 1] + low_bias;
    const float h0 = sums[4 * j + 2] + high_bias, h1 = sums[4 * j + 3] + high_bias;
    const float low_other = __shfl_xor_sync(kAllLanes, even ? l1 : l0, 4);
    const float high_other = __shfl_xor_sync(kAllLanes, even ? h1 : h0, 4);
    const int column = 8 * j + 2 * me.t + (even ? 0 : 1);
    if (valid && column < tile.columns) {
      bf16_t* const to = a.y + static_cast<std::int64_t>(tile.n0 + column) * a.m + row + me.g / 2 * 2;
      *reinterpret_cast<std::uint32_t*>(to) = even ? pack_pair(l0, low_other) : pack_pair(low_other, l1);
      *reinterpret_cast<std::uint32_t*>(to + 8) = even ? pack_pair(h0, high_other) : pack_pair(high_other, h1);
    }
  }
}

// dW += sums or dW = sums, each element by one thread. The adds are made where dW is, in the L2 cache: nothing waits for
// the old values. Each element gets one, so there is no order that could change; subnormal numbers become zeros.
template <int N>
__device__ inline void grouped_add_weights(const float (&sums)[N / 2], const GroupedArgs& a, const GroupedTile& tile,
                                           const GroupedLane& me, int row) {
  if (row >= a.m) return;
  float* const low = a.dweight + (static_cast<std::int64_t>(a.first_expert + tile.expert) * a.m + row + me.g) * a.n +
                     tile.n0 + 2 * me.t;
  float* const high = low + 8 * static_cast<std::int64_t>(a.n);
  if (a.accumulate) {
#pragma unroll
    for (int j = 0; j < N / 8; ++j) {
      if (8 * j >= tile.columns) break;  // n is a multiple of 8
      asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(low + 8 * j), "f"(sums[4 * j]), "f"(sums[4 * j + 1])
                   : "memory");
      asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(high + 8 * j), "f"(sums[4 * j + 2]),
                   "f"(sums[4 * j + 3])
                   : "memory");
    }
    return;
  }
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
    if (8 * j >= tile.columns) break;
    __stcg(reinterpret_cast<float2*>(low + 8 * j), {sums[4 * j], sums[4 * j + 1]});
    __stcg(reinterpret_cast<float2*>(high + 8 * j), {sums[4 * j + 2], sums[4 * j + 3]});
  }
}

// Takes the code for the narrowest width that holds the tile.
template <Grouped kKind, int N>
__device__ inline void grouped_sums(const GroupedArgs& a, const GroupedShared& s, const GroupedTile& tile,
                                    const GroupedLane& me, int row, GroupedRing& ring) {
  constexpr int kNext = N == 64 ? 128 : N == 128 ? 160 : N + 16;
  if constexpr (N < GroupedShape::kTile) {
    if (tile.columns > N) {
      grouped_sums<kKind, kNext>(a, s, tile, me, row, ring);
      return;
    }
  }
  float sums[N / 2] = {};
  grouped_multiply<kKind, N>(sums, tile.steps, s, me, ring);
#pragma unroll
  for (int i = 0; i < N / 2; ++i) asm volatile("" : "+f"(sums[i])::"memory");
  row += 16 * me.warp;
  if constexpr (kKind == Grouped::kUp) grouped_write_up<N>(sums, a, tile, me, row);
  else if constexpr (kKind == Grouped::kWeights) grouped_add_weights<N>(sums, a, tile, me, row);
  else grouped_write_rows<N>(sums, a, tile, me, row);
}

template <Grouped kKind>
__device__ void grouped_run(const GroupedArgs& a, const GroupedShared& s, int rank) {
  const int thread = static_cast<int>(threadIdx.x) - 128, lane = thread % kWarp;
  const GroupedLane me{thread / 128, thread / kWarp % 4, lane, lane / 4, lane % 4};
  const int tiles = s.tiles[a.experts], clusters = static_cast<int>(gridDim.x) / 2;
  GroupedRing ring;
  for (int index = static_cast<int>(blockIdx.x) / 2; index < tiles; index += clusters) {
    const GroupedTile tile = grouped_tile<kKind>(s, a, index, rank);
    const int row = tile.m0 + me.group * 64;
    if (row >= a.m || tile.columns == 0) {
      for (int step = 0; step < tile.steps; ++step) {
        barrier_wait(s.full + 8 * ring.stage, ring.phase);
        me.release(s, ring.stage);
        ring.advance();
      }
      continue;
    }
    grouped_sums<kKind, kKind == Grouped::kWeights ? GroupedShape::kTile : 64>(a, s, tile, me, row, ring);
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

// Older architectures know no clusters; the kernel is empty there.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define GOV_GROUPED_PAIRS __cluster_dims__(2, 1, 1)
#else
#define GOV_GROUPED_PAIRS
#endif

// Grid: an even number of blocks, at most one a multiprocessor. Maps, all of 3 axes and swizzled by 128: A of kUp and
// kOut boxes of 64 along k x kHalfRows; slots as B of those and of kBack 64 x kBox; all others 64 x 32 along k. c_map:
// dW in boxes of a tile, not swizzled; unused by the others.
template <Grouped kKind>
__global__ void GOV_GROUPED_PAIRS __launch_bounds__(GroupedShape::kThreads, 1)
    grouped_gemm(const __grid_constant__ CUtensorMap a_map, const __grid_constant__ CUtensorMap b_map,
                 const __grid_constant__ CUtensorMap c_map, const __grid_constant__ GroupedArgs a) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Shape = GroupedShape;
  extern __shared__ std::uint8_t grouped_memory[];
  const GroupedShared s(grouped_memory, a.experts);
  const int rank = static_cast<int>(hopper::cluster_rank());
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shape::kStages; ++i) {
      barrier_init(s.full + 8 * i, 1);
      barrier_init(s.empty + 8 * i, 2 * Shape::kWarps);
    }
    barrier_init_fence();
    hopper::map_prefetch(&a_map);
    hopper::map_prefetch(&b_map);
  }
  grid_dependency_wait();
  grid_dependency_launch();
  for (int i = static_cast<int>(threadIdx.x); i < a.experts; i += Shape::kThreads) {
    s.begins[i] = a.routing.offsets[a.first_expert + i];
    s.counts[i] = a.routing.counts[a.first_expert + i];
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int sum = 0;
    for (int i = 0; i < a.experts; ++i) {
      s.tiles[i] = sum;
      sum += grouped_pairs<kKind>(a, s.counts[i]);
    }
    s.tiles[a.experts] = sum;
  }
  __syncthreads();
  hopper::cluster_sync();
  if (threadIdx.x < 128) {
    hopper::registers_release<Shape::kCopyRegisters>();
    if (threadIdx.x == 0)
      grouped_copy<kKind>(&a_map, &b_map, kKind == Grouped::kWeights ? &c_map : nullptr, a, s, rank);
    __syncwarp();
  } else {
    hopper::registers_take<Shape::kMultiplyRegisters>();
    grouped_run<kKind>(a, s, rank);
  }
  hopper::cluster_sync();  // the other block may still arrive at this one's barriers
#else
  __trap();  // dispatch sends no other GPU here
#endif
}

}  // namespace gov::ops::cuda
