// Attention by tiles on the tensor cores of compute capability 8.0 and newer (mma.m16n8k16): BF16 queries, BF16 or F8
// keys and values, cached or packed, heads of up to 128 dimensions.
//
// Grid (tiles, kv heads); a block of 4 warps does 64 query vectors, 16 a warp, against tiles of 64 keys, which are
// copied to shared memory one ahead of the tile at hand. Scores stay in registers: as sums of Q K^T they have the
// layout of operand A of P V. The softmax runs along, in base 2. Aim: the tensor cores, of which this path's
// instructions reach about two thirds on Hopper.
#include "ops/cuda/attention_mma.cuh"

#include <cmath>

namespace gov::ops::cuda {
namespace {

constexpr int kTileThreads = 128;
constexpr int kVectors = 64;        // of a tile
constexpr int kKeys = 64;           // of a step
constexpr float kNoScore = -1e30f;  // finite, so that differences are

// The tile of a block.
struct Tile {
  int sequence, first_row, kv_head, count;
  std::int64_t begin;  // its first vector
  int position;        // of the sequence's first row
  KeyRange range;      // of all its vectors
};

template <int kDim>
struct TileShared {
  std::uint32_t q, k, v;
  unsigned char* raw;
  static constexpr int kTileBytes = kKeys * kDim * 2;
  static constexpr int kBytes = kVectors * kDim * 2 + 4 * kTileBytes;
};

// Keys and values from `key` on to buffer `buffer`, zeros behind the end.
template <class Cache, int kDim>
__device__ void copy_keys(const Attention& a, const Tile& tile, int key, int buffer, const TileShared<kDim>& shared) {
  constexpr int kPieces = kDim / 8, kRows = kTileThreads / kPieces;
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
#pragma unroll
  for (int i = 0; i < kKeys / kRows; ++i) {
    const int place = static_cast<int>(threadIdx.x) / kPieces + i * kRows;
    const std::int64_t row =
        key + place < tile.range.end ? key_row(a, tile.sequence, tile.first_row, key + place, tile.kv_head) : -1;
    const bool valid = row >= 0 && piece * 8 < a.dim;
    const std::int64_t at = valid ? row * a.dim + piece * 8 : 0;
    const std::uint32_t to = buffer * shared.kTileBytes + piece_offset<kDim>(place, piece);
    if constexpr (sizeof(Cache) == 2) {
      copy_async(shared.k + to, static_cast<const Cache*>(a.k) + at, valid);
      copy_async(shared.v + to, static_cast<const Cache*>(a.v) + at, valid);
    } else {
#pragma unroll
      for (int which = 0; which < 2; ++which) {
        const auto* from = static_cast<const std::uint8_t*>(which == 0 ? a.k : a.v) + at;
        const uint2 bytes = valid ? *reinterpret_cast<const uint2*>(from) : uint2{0, 0};
        const uint4 wide = {widen_f8(bytes.x & 0xffff), widen_f8(bytes.x >> 16), widen_f8(bytes.y & 0xffff),
                            widen_f8(bytes.y >> 16)};
        *reinterpret_cast<uint4*>(shared.raw + ((which == 0 ? shared.k : shared.v) - shared.q) + to) = wide;
      }
    }
  }
}

template <int kDim>
__device__ void copy_queries(const Attention& a, const Tile& tile, const TileShared<kDim>& shared) {
  constexpr int kPieces = kDim / 8, kRows = kTileThreads / kPieces;
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
#pragma unroll
  for (int i = 0; i < kVectors / kRows; ++i) {
    const int place = static_cast<int>(threadIdx.x) / kPieces + i * kRows;
    const bool valid = place < tile.count && piece * 8 < a.dim;
    const std::int64_t vector = tile.begin + place;
    const std::int64_t at =
        ((tile.first_row + vector / a.group) * a.heads + tile.kv_head * a.group + vector % a.group) * a.dim + piece * 8;
    copy_async(shared.q + piece_offset<kDim>(place, piece), static_cast<const bf16_t*>(a.q) + (valid ? at : 0), valid);
  }
}

// The two vectors g and g + 8 of a warp's sixteen that a lane (g, t) holds parts of.
template <int kDim>
struct WarpState {
  float largest[2] = {kNoScore, kNoScore};  // unscaled
  float sum[2] = {};                        // over the lane's own keys
  float sums[kDim / 8][4] = {};             // [8 dimensions each][vector g: 2 t, 2 t + 1; vector g + 8: the same]
  KeyRange range[2];
};

// One warp's 16 vectors against the 64 keys of a buffer, the first of which is `key`.
template <int kDim>
__device__ void warp_step(const TileShared<kDim>& shared, int buffer, int key, bool masked, float scale,
                          const std::uint32_t (&q)[kDim / 16][4], WarpState<kDim>& state) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, t = lane % 4;
  const std::uint32_t k = shared.k + buffer * shared.kTileBytes, v = shared.v + buffer * shared.kTileBytes;
  float s[kKeys / 8][4] = {};
#pragma unroll
  for (int i = 0; i < kDim / 16; ++i)
#pragma unroll
    for (int n = 0; n < kKeys / 16; ++n) {
      std::uint32_t b[4];
      load_matrices(k + piece_offset<kDim>(n * 16 + lane % 8 + lane / 16 * 8, 2 * i + lane / 8 % 2), b);
      mma_bf16(s[2 * n], q[i][0], q[i][1], q[i][2], q[i][3], b[0], b[1]);
      mma_bf16(s[2 * n + 1], q[i][0], q[i][1], q[i][2], q[i][3], b[2], b[3]);
    }
  if (masked) {
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int j = key + 8 * n + 2 * t + e % 2;
        if (j < state.range[e / 2].first || j >= state.range[e / 2].end) s[n][e] = -INFINITY;
      }
  }
  std::uint32_t p[kKeys / 16][4];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = state.largest[half];
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) largest = fmaxf(largest, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
    const float shrink = exp2_fast((state.largest[half] - largest) * scale), offset = largest * scale;
    state.largest[half] = largest;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
      const float x = exp2_fast(fmaf(s[n][2 * half], scale, -offset));
      const float y = exp2_fast(fmaf(s[n][2 * half + 1], scale, -offset));
      sum += x + y;
      p[n / 2][n % 2 * 2 + half] = pack_bf16(x, y);
    }
    state.sum[half] = state.sum[half] * shrink + sum;
#pragma unroll
    for (auto& d : state.sums) {
      d[2 * half] *= shrink;
      d[2 * half + 1] *= shrink;
    }
  }
#pragma unroll
  for (int n = 0; n < kKeys / 16; ++n)
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      std::uint32_t b[4];
      load_transposed(v + piece_offset<kDim>(n * 16 + lane % 16, 2 * d + lane / 16), b);
      mma_bf16(state.sums[2 * d], p[n][0], p[n][1], p[n][2], p[n][3], b[0], b[1]);
      mma_bf16(state.sums[2 * d + 1], p[n][0], p[n][1], p[n][2], p[n][3], b[2], b[3]);
    }
}

template <int kDim>
__device__ void write_vectors(const Attention& a, const Tile& tile, float scale, WarpState<kDim>& state) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = state.sum[half];
    total += __shfl_xor_sync(kAllLanes, total, 1);
    total += __shfl_xor_sync(kAllLanes, total, 2);
    const int place = warp * 16 + g + half * 8;
    if (place >= tile.count) continue;
    const std::int64_t vector = tile.begin + place;
    const std::int64_t head = tile.kv_head * a.group + vector % a.group;
    if (a.sinks) total += exp2f(load_weight(a.sinks, a.sink_type, head) * kLog2E - state.largest[half] * scale);
    const float inverse = state.range[half].first < state.range[half].end ? 1.f / total : 0.f;
    const std::int64_t at = ((tile.first_row + vector / a.group) * a.heads + head) * a.dim;
    if (a.lse && t == 0)
      a.lse[at / a.dim] = inverse == 0.f ? -INFINITY : (state.largest[half] * scale + log2f(total)) / kLog2E;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      const int column = 8 * d + 2 * t;
      if (column >= a.dim) continue;
      const float x = state.sums[d][2 * half] * inverse, y = state.sums[d][2 * half + 1] * inverse;
      if (a.out_type == DType::kBF16)
        *reinterpret_cast<std::uint32_t*>(static_cast<bf16_t*>(a.out) + at + column) = pack_bf16(x, y);
      else *reinterpret_cast<float2*>(static_cast<float*>(a.out) + at + column) = {x, y};
    }
  }
}

template <class Cache, int kDim>
__global__ void __launch_bounds__(kTileThreads)
    tiles_kernel(const __grid_constant__ Attention a, const __grid_constant__ TileMap map) {
  extern __shared__ uint4 raw[];
  TileShared<kDim> shared;
  shared.raw = reinterpret_cast<unsigned char*>(raw);
  shared.q = static_cast<std::uint32_t>(__cvta_generic_to_shared(raw));
  shared.k = shared.q + kVectors * kDim * 2;
  shared.v = shared.k + 2 * shared.kTileBytes;
  grid_dependency_wait();
  grid_dependency_launch();

  Tile tile;
  const std::int64_t index = static_cast<std::int64_t>(gridDim.x) - 1 - blockIdx.x;  // late rows see the most keys
  tile.sequence = sequence_of_tile(a, map, index);
  tile.first_row = a.cu_seqlens[tile.sequence];
  tile.kv_head = static_cast<int>(blockIdx.y);
  const int rows = a.cu_seqlens[tile.sequence + 1] - tile.first_row, keys = a.kv_lens[tile.sequence];
  tile.begin = (index - map.start(tile.first_row, tile.sequence)) * kVectors;
  const std::int64_t left = static_cast<std::int64_t>(rows) * a.group - tile.begin;
  if (left <= 0) return;
  tile.count = static_cast<int>(min(left, static_cast<std::int64_t>(kVectors)));
  tile.position = keys - rows;
  const auto range_of = [&](int i) {
    return visible_keys(a, tile.position + static_cast<int>((tile.begin + min(i, tile.count - 1)) / a.group), keys);
  };
  tile.range = {range_of(0).first, range_of(tile.count - 1).end};

  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const KeyRange low = range_of(warp * 16), high = range_of(warp * 16 + 15);
  WarpState<kDim> state;
  state.range[0] = range_of(warp * 16 + lane / 4);
  state.range[1] = range_of(warp * 16 + lane / 4 + 8);
  const float scale = a.scale * kLog2E;
  std::uint32_t q[kDim / 16][4];
  copy_queries(a, tile, shared);
  copy_keys<Cache>(a, tile, tile.range.first, 0, shared);
  copies_commit();
  int buffer = 0;
  for (int key = tile.range.first; key < tile.range.end; key += kKeys, buffer ^= 1) {
    copies_wait();
    __syncthreads();  // the copies of all threads are there, and the other buffer is free
    if (key == tile.range.first) {
#pragma unroll
      for (int i = 0; i < kDim / 16; ++i)
        load_matrices(shared.q + piece_offset<kDim>(warp * 16 + lane % 16, 2 * i + lane / 16), q[i]);
    }
    if (key + kKeys < tile.range.end) copy_keys<Cache>(a, tile, key + kKeys, buffer ^ 1, shared);
    copies_commit();
    if (warp * 16 < tile.count && key < high.end && key + kKeys > low.first) {
      const bool masked = key < high.first || key + kKeys > low.end;
      warp_step(shared, buffer, key, masked, scale, q, state);
    }
  }
  write_vectors(a, tile, scale, state);
}

}  // namespace

bool attention_tiles_supported(const Context&, const Attention& a) {
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  const bool bf16 = a.k_type == DType::kBF16 && a.v_type == DType::kBF16;
  return a.q_type == DType::kBF16 && (bf16 || a.k_type == DType::kF8E4M3) && a.dim % 8 == 0 && a.dim <= 128 &&
         a.scale > 0 && aligned(a.q) && aligned(a.k) && aligned(a.v) && aligned(a.out);
}

void attention_tiles(Context& ctx, const Attention& a) {
  const TileMap map{a.group, kVectors};
  const dim3 grid(static_cast<unsigned>(map.count(a)), static_cast<unsigned>(a.kv_heads));
  const auto run = [&](auto cache, auto dim) {
    constexpr int kDim = decltype(dim)::value;
    launch(ctx, "attention", tiles_kernel<decltype(cache), kDim>,
           {grid, dim3(kTileThreads), TileShared<kDim>::kBytes, true}, a, map);
  };
  const auto run_dim = [&](auto dim) {
    if (a.k_type == DType::kBF16) run(bf16_t{}, dim);
    else run(f8_t{}, dim);
  };
  if (a.dim <= 64) run_dim(std::integral_constant<int, 64>{});
  else run_dim(std::integral_constant<int, 128>{});
}

}  // namespace gov::ops::cuda
