#pragma once
// The steps of a mixture of experts in training between its products, row by row of the slots. A warp does a row, in
// pieces of kCount columns. All are bound by memory.

#include "ops/cuda/moe_routing.cuh"
#include "ops/cuda/swiglu.cuh"
#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda {

constexpr int kSlotWarps = 8, kSlotThreads = kSlotWarps * kWarp;

// The row of a warp, or -1 where there is none.
__device__ inline int slot_of_warp(const Routing& r) {
  const int slot = static_cast<int>(blockIdx.x) * kSlotWarps + static_cast<int>(threadIdx.x) / kWarp;
  return slot < r.offsets[r.experts] ? slot : -1;
}

// rows[slot] = x[token of slot], zeros where the slot is padding; slot_weights[slot] its routing weight, 0 for padding,
// if given.
template <int kCount, class X, class To>
__global__ void __launch_bounds__(kSlotThreads)
    gather_rows_by_slot(Routing r, const X* __restrict__ x, int per_token, int width, To* __restrict__ rows,
                        const float* __restrict__ weights, float* __restrict__ slot_weights) {
  grid_dependency_wait();
  grid_dependency_launch();
  const int slot = slot_of_warp(r), lane = static_cast<int>(threadIdx.x) % kWarp;
  if (slot < 0) return;
  const int pair = r.pair_of_slot[slot];
  if (slot_weights && lane == 0) slot_weights[slot] = pair < 0 ? 0.f : weights[pair];
  const X* const from = x + static_cast<std::int64_t>(pair < 0 ? 0 : pair / per_token) * width;
  To* const to = rows + static_cast<std::int64_t>(slot) * width;
#pragma unroll 4
  for (int i = lane * kCount; i < width; i += kWarp * kCount) {
    float v[kCount] = {};
    if (pair >= 0) load_row(from + i, v);
    store_row(to + i, v);
  }
}

// activations[slot] = swiglu(h[slot]); h rounded to H on its way to h_pairs[pair of slot], if given.
template <class H>
__global__ void __launch_bounds__(kSlotThreads)
    activate_slots(Routing r, const float* __restrict__ h, int inner, float alpha, float limit,
                   float* __restrict__ activations, H* __restrict__ h_pairs) {
  grid_dependency_wait();
  grid_dependency_launch();
  const int slot = slot_of_warp(r), lane = static_cast<int>(threadIdx.x) % kWarp;
  if (slot < 0) return;
  const float* const from = h + static_cast<std::int64_t>(slot) * 2 * inner;
  H* const to = h_pairs ? h_pairs + static_cast<std::int64_t>(r.pair_of_slot[slot]) * 2 * inner : nullptr;
  for (int i = lane; i < inner; i += kWarp) {
    const float gate = from[2 * i], up = from[2 * i + 1];
    activations[static_cast<std::int64_t>(slot) * inner + i] = swiglu_slopes(gate, up, alpha, limit).value;
    if (!to) continue;
    to[2 * i] = from_float<H>(gate);
    to[2 * i + 1] = from_float<H>(up);
  }
}

struct SlotSlopes {
  Routing routing;
  int inner, hidden;
  float alpha, limit;
  bool h_by_pair;
  bool h_aligned;             // to 16 bytes
  Bias bias;                  // [E, hidden], of down
  const float* slot_weights;  // [slots]
  float* dweights;            // [pairs]
};

// Of a slot with routing weight w, g = W^T dout and dout of its token:
//   dh = w g swiglu'(h);  activations = w swiglu(h), if given;  dweights = g . swiglu(h) + dout . bias.
// dh may be h where both are by slot. Padding slots get zeros.
template <int kCount, class H, class Row>
__global__ void __launch_bounds__(kSlotThreads)
    slope_slots(SlotSlopes a, const H* h, const Row* __restrict__ g, const Row* __restrict__ dout, Row* dh,
                Row* __restrict__ activations) {
  grid_dependency_wait();
  grid_dependency_launch();
  const Routing& r = a.routing;
  const int slot = slot_of_warp(r), lane = static_cast<int>(threadIdx.x) % kWarp;
  if (slot < 0) return;
  const int pair = r.pair_of_slot[slot];
  const std::int64_t row = slot, h_row = a.h_by_pair ? pair : slot;
  const float weight = a.slot_weights[slot];
  float sum = 0;
#pragma unroll 2
  for (int i = lane * kCount; i < a.inner; i += kWarp * kCount) {
    float pairs[2 * kCount] = {}, slopes[kCount] = {}, act[kCount];
    if (pair >= 0) {
      const H* const from = h + h_row * 2 * a.inner + 2 * i;
      if (a.h_aligned) {
        load_row(from, pairs);
      } else {
#pragma unroll
        for (int j = 0; j < 2 * kCount; ++j) pairs[j] = to_float(from[j]);
      }
      load_row(g + row * a.inner + i, slopes);
    }
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const SwigluSlopes s = swiglu_slopes(pairs[2 * j], pairs[2 * j + 1], a.alpha, a.limit);
      sum = fmaf(slopes[j], s.value, sum);
      pairs[2 * j] = weight * slopes[j] * s.gate;
      pairs[2 * j + 1] = weight * slopes[j] * s.up;
      act[j] = weight * s.value;
    }
    store_row(dh + row * 2 * a.inner + 2 * i, pairs);
    if (activations) store_row(activations + row * a.inner + i, act);
  }
  if (pair < 0) return;
  if (a.bias.data) {
    const int expert = expert_of_chunk(r.offsets, r.experts, slot);
    for (int i = lane * kCount; i < a.hidden; i += kWarp * kCount) {
      float d[kCount];
      load_row(dout + row * a.hidden + i, d);
#pragma unroll
      for (int j = 0; j < kCount; ++j)
        sum = fmaf(d[j], a.bias[static_cast<std::int64_t>(expert) * a.hidden + i + j], sum);
    }
  }
  sum = warp_sum(sum);
  if (lane == 0) a.dweights[pair] = sum;
}

// out[t] = sum over k ascending of rows[slot of (t, k)], or with kAdd out[t] += the same times weights[t, k].
template <int kCount, bool kAdd, class Row, class Out>
__global__ void __launch_bounds__(kSlotThreads)
    sum_slots(Routing r, const Row* __restrict__ rows, const float* __restrict__ weights, int per_token, int tokens,
              int width, Out* __restrict__ out) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t pieces = width / kCount;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kSlotThreads + threadIdx.x, token = i / pieces;
  if (token >= tokens) return;
  const std::int64_t column = i % pieces * kCount;
  constexpr int kAhead = 4;  // slots whose rows are read at once
  float sum[kCount] = {};
  for (int k0 = 0; k0 < per_token; k0 += kAhead) {
    int slot[kAhead];
    float v[kAhead][kCount];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) slot[k] = k0 + k < per_token ? r.slot_of_pair[token * per_token + k0 + k] : -1;
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (slot[k] >= 0) load_row(rows + static_cast<std::int64_t>(slot[k]) * width + column, v[k]);
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (slot[k] < 0) continue;
      const float weight = kAdd ? weights[token * per_token + k0 + k] : 1.f;
#pragma unroll
      for (int j = 0; j < kCount; ++j) sum[j] = fmaf(weight, v[k][j], sum[j]);
    }
  }
  Out* const to = out + token * width + column;
  if constexpr (kAdd) {
    float before[kCount];
    load_row(to, before);
#pragma unroll
    for (int j = 0; j < kCount; ++j) sum[j] += before[j];
  }
  store_row(to, sum);
}

}  // namespace gov::ops::cuda
