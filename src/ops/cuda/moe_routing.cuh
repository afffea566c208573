#pragma once
// Mixture of experts, the steps around the two projections: sorting the (token, k) pairs by expert, gathering
// activation rows in that order, and combining the experts' results per token.
//
// A pair's place in the sorted order is its slot: experts ascending, pairs ascending inside an expert. Pairs whose
// index is outside [0, E) have none. A chunk is a run of at most `chunk_rows` slots of one expert: what one tile
// multiplies.

#include "ops/cuda/support.cuh"

namespace gov::ops::cuda {

// On the device; see sort_pairs().
struct Routing {
  int* offsets;        // [E + 1]: first slot of each expert
  int* chunks;         // [E + 1]: first chunk of each expert
  int* slot_of_pair;   // [T * K], -1 = skipped
  int* pair_of_slot;   // [T * K]
  int experts, pairs;  // pairs = T * K
  int* counts;         // [E]: rows of each expert, or null
};

// Chunks of one expert have equally many rows but the last, in multiples of 8. The last has at least one, whatever the
// number of rows: with chunks = ceil(rows / most), most a multiple of 8, the others' rounding up takes less than 8
// (chunks - 1) rows, fewer than the last has while chunks < most / 8; and from there on rows / chunks > most - 8, so that
// each of the others has `most`.
__device__ inline int rows_per_chunk(int rows, int chunks) { return ((rows + chunks - 1) / chunks + 7) / 8 * 8; }

// The expert that owns chunk `chunk`: the last e with chunks[e] <= chunk.
__device__ inline int expert_of_chunk(const int* chunks, int experts, int chunk) {
  int low = 0, high = experts;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (chunks[middle] <= chunk) low = middle;
    else high = middle;
  }
  return low;
}

// With kUnit > 1 each expert's slots are padded to a multiple: the offsets are multiples, and the pair of a padding
// slot is -1.
//
// One block. Each warp counts, later places, one contiguous run of pairs in its own histogram, so the order is that of
// the pairs whatever the number of warps. Shared memory: (warps + 1) * experts ints. Bound by latency: 2 to 8 us.
template <int kUnit>
__global__ void __launch_bounds__(1024) sort_pairs(const std::int32_t* indices, int chunk_rows, Routing r) {
  extern __shared__ int histograms[];
  const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  int *own = histograms + warp * r.experts, *totals = histograms + warps * r.experts;
  grid_dependency_wait();
  grid_dependency_launch();
  for (int i = threadIdx.x; i < warps * r.experts; i += blockDim.x) histograms[i] = 0;
  __syncthreads();
  const int run = (r.pairs + warps * kWarp - 1) / (warps * kWarp) * kWarp, begin = warp * run;
  const int end = min(begin + run, r.pairs);
  // Calls body(pair, expert or -1, lanes of the same expert) for the run, with several reads under way at once.
  const auto for_run = [&](auto&& body) {
    constexpr int kAhead = 8;
    for (int first = begin; first < end; first += kAhead * kWarp) {
      int expert[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        const int i = first + j * kWarp + lane;
        expert[j] = i < end ? indices[i] : -1;
      }
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (first + j * kWarp >= end) break;
        const int e = expert[j] >= 0 && expert[j] < r.experts ? expert[j] : -1;
        body(first + j * kWarp + lane, e, __match_any_sync(kAllLanes, e));
      }
    }
  };
  for_run([&](int, int e, unsigned same) {
    if (e >= 0 && lane == __ffs(same) - 1) own[e] += __popc(same);
    __syncwarp();
  });
  __syncthreads();
  for (int e = threadIdx.x; e < r.experts; e += blockDim.x) {
    int sum = 0;
    for (int w = 0; w < warps; ++w) {
      const int count = histograms[w * r.experts + e];
      histograms[w * r.experts + e] = sum;
      sum += count;
    }
    totals[e] = sum;
  }
  __syncthreads();
  if (warp == 0) {
    int slots = 0, chunks = 0;
    for (int first = 0; first < r.experts; first += kWarp) {
      const int e = first + lane, count = e < r.experts ? totals[e] : 0, parts = (count + chunk_rows - 1) / chunk_rows;
      const int room = (count + kUnit - 1) / kUnit * kUnit;
      int slots_to = room, chunks_to = parts;
      for (int offset = 1; offset < kWarp; offset *= 2) {
        const int s = __shfl_up_sync(kAllLanes, slots_to, offset), c = __shfl_up_sync(kAllLanes, chunks_to, offset);
        if (lane >= offset) {
          slots_to += s;
          chunks_to += c;
        }
      }
      if (e < r.experts) {
        totals[e] = slots + slots_to - room;
        r.offsets[e] = totals[e];
        if (r.counts) r.counts[e] = count;
        for (int i = count; i < room; ++i) r.pair_of_slot[totals[e] + i] = -1;
        r.chunks[e] = chunks + chunks_to - parts;
      }
      slots += __shfl_sync(kAllLanes, slots_to, kWarp - 1);
      chunks += __shfl_sync(kAllLanes, chunks_to, kWarp - 1);
    }
    if (lane == 0) {
      r.offsets[r.experts] = slots;
      r.chunks[r.experts] = chunks;
    }
  }
  __syncthreads();
  for_run([&](int i, int e, unsigned same) {
    int slot = -1;
    if (e >= 0) slot = totals[e] + own[e] + __popc(same & ((1u << lane) - 1));
    __syncwarp();
    if (e >= 0 && lane == __ffs(same) - 1) own[e] += __popc(same);
    __syncwarp();
    if (i < end) r.slot_of_pair[i] = slot;
    if (slot >= 0) r.pair_of_slot[slot] = i;
  });
}

// Where element k of an activation row lies in the order of the MXFP4 kernels (moe_gemm.cuh): inside each 128 elements,
// position 16 s + 8 h + 2 t + i holds element e = 8 (s / 2) + 2 (s % 2) + h + 4 i of the t-th block of 32.
__device__ inline int permuted_source(int position) {
  const int s = position / 16 % 8, h = position / 8 % 2, t = position / 2 % 4, i = position % 2;
  return position / 128 * 128 + 32 * t + 8 * (s / 2) + 2 * (s % 2) + h + 4 * i;
}

// rows[slot] = x[token of slot], padded with zeros from `hidden` to `pitch` elements, permuted for MXFP4 weights.
// Grid: (T, parts); a block reads its token's row once and writes it to every parts-th of the token's slots. x [T,
// hidden], 16-byte aligned rows; rows [T * K, pitch]. Bound by memory: (1 + K) rows a token.
template <bool kPermuted>
__global__ void __launch_bounds__(128)
    gather_slots(const bf16_t* x, int per_token, int hidden, int pitch, Routing r, bf16_t* rows) {
  extern __shared__ uint4 row_words[];
  grid_dependency_wait();
  grid_dependency_launch();
  const uint4* from = reinterpret_cast<const uint4*>(x + static_cast<std::int64_t>(blockIdx.x) * hidden);
  const uint4 zero{0, 0, 0, 0};
  if constexpr (kPermuted) {
    for (int i = threadIdx.x; i < pitch / 8; i += blockDim.x) row_words[i] = i < hidden / 8 ? from[i] : zero;
    __syncthreads();
  }
  for (int i = threadIdx.x; i < pitch / 8; i += blockDim.x) {
    uint4 words = zero;
    if constexpr (kPermuted) {
      const auto* row = reinterpret_cast<const std::uint16_t*>(row_words);
      std::uint32_t word[4];
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        const int k = permuted_source(8 * i + 2 * t);
        word[t] = row[k] | static_cast<std::uint32_t>(row[k + 4]) << 16;
      }
      words = {word[0], word[1], word[2], word[3]};
    } else if (i < hidden / 8) {
      words = from[i];
    }
    for (int k = blockIdx.y; k < per_token; k += gridDim.y) {
      const int slot = r.slot_of_pair[static_cast<std::int64_t>(blockIdx.x) * per_token + k];
      if (slot >= 0) reinterpret_cast<uint4*>(rows + static_cast<std::int64_t>(slot) * pitch)[i] = words;
    }
  }
}

// out[t] += sum over k ascending of weights[t, k] * y[slot of (t, k)].  Grid: (T, columns / kCombineColumns). A thread
// owns four columns: neighbours (kVector: hidden a multiple of 4, out 16-byte aligned) or a block's width apart.
// Bound by memory.
constexpr int kCombineThreads = 128, kCombineColumns = kCombineThreads * 4;
template <class Y, bool kVector>
__global__ void __launch_bounds__(kCombineThreads)
    combine_slots(const Y* y, const float* weights, int per_token, int hidden, Routing r, float* out) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t token = blockIdx.x;
  const int first = blockIdx.y * kCombineColumns + threadIdx.x * (kVector ? 4 : 1);
  if (first >= hidden) return;
  float sum[4] = {};
  struct alignas(4 * sizeof(Y)) Four {
    Y value[4];
  };
  constexpr int kAhead = 4;  // slots whose rows are read at once
  for (int k0 = 0; k0 < per_token; k0 += kAhead) {
    int slot[kAhead];
    Four four[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) slot[k] = k0 + k < per_token ? r.slot_of_pair[token * per_token + k0 + k] : -1;
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (slot[k] < 0) continue;
      const Y* row = y + static_cast<std::int64_t>(slot[k]) * hidden + first;
      if constexpr (kVector) {
        four[k] = *reinterpret_cast<const Four*>(row);
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          four[k].value[i] = row[first + i * kCombineThreads < hidden ? i * kCombineThreads : 0];
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (slot[k] < 0) continue;
      const float weight = weights[token * per_token + k0 + k];
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i] = fmaf(weight, to_float(four[k].value[i]), sum[i]);
    }
  }
  float* to = out + token * hidden + first;
  if constexpr (kVector) {
    float4 four = *reinterpret_cast<float4*>(to);
    four.x += sum[0], four.y += sum[1], four.z += sum[2], four.w += sum[3];
    *reinterpret_cast<float4*>(to) = four;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (first + i * kCombineThreads < hidden) to[i * kCombineThreads] += sum[i];
    }
  }
}

// A bias of any weight type; `data` may be null.
struct Bias {
  const void* data;
  DType dtype;
  __device__ float operator[](std::int64_t i) const {
    if (data == nullptr) return 0.f;
    if (dtype == DType::kBF16) return to_float(static_cast<const bf16_t*>(data)[i]);
    if (dtype == DType::kF16) return to_float(static_cast<const f16_t*>(data)[i]);
    return static_cast<const float*>(data)[i];
  }
};

}  // namespace gov::ops::cuda
