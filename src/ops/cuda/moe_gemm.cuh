#pragma once
// Expert projections on Hopper's tensor cores (sm_90a): weights are the M operand, slots (tokens) the N operand of
// wgmma.
//
// One kernel, two forms of weights:
// - MXFP4: a warp loads its rows' 4-bit codes from shared memory, makes bf16 fragments in registers (A from registers).
//   Limit: small batches the bytes of the weights / memory bandwidth, large ones the tensor cores.
// - BF16 [E, out, in]: A from shared memory. Limit: the tensor cores from about 300 rows an expert on.
//
// A tile is 256 (384) output features x one chunk of slots (moe_routing.cuh), made by a cluster of two blocks, half
// each. Each block copies its own weights and half of the chunk's activations, multicast to both. One thread copies
// into a ring of stages (64 or 128 input features), two or three warpgroups multiply 64 features each; the ring runs on
// from tile to tile. Persistent: the grid fills the GPU, clusters take tiles round robin, chunks of an expert first, so
// that blocks which run side by side share weights and activations in the L2 cache. The number of tiles is read on the
// device.
//
// Order of k for MXFP4: lane t of a quad owns the block of 32 weights t of each 128, 16 bytes of a row; so k-step s of
// 16 multiplies elements that are spread over the four blocks, and activations are stored in that order
// (permuted_source()).

#include "ops/cuda/moe_routing.cuh"
#include "ops/cuda/tma.cuh"
#include "ops/cuda/wgmma.cuh"

namespace gov::ops::cuda {

// kColumns: most slots of a chunk. Code for narrower chunks is chosen in the kernel.
template <bool kMxfp4, int kColumns>
struct GemmShape {
  // Warpgroups that multiply, 64 output features each; one more copies. Small batches are bound by the latency of a
  // tile's steps, which more warps hide: three groups, or two blocks on a multiprocessor.
  static constexpr int kGroups = kMxfp4 && (kColumns == 64 || kColumns == 96) ? 3 : 2;
  static constexpr int kBlocks = kMxfp4 && kColumns <= 32 ? 2 : 1;
  static constexpr int kRows = 64 * kGroups, kThreads = 128 * (kGroups + 1), kMultiplierWarps = 4 * kGroups;
  // Together no more than a block starts with, or the warps that ask for registers wait for ever.
  static constexpr int kStartRegisters = kBlocks == 2 ? 80 : kGroups == 3 ? 128 : 168;
  static constexpr int kCopyRegisters = kBlocks == 2 ? 32 : 40;
  static constexpr int kMultiplyRegisters = kBlocks == 2 ? 104 : kGroups == 3 ? 152 : 232;
  static_assert(kCopyRegisters + kGroups * kMultiplyRegisters <= (kGroups + 1) * kStartRegisters);
  static constexpr int kHalves = kMxfp4 ? 2 : 1;  // of 64 input features
  static constexpr int kDepth = 64 * kHalves;
  static constexpr int kWeightBytes = kMxfp4 ? kRows * 64 : kRows * 128;
  static constexpr int kRowBytes = kHalves * kColumns * 128;
  static constexpr int kStageBytes = kWeightBytes + kRowBytes;
  // Widths that there is code for: kNarrowest, then in steps. With many, ptxas runs out of registers for 4-bit weights.
  static constexpr int kStep = kColumns <= 16 ? 8 : kMxfp4 && kColumns > 32 ? 32 : 16;
  static constexpr int kNarrowest = kMxfp4 && kColumns > 128 ? 96 : kStep;
  static constexpr int kBoxRows = kColumns <= 16 ? 8 : kColumns <= 128 ? 16 : 32;  // slots of one copy
};

struct GemmArgs {
  Routing routing;
  int out, steps, stages;      // steps: ceil(in / kDepth)
  const std::uint8_t* scales;  // [E, out, scale_blocks]
  int scale_blocks;
  Bias bias;
  float alpha, limit;
  bf16_t* activations;  // up: [slots, activation_pitch]
  int activation_pitch;
  void* y;  // down: [slots, out] of OutType
};
// Results of large batches pass through memory as bf16, as their inputs do.
template <int kColumns>
using GemmOut = std::conditional_t<kColumns <= 96, float, bf16_t>;

// Bytes of shared memory beside the stages.
template <class Shape>
std::size_t gemm_fixed_bytes(int scale_blocks, int experts) {
  return 1024 + 2 * ((static_cast<std::size_t>(Shape::kRows) * scale_blocks + 127) / 128 * 128) + 1024 +
         2 * (static_cast<std::size_t>(experts) + 1) * sizeof(int);
}
constexpr int kMostStages = 24;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

struct GemmTile {
  int expert, first_row, slot, columns;
};

// Everything a thread needs to find its way in shared memory.
struct GemmShared {
  std::uint32_t ring, full, empty, scales_full, scales_empty;  // addresses; barriers are 8 bytes
  std::uint8_t *stages, *slabs;
  int slab_bytes;
  int *offsets, *chunks;
};

template <class Shape>
__device__ inline GemmShared gemm_shared(std::uint8_t* raw, const GemmArgs& a) {
  GemmShared s{};
  s.stages = raw + (1024 - shared_address(raw) % 1024) % 1024;
  s.ring = shared_address(s.stages);
  s.slabs = s.stages + a.stages * Shape::kStageBytes;
  s.slab_bytes = (Shape::kRows * a.scale_blocks + 127) / 128 * 128;
  std::uint8_t* barriers = s.slabs + 2 * s.slab_bytes;
  s.full = shared_address(barriers);
  s.empty = s.full + 8 * kMostStages;
  s.scales_full = s.empty + 8 * kMostStages;
  s.scales_empty = s.scales_full + 16;
  s.offsets = reinterpret_cast<int*>(barriers + 1024);
  s.chunks = s.offsets + a.routing.experts + 1;
  return s;
}

// Tile `index` of the cluster's list; first_row is this block's.
template <class Shape>
__device__ inline GemmTile gemm_tile(const GemmShared& s, const GemmArgs& a, int index, int row_pairs, int rank) {
  GemmTile tile;
  tile.expert = expert_of_chunk(s.chunks, a.routing.experts, index / row_pairs);
  const int first_chunk = s.chunks[tile.expert], chunks = s.chunks[tile.expert + 1] - first_chunk;
  const int local = index - first_chunk * row_pairs, chunk = local % chunks;
  tile.first_row = (local / chunks * 2 + rank) * Shape::kRows;
  const int begin = s.offsets[tile.expert], rows = s.offsets[tile.expert + 1] - begin;
  const int per_chunk = rows_per_chunk(rows, chunks);
  tile.slot = begin + chunk * per_chunk;
  tile.columns = min(per_chunk, rows - chunk * per_chunk);
  return tile;
}

struct GemmRing {
  int stage = 0, stages;
  std::uint32_t phase = 0;
  __device__ void advance() {
    if (++stage == stages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// --- the copying thread -------------------------------------------------------------------------------------------

template <bool kMxfp4, int kColumns, bool kUp>
__device__ void gemm_copy(const CUtensorMap* weights, const CUtensorMap* rows, const GemmArgs& a, const GemmShared& s,
                          int row_pairs, int rank) {
  using Shape = GemmShape<kMxfp4, kColumns>;
  // Small batches read weights once; larger ones read them again for the next chunk.
  const std::uint64_t rows_policy = hopper::policy_evict_normal();
  const std::uint64_t weights_policy = kColumns <= 96 ? policy_evict_first() : rows_policy;
  const int tiles = s.chunks[a.routing.experts] * row_pairs, clusters = gridDim.x / 2;
  GemmRing ring{0, a.stages, 0};
  int slab = 0;
  std::uint32_t slab_phase = 0;
  bool waited = kUp;  // the up projection's kernel has waited as a whole
  for (int index = blockIdx.x / 2; index < tiles; index += clusters) {
    const GemmTile tile = gemm_tile<Shape>(s, a, index, row_pairs, rank);
    const bool active = tile.first_row < a.out;
    const int boxes = (tile.columns + Shape::kBoxRows - 1) / Shape::kBoxRows;
    const std::uint32_t bytes = (active ? Shape::kWeightBytes : 0) + boxes * Shape::kHalves * Shape::kBoxRows * 128;
    const auto copy_weights = [&](int stage, int step) {
      const std::uint32_t full = s.full + 8 * stage;
      barrier_expect(full, bytes);
      if (!active) return;
      hopper::tile_copy_3d(s.ring + stage * Shape::kStageBytes, weights, step * 64, tile.first_row, tile.expert, full,
                           weights_policy);
    };
    if (kMxfp4 && active) {
      const std::uint32_t full = s.scales_full + 8 * slab;
      barrier_wait(s.scales_empty + 8 * slab, slab_phase ^ 1);
      const std::uint32_t size = min(Shape::kRows, a.out - tile.first_row) * a.scale_blocks;
      barrier_expect(full, size);
      const std::int64_t row = static_cast<std::int64_t>(tile.expert) * a.out + tile.first_row;
      bulk_copy(shared_address(s.slabs + slab * s.slab_bytes), a.scales + row * a.scale_blocks, size, full);
      if (++slab == 2) {
        slab = 0;
        slab_phase ^= 1;
      }
    }
    // The first stages' weights need nothing of the kernel before.
    const int early = waited ? 0 : min(a.stages, a.steps);
    for (int step = 0; step < early; ++step) copy_weights(step, step);
    if (!waited) {
      grid_dependency_wait();
      grid_dependency_launch();
      waited = true;
    }
    for (int step = 0; step < a.steps; ++step) {
      barrier_wait(s.empty + 8 * ring.stage, ring.phase ^ 1);
      if (step >= early) copy_weights(ring.stage, step);
      const std::uint32_t to = s.ring + ring.stage * Shape::kStageBytes + Shape::kWeightBytes;
      for (int i = rank; i < boxes * Shape::kHalves; i += 2) {
        const int half = i % Shape::kHalves, box = i / Shape::kHalves;
        hopper::tile_multicast_2d(to + (half * kColumns + box * Shape::kBoxRows) * 128, rows,
                                  step * Shape::kDepth + half * 64, tile.slot + box * Shape::kBoxRows,
                                  s.full + 8 * ring.stage, 3, rows_policy);
      }
      ring.advance();
    }
  }
  if (!waited) grid_dependency_wait();  // what follows this kernel relies on all before it
}

// --- the multiplying warpgroups -----------------------------------------------------------------------------------

// One of the four pairs of codes in a word (nibbles kPair and kPair + 4) as two bf16, times `factor` = 2^126 * scale.
template <int kPair>
__device__ inline std::uint32_t e2m1_pair(std::uint32_t word, __nv_bfloat162 factor) {
  const std::uint32_t sign = (word << (12 - 4 * kPair)) & 0x80008000u;
  const std::uint32_t magnitude = (kPair < 2 ? word << (6 - 4 * kPair) : word >> (4 * kPair - 6)) & 0x01C001C0u;
  const std::uint32_t bits = sign | magnitude;
  const __nv_bfloat162 value = __hmul2(reinterpret_cast<const __nv_bfloat162&>(bits), factor);
  return reinterpret_cast<const std::uint32_t&>(value);
}
// 2^(scale - 1), twice; finite for scales up to 128.
__device__ inline __nv_bfloat162 e8m0_factor(std::uint32_t scale) {
  const std::uint32_t bits = ((scale + 126) << 7) * 0x00010001u;
  return reinterpret_cast<const __nv_bfloat162&>(bits);
}

// The thread's place among the multipliers.
struct GemmLane {
  int group, warp, lane, g, t;  // warpgroup, warp in it, lane = 4 g + t
  __device__ void release(const GemmShared& s, int stage) const {
    __syncwarp();
    if (lane < 2) hopper::barrier_arrive_at(s.empty + 8 * stage, lane);
  }
};

// Keeps the compiler from touching sums that are being added to.
template <int kSize>
__device__ inline void fence_sums(float (&sums)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// sums of 64 rows x N columns from 4-bit weights. Fragments of half a stage (four k-steps) are made while the tensor
// cores work on the half before.
template <int N, int kColumns>
__device__ inline void multiply_codes(float (&sums)[N / 2], const GemmArgs& a, const GemmShared& s, const GemmLane& me,
                                      GemmRing& ring, const std::uint8_t* slab) {
  using Shape = GemmShape<true, kColumns>;
  const int row = me.group * 64 + me.warp * 16 + me.g;
  const std::uint8_t *low_scales = slab + row * a.scale_blocks, *high_scales = low_scales + 8 * a.scale_blocks;
  int before = -1;
#pragma unroll 1
  for (int step = 0; step < a.steps; ++step) {
    barrier_wait(s.full + 8 * ring.stage, ring.phase);
    const std::uint8_t* stage = s.stages + ring.stage * Shape::kStageBytes;
    const uint4* codes = reinterpret_cast<const uint4*>(stage + row * 64) + me.t;
    const uint4 low_codes = codes[0], high_codes = codes[8 * 4];
    const std::uint32_t low[4] = {low_codes.x, low_codes.y, low_codes.z, low_codes.w};
    const std::uint32_t high[4] = {high_codes.x, high_codes.y, high_codes.z, high_codes.w};
    const int block = min(4 * step + me.t, a.scale_blocks - 1);  // beyond the last, codes are zero
    const __nv_bfloat162 low_factor = e8m0_factor(low_scales[block]), high_factor = e8m0_factor(high_scales[block]);
    const std::uint32_t columns = hopper::operand(s.ring + ring.stage * Shape::kStageBytes + Shape::kWeightBytes);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      std::uint32_t fragment[4][4];
#pragma unroll
      for (int w = 0; w < 2; ++w) {
        const std::uint32_t l = low[2 * half + w], h = high[2 * half + w];
        fragment[2 * w][0] = e2m1_pair<0>(l, low_factor);
        fragment[2 * w][1] = e2m1_pair<0>(h, high_factor);
        fragment[2 * w][2] = e2m1_pair<1>(l, low_factor);
        fragment[2 * w][3] = e2m1_pair<1>(h, high_factor);
        fragment[2 * w + 1][0] = e2m1_pair<2>(l, low_factor);
        fragment[2 * w + 1][1] = e2m1_pair<2>(h, high_factor);
        fragment[2 * w + 1][2] = e2m1_pair<3>(l, low_factor);
        fragment[2 * w + 1][3] = e2m1_pair<3>(h, high_factor);
      }
#pragma unroll
      for (int i = 0; i < 16; ++i) asm volatile("" : "+r"(fragment[i / 4][i % 4])::"memory");
      hopper::wgmma_wait<0>();
      if (half == 0 && before >= 0) me.release(s, before);
      hopper::wgmma_fence();
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        hopper::wgmma_rs(hopper::Columns<N>{}, sums, fragment[i], columns + half * (kColumns * 128 / 16) + 2 * i);
      }
      hopper::wgmma_commit();
    }
    before = ring.stage;
    ring.advance();
  }
  hopper::wgmma_wait<0>();
  me.release(s, before);
}

// The same from bf16 weights in shared memory.
template <int N, int kColumns>
__device__ inline void multiply_dense(float (&sums)[N / 2], const GemmArgs& a, const GemmShared& s, const GemmLane& me,
                                      GemmRing& ring) {
  using Shape = GemmShape<false, kColumns>;
  int before = -1;
#pragma unroll 1
  for (int step = 0; step < a.steps; ++step) {
    barrier_wait(s.full + 8 * ring.stage, ring.phase);
    const std::uint32_t stage = s.ring + ring.stage * Shape::kStageBytes;
    const std::uint32_t weights = hopper::operand(stage + me.group * 64 * 128);
    const std::uint32_t columns = hopper::operand(stage + Shape::kWeightBytes);
    hopper::wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      hopper::wgmma_ss(hopper::Columns<N>{}, sums, weights + 2 * i, columns + 2 * i);
    }
    hopper::wgmma_commit();
    hopper::wgmma_wait<1>();
    if (before >= 0) me.release(s, before);
    before = ring.stage;
    ring.advance();
  }
  hopper::wgmma_wait<0>();
  me.release(s, before);
}

__device__ inline std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(pair);
}
__device__ inline float swiglu_fast(float gate, float up, float alpha, float limit) {
  gate = fminf(gate, limit);
  up = fminf(fmaxf(up, -limit), limit);
  return (up + 1.f) * __fdividef(gate, 1.f + __expf(-alpha * gate));
}

// Rows are gate, up, gate, up ...: lanes whose g differ by one hold a pair's halves for two columns, and take one each.
// A lane ends with activations j and j + 4 of its column, neighbours in the MXFP4 order.
template <bool kPermuted, int N>
__device__ inline void write_activations(const float (&sums)[N / 2], const GemmArgs& a, const GemmTile& tile,
                                         const GemmLane& me, int row, float low_bias, float high_bias) {
  const bool even = me.g % 2 == 0;
  const int block = row / 64, inner = a.out / 2;  // 64 rows are one block of 32 activations
  const int blocks = (inner + 31) / 32;
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
    if (8 * j >= tile.columns) break;
    const float l0 = sums[4 * j] + low_bias, l1 = sums[4 * j + 1] + low_bias;
    const float h0 = sums[4 * j + 2] + high_bias, h1 = sums[4 * j + 3] + high_bias;
    const float low_other = __shfl_xor_sync(kAllLanes, even ? l1 : l0, 4);
    const float high_other = __shfl_xor_sync(kAllLanes, even ? h1 : h0, 4);
    const float low = swiglu_fast(even ? l0 : low_other, even ? low_other : l1, a.alpha, a.limit);
    const float high = swiglu_fast(even ? h0 : high_other, even ? high_other : h1, a.alpha, a.limit);
    const int column = 8 * j + 2 * me.t + (even ? 0 : 1);
    bf16_t* to = a.activations + static_cast<std::int64_t>(tile.slot + column) * a.activation_pitch;
    if constexpr (kPermuted) {
      const int s = 2 * me.warp + me.g / 4, h = me.g / 2 % 2;
      if (column < tile.columns) {
        auto* words = reinterpret_cast<std::uint32_t*>(to + block / 4 * 128 + 16 * s + 8 * h);
        words[block % 4] = pack_bf16(low, high);
        if (block == blocks - 1) {  // the rest of the last 128 elements is multiplied by zeros and must be finite
          for (int i = block % 4 + 1; i < 4; ++i) words[i] = 0;
        }
      }
    } else {  // lanes whose g differ by two exchange j + 4 and j, so that each writes two neighbours
      const bool first = me.g / 2 % 2 == 0;
      const float other = __shfl_xor_sync(kAllLanes, first ? high : low, 8);
      const int index = (row + 16 * me.warp) / 2 + me.g / 4 * 2 + (first ? 0 : 4);
      if (column < tile.columns && index < inner) {
        *reinterpret_cast<std::uint32_t*>(to + index) = first ? pack_bf16(low, other) : pack_bf16(other, high);
      }
    }
  }
}

template <class Y, int N>
__device__ inline void write_results(const float (&sums)[N / 2], const GemmArgs& a, const GemmTile& tile,
                                     const GemmLane& me, int row, float low_bias, float high_bias) {
  Y* y = static_cast<Y*>(a.y) + static_cast<std::int64_t>(tile.slot) * a.out + row + 16 * me.warp;
  const bool low_valid = row + 16 * me.warp < a.out;  // out is a multiple of 16
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
    if (8 * j >= tile.columns) break;
    const float l0 = sums[4 * j] + low_bias, l1 = sums[4 * j + 1] + low_bias;
    const float h0 = sums[4 * j + 2] + high_bias, h1 = sums[4 * j + 3] + high_bias;
    if constexpr (std::is_same_v<Y, float>) {
      const int column = 8 * j + 2 * me.t;
      float* to = y + static_cast<std::int64_t>(column) * a.out + me.g;
      if (low_valid && column < tile.columns) {
        to[0] = l0;
        to[8] = h0;
      }
      if (low_valid && column + 1 < tile.columns) {
        to[a.out] = l1;
        to[a.out + 8] = h1;
      }
    } else {
      const bool even = me.g % 2 == 0;
      const float low_other = __shfl_xor_sync(kAllLanes, even ? l1 : l0, 4);
      const float high_other = __shfl_xor_sync(kAllLanes, even ? h1 : h0, 4);
      const int column = 8 * j + 2 * me.t + (even ? 0 : 1);
      if (low_valid && column < tile.columns) {
        bf16_t* to = y + static_cast<std::int64_t>(column) * a.out + me.g / 2 * 2;
        *reinterpret_cast<std::uint32_t*>(to) = even ? pack_bf16(l0, low_other) : pack_bf16(low_other, l1);
        *reinterpret_cast<std::uint32_t*>(to + 8) = even ? pack_bf16(h0, high_other) : pack_bf16(high_other, h1);
      }
    }
  }
}

// Takes the code for the narrowest width that holds the chunk. (Sums that several widths shared would cost registers.)
template <bool kMxfp4, int kColumns, bool kUp, int N = GemmShape<kMxfp4, kColumns>::kNarrowest>
__device__ inline void gemm_tile_sums(const GemmArgs& a, const GemmShared& s, const GemmTile& tile, const GemmLane& me,
                                      int row, GemmRing& ring, const std::uint8_t* slab) {
  if constexpr (N < kColumns) {
    if (tile.columns > N) {
      gemm_tile_sums<kMxfp4, kColumns, kUp, N + GemmShape<kMxfp4, kColumns>::kStep>(a, s, tile, me, row, ring, slab);
      return;
    }
  }
  const bool valid = row + 16 * me.warp < a.out;
  const std::int64_t bias_row = static_cast<std::int64_t>(tile.expert) * a.out + row + 16 * me.warp + me.g;
  const float low_bias = valid ? a.bias[bias_row] : 0.f, high_bias = valid ? a.bias[bias_row + 8] : 0.f;
  float sums[N / 2] = {};  // left undefined, they would be kept from tile to tile
  if constexpr (kMxfp4) multiply_codes<N, kColumns>(sums, a, s, me, ring, slab);
  else multiply_dense<N, kColumns>(sums, a, s, me, ring);
  fence_sums(sums);
  if constexpr (kUp) write_activations<kMxfp4, N>(sums, a, tile, me, row, low_bias, high_bias);
  else write_results<GemmOut<kColumns>, N>(sums, a, tile, me, row, low_bias, high_bias);
}

template <bool kMxfp4, int kColumns, bool kUp>
__device__ void gemm_multiply(const GemmArgs& a, const GemmShared& s, int row_pairs, int rank) {
  using Shape = GemmShape<kMxfp4, kColumns>;
  const int thread = threadIdx.x - 128, lane = thread % kWarp;
  const GemmLane me{thread / 128, thread / kWarp % 4, lane, lane / 4, lane % 4};
  const int tiles = s.chunks[a.routing.experts] * row_pairs, clusters = gridDim.x / 2;
  GemmRing ring{0, a.stages, 0};
  int slab = 0;
  std::uint32_t slab_phase = 0;
  for (int index = blockIdx.x / 2; index < tiles; index += clusters) {
    const GemmTile tile = gemm_tile<Shape>(s, a, index, row_pairs, rank);
    const int row = tile.first_row + me.group * 64;
    const bool slab_used = kMxfp4 && tile.first_row < a.out;
    if (slab_used) barrier_wait(s.scales_full + 8 * slab, slab_phase);
    if (row >= a.out) {
      for (int step = 0; step < a.steps; ++step) {
        barrier_wait(s.full + 8 * ring.stage, ring.phase);
        me.release(s, ring.stage);
        ring.advance();
      }
    } else {
      gemm_tile_sums<kMxfp4, kColumns, kUp>(a, s, tile, me, row, ring, s.slabs + slab * s.slab_bytes);
    }
    if (slab_used) {
      __syncwarp();
      if (lane == 0) barrier_arrive(s.scales_empty + 8 * slab);
      if (++slab == 2) {
        slab = 0;
        slab_phase ^= 1;
      }
    }
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

// Older architectures know no clusters; the kernel is empty there.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define GOV_PAIRS_OF_BLOCKS __cluster_dims__(2, 1, 1)
#else
#define GOV_PAIRS_OF_BLOCKS
#endif

// Grid: an even number of blocks, at most kBlocks a multiprocessor. `weights`: boxes of 64 (bytes of codes or elements)
// x kRows output features x 1 expert; `rows`: boxes of 64 elements x kBoxRows slots, swizzled by 128.
template <bool kMxfp4, int kColumns, bool kUp>
__global__ void GOV_PAIRS_OF_BLOCKS __launch_bounds__(GemmShape<kMxfp4, kColumns>::kThreads,
                                                      GemmShape<kMxfp4, kColumns>::kBlocks)
    expert_gemm(const __grid_constant__ CUtensorMap weights, const __grid_constant__ CUtensorMap rows,
                const __grid_constant__ GemmArgs a) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Shape = GemmShape<kMxfp4, kColumns>;
  extern __shared__ std::uint8_t gemm_memory[];
  const GemmShared s = gemm_shared<Shape>(gemm_memory, a);
  const int rank = static_cast<int>(hopper::cluster_rank());
  const int row_pairs = (a.out + 2 * Shape::kRows - 1) / (2 * Shape::kRows);
  if (threadIdx.x == 0) {
    for (int i = 0; i < a.stages; ++i) {
      barrier_init(s.full + 8 * i, 1);
      barrier_init(s.empty + 8 * i, 2 * Shape::kMultiplierWarps);
    }
    for (int i = 0; i < 2; ++i) {
      barrier_init(s.scales_full + 8 * i, 1);
      barrier_init(s.scales_empty + 8 * i, Shape::kMultiplierWarps);
    }
    barrier_init_fence();
    hopper::map_prefetch(&weights);
    hopper::map_prefetch(&rows);
  }
  // The tables were complete before the up projection's kernel, on which the down projection's depends, passed its
  // wait.
  if constexpr (kUp) {
    grid_dependency_wait();
    grid_dependency_launch();
  }
  for (int i = threadIdx.x; i <= a.routing.experts; i += blockDim.x) {
    s.offsets[i] = a.routing.offsets[i];
    s.chunks[i] = a.routing.chunks[i];
  }
  __syncthreads();
  hopper::cluster_sync();
  if (threadIdx.x < 128) {
    hopper::registers_release<Shape::kCopyRegisters>();
    if (threadIdx.x == 0) gemm_copy<kMxfp4, kColumns, kUp>(&weights, &rows, a, s, row_pairs, rank);
    __syncwarp();
  } else {
    hopper::registers_take<Shape::kMultiplyRegisters>();
    gemm_multiply<kMxfp4, kColumns, kUp>(a, s, row_pairs, rank);
  }
  hopper::cluster_sync();  // the other block may still arrive at this one's barriers
#else
  __trap();  // dispatch sends no other GPU here
#endif
}

}  // namespace gov::ops::cuda
