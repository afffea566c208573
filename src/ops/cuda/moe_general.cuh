#pragma once
// Expert projections in exact F32 arithmetic, for every type and size: activations and weights are widened to F32, sums
// are FMA chains in ascending k, the same for every tile shape.
//
// Tile: 128 output features x kRows slots of one expert, 32 input features at a time through shared memory; a thread
// owns 8 x 4 (64 rows) or 4 x 1 (8 rows) sums. Limit: FP32 FMA rate, of which the 64-row tile reaches about half.

#include "ops/cuda/moe_routing.cuh"

namespace gov::ops::cuda {

constexpr int kGeneralOut = 128, kGeneralDepth = 32, kGeneralThreads = 256;

template <class T>
struct DenseExperts {
  const T* weight;  // [E, out, in]
  // Adds elements [k, k + 32) of weight row `row` as column `column` of the tile; warp-wide rows are read at once.
  static constexpr bool kBlocks = false;
  __device__ float at(std::int64_t row, int k, int in) const { return to_float(weight[row * in + k]); }
};

struct Mxfp4Experts {
  const std::uint8_t* blocks;  // [E, out, in / 32, 16]
  const std::uint8_t* scales;  // [E, out, in / 32]
  static constexpr bool kBlocks = true;
  __device__ float at(std::int64_t row, int k, int in) const {
    const std::int64_t block = row * (in / 32) + k / 32;
    const unsigned byte = blocks[block * 16 + k % 32 / 2], code = k % 2 ? byte >> 4 : byte & 15;
    const unsigned scale = scales[block];
    // The code's three low bits are exponent and mantissa of a tiny number; the first factor makes it 0, 0.5, 1, ... 6.
    const float magnitude = __uint_as_float((code & 7) << 22) * 0x1p126f;
    const float factor = scale == 0     ? 0x1p-127f
                         : scale == 255 ? __uint_as_float(0x7fc00000u)
                                        : __uint_as_float(scale << 23);
    return (code & 8 ? -magnitude : magnitude) * factor;
  }
};

struct GeneralArgs {
  Routing routing;
  int per_token, in, out, row_tiles;  // row_tiles = ceil(out / kGeneralOut)
  Bias bias;
  float alpha, limit;
  float* y;  // up: activations [slots, out / 2]; down: [slots, out]
};

// (min(u) + 1) * g * sigmoid(alpha g), exact version.
__device__ inline float swiglu_exact(float gate, float up, float alpha, float limit) {
  gate = fminf(gate, limit);
  up = fminf(fmaxf(up, -limit), limit);
  return (up + 1.f) * (gate / (1.f + expf(-alpha * gate)));
}

// Grid: an upper bound of chunks x row_tiles. kUp reads x rows by token and writes swiglu(h); else rows by slot.
template <class X, class W, bool kUp, int kRows>
__global__ void __launch_bounds__(kGeneralThreads) general_experts(const X* x, W weights, GeneralArgs a) {
  constexpr int kPerOut = kRows == 64 ? 8 : 4, kPerRow = kRows == 64 ? 4 : 1;
  constexpr int kOutGroups = kGeneralOut / kPerOut;
  static_assert(kOutGroups * (kRows / kPerRow) == kGeneralThreads);
  __shared__ __align__(16) float w_tile[kGeneralDepth][kGeneralOut + 4];
  __shared__ __align__(16) float x_tile[kGeneralDepth][kRows + 4];
  __shared__ std::int64_t x_row[kRows];
  grid_dependency_wait();
  grid_dependency_launch();
  const Routing& r = a.routing;
  const int chunk = blockIdx.x / a.row_tiles, first_out = blockIdx.x % a.row_tiles * kGeneralOut;
  if (chunk >= r.chunks[r.experts]) return;
  const int expert = expert_of_chunk(r.chunks, r.experts, chunk);
  const int begin = r.offsets[expert], rows = r.offsets[expert + 1] - begin;
  const int chunks = r.chunks[expert + 1] - r.chunks[expert], per_chunk = rows_per_chunk(rows, chunks);
  const int first = (chunk - r.chunks[expert]) * per_chunk, count = min(per_chunk, rows - first);
  const int slot = begin + first;
  for (int i = threadIdx.x; i < kRows; i += kGeneralThreads) {
    x_row[i] = i >= count ? -1 : kUp ? r.pair_of_slot[slot + i] / a.per_token : slot + i;
  }
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = kGeneralThreads / kWarp;
  const int group_out = threadIdx.x % kOutGroups * kPerOut, group_row = threadIdx.x / kOutGroups * kPerRow;
  const std::int64_t expert_row = static_cast<std::int64_t>(expert) * a.out;
  float sum[kPerOut][kPerRow] = {};
  for (int k0 = 0; k0 < a.in; k0 += kGeneralDepth) {
    __syncthreads();
    const int k = k0 + lane;
#pragma unroll 4
    for (int o = warp; o < kGeneralOut; o += warps) {
      const int row = first_out + o;
      w_tile[lane][o] = row < a.out && k < a.in ? weights.at(expert_row + row, k, a.in) : 0.f;
    }
    for (int i = warp; i < kRows; i += warps) {
      const std::int64_t row = x_row[i];
      x_tile[lane][i] = row >= 0 && k < a.in ? to_float(x[row * a.in + k]) : 0.f;
    }
    __syncthreads();
#pragma unroll 8
    for (int d = 0; d < kGeneralDepth; ++d) {
      float w[kPerOut], v[kPerRow];
#pragma unroll
      for (int o = 0; o < kPerOut; o += 4) {
        const float4 four = *reinterpret_cast<const float4*>(&w_tile[d][group_out + o]);
        w[o] = four.x, w[o + 1] = four.y, w[o + 2] = four.z, w[o + 3] = four.w;
      }
#pragma unroll
      for (int i = 0; i < kPerRow; ++i) v[i] = x_tile[d][group_row + i];
#pragma unroll
      for (int o = 0; o < kPerOut; ++o)
#pragma unroll
        for (int i = 0; i < kPerRow; ++i) sum[o][i] = fmaf(w[o], v[i], sum[o][i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kPerRow; ++i) {
    if (group_row + i >= count) continue;
    const std::int64_t y_row = slot + group_row + i;
#pragma unroll
    for (int o = 0; o < kPerOut; o += 2) {
      const int row = first_out + group_out + o;
      if (row >= a.out) break;
      const float low = sum[o][i] + a.bias[expert_row + row];
      if constexpr (kUp) {
        const float high = sum[o + 1][i] + a.bias[expert_row + row + 1];
        a.y[y_row * (a.out / 2) + row / 2] = swiglu_exact(low, high, a.alpha, a.limit);
      } else {
        a.y[y_row * a.out + row] = low;
        if (row + 1 < a.out) a.y[y_row * a.out + row + 1] = sum[o + 1][i] + a.bias[expert_row + row + 1];
      }
    }
  }
}

}  // namespace gov::ops::cuda
