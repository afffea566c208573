#pragma once
// The products of a mixture of experts in training for every type and size, in exact F32 (product.cuh). Slots are
// sorted by expert and not padded; all their rows are F32.

#include "ops/cuda/moe_general.cuh"
#include "ops/cuda/product.cuh"

namespace gov::ops::cuda {

// y [slots, out] = x [slots, in] W^T + b, or with kBack y [slots, in] = x [slots, out] W. Grid (columns, chunks of
// kProductTile slots).
template <class W, bool kBack>
struct ExpertRows {
  static constexpr Along kAlongA = Along::kDepth, kAlongB = kBack ? Along::kRows : Along::kDepth;
  Routing routing;
  W weights;
  Bias bias;
  int in, out;
  const float* x;
  float* y;

  __device__ bool tile(ProductTile& t) const {
    const int chunk = static_cast<int>(blockIdx.y);
    if (chunk >= routing.chunks[routing.experts]) return false;
    const int expert = expert_of_chunk(routing.chunks, routing.experts, chunk);
    const int begin = routing.offsets[expert], rows = routing.offsets[expert + 1] - begin;
    const int first = routing.chunks[expert], chunks = routing.chunks[expert + 1] - first;
    const int per = rows_per_chunk(rows, chunks);
    t.group = expert;
    t.first_m = begin + (chunk - first) * per;
    t.end_m = min(static_cast<int>(t.first_m) + per, begin + rows);
    t.first_n = static_cast<std::int64_t>(blockIdx.x) * kProductTile;
    t.end_n = kBack ? in : out;
    t.begin_k = 0;
    t.end_k = kBack ? out : in;
    return t.first_m < t.end_m;
  }
  __device__ float a(const ProductTile& t, std::int64_t m, std::int64_t k) const { return x[m * t.end_k + k]; }
  __device__ float b(const ProductTile& t, std::int64_t n, std::int64_t k) const {
    const std::int64_t o = kBack ? k : n, i = kBack ? n : k;
    return weights.at(t.group * out + o, static_cast<int>(i), in);
  }
  __device__ void store(const ProductTile& t, std::int64_t m, std::int64_t n, float sum) const {
    y[m * t.end_n + n] = kBack ? sum : sum + bias[t.group * out + n];
  }
};

// dW [E, out, in] += or = sum over an expert's slots of dout^T x. Grid (in, out, experts).
struct ExpertWeights {
  static constexpr Along kAlongA = Along::kRows, kAlongB = Along::kRows;
  Routing routing;
  int in, out;
  const float *dout, *x;
  float* dweight;
  bool accumulate;

  __device__ bool tile(ProductTile& t) const {
    t.group = blockIdx.z;
    t.first_m = static_cast<std::int64_t>(blockIdx.y) * kProductTile;
    t.end_m = out;
    t.first_n = static_cast<std::int64_t>(blockIdx.x) * kProductTile;
    t.end_n = in;
    t.begin_k = routing.offsets[t.group];
    t.end_k = routing.offsets[t.group + 1];
    return t.begin_k < t.end_k || !accumulate;
  }
  __device__ float a(const ProductTile&, std::int64_t m, std::int64_t k) const { return dout[k * out + m]; }
  __device__ float b(const ProductTile&, std::int64_t n, std::int64_t k) const { return x[k * in + n]; }
  __device__ void store(const ProductTile& t, std::int64_t m, std::int64_t n, float sum) const {
    float* const to = dweight + (t.group * out + m) * in + n;
    *to = accumulate ? *to + sum : sum;
  }
};

}  // namespace gov::ops::cuda
