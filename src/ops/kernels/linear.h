#pragma once
// Dot products over the input axis, for weights in F32, BF16, F16 and MXFP4.
//
// A tile of R weight rows by T tokens keeps R x T vectors of partial sums in registers. Every (row, token) pair has one
// vector of its own, filled in the order of the input axis and reduced at the end: that order is the same in every tile
// shape.

#include "ops/kernels.h"

namespace gov::ops::GOV_ISA {
namespace {

// With few tokens a tile is over before the processor's own prefetcher has recognised its R streams: fetch the next
// tile's rows, at the same place, meanwhile. Prefetching past the end of the weights is harmless.
template <int T>
inline void prefetch_next(const void* p) {
  if constexpr (T <= 4) __builtin_prefetch(p, 0, 2);
}

template <class W, int R, int T>
void dense_tile(const W* weight, const float* const* x, std::int64_t in, float* sums) {
  Vec acc[R][T];
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) acc[r][t] = zero();
  std::int64_t i = 0;
  for (; i + kLanes <= in; i += kLanes) {
    Vec w[R];
    for (int r = 0; r < R; ++r) {
      w[r] = load(weight + r * in + i);
      prefetch_next<T>(weight + (r + R) * in + i);
    }
    for (int t = 0; t < T; ++t) {
      const Vec v = load(x[t] + i);
      for (int r = 0; r < R; ++r) acc[r][t] = fma(w[r], v, acc[r][t]);
    }
  }
  if (const int rest = static_cast<int>(in - i); rest > 0) {
    for (int r = 0; r < R; ++r) {
      const Vec w = load_partial(weight + r * in + i, rest);
      for (int t = 0; t < T; ++t) acc[r][t] = fma(w, load_partial(x[t] + i, rest), acc[r][t]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) sums[r * T + t] = reduce_add(acc[r][t]);
}

template <int R, int T>
void mxfp4_tile(const std::uint8_t* blocks, const std::uint8_t* scales, const float* const* x, std::int64_t in,
                float* sums) {
  Vec acc[R][T];
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) acc[r][t] = zero();
  const std::int64_t count = in / 32;
  for (std::int64_t b = 0; b < count; ++b) {
    Mxfp4Table table[R];
    for (int r = 0; r < R; ++r) {
      table[r] = mxfp4_table(scales[r * count + b]);
      prefetch_next<T>(blocks + ((r + R) * count + b) * 16);
    }
    for (int part = 0; part < 16; part += kLanes) {  // kLanes bytes = 2 x kLanes weights at a time
      Vec even[R], odd[R];
      for (int r = 0; r < R; ++r) mxfp4_decode(blocks + (r * count + b) * 16 + part, table[r], even[r], odd[r]);
      for (int t = 0; t < T; ++t) {
        const float* packed = x[t] + b * 32 + 2 * part;
        const Vec a = load(packed), c = load(packed + kLanes);
        for (int r = 0; r < R; ++r) acc[r][t] = fma(odd[r], c, fma(even[r], a, acc[r][t]));
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) sums[r * T + t] = reduce_add(acc[r][t]);
}

// The two weight formats behind one shape: tile<R, T>(first row, x rows, sums).
template <class W>
struct DenseWeight {
  static constexpr int kRows = kGemmRows, kTokens = kGemmTokens;
  const LinearArgs& args;
  template <int R, int T>
  void tile(std::int64_t row, const float* const* x, float* sums) const {
    dense_tile<W, R, T>(static_cast<const W*>(args.weight) + row * args.in, x, args.in, sums);
  }
};

struct Mxfp4Weight {
  static constexpr int kRows = kMxfp4Rows, kTokens = kMxfp4Tokens;
  const LinearArgs& args;
  template <int R, int T>
  void tile(std::int64_t row, const float* const* x, float* sums) const {
    const std::int64_t blocks = row * (args.in / 32);
    mxfp4_tile<R, T>(static_cast<const std::uint8_t*>(args.weight) + blocks * 16, args.scales + blocks, x, args.in,
                     sums);
  }
};

template <int R, int T, class Weight>
void linear_tile(const Weight& weight, std::int64_t row, std::int64_t token) {
  const LinearArgs& a = weight.args;
  const float* x[T];
  for (int t = 0; t < T; ++t) x[t] = a.x + (a.x_rows ? a.x_rows[token + t] : token + t) * a.x_stride;
  float sums[R * T];
  weight.template tile<R, T>(row, x, sums);
  for (int t = 0; t < T; ++t) {
    float* out = a.out + (token + t) * a.out_stride + row;
    for (int r = 0; r < R; ++r) {
      const float sum = a.bias ? sums[r * T + t] + a.bias[row + r] : sums[r * T + t];
      out[r] = a.accumulate ? out[r] + sum : sum;
    }
  }
}

// All tokens against R rows, in tiles of at most T tokens.
template <int R, int T, class Weight>
void linear_rows(const Weight& weight, std::int64_t row, std::int64_t token) {
  const std::int64_t end = weight.args.tokens;
  for (; token + T <= end; token += T) linear_tile<R, T>(weight, row, token);
  if constexpr (T > 1) {
    if (token < end) linear_rows<R, T - 1>(weight, row, token);
  }
}

template <class Weight>
void linear_all(const LinearArgs& args) {
  const Weight weight{args};
  std::int64_t row = 0;
  for (; row + Weight::kRows <= args.rows; row += Weight::kRows) {
    linear_rows<Weight::kRows, Weight::kTokens>(weight, row, 0);
  }
  for (; row < args.rows; ++row) linear_rows<1, Weight::kTokens>(weight, row, 0);
}

void linear_f32(const LinearArgs& args) { linear_all<DenseWeight<float>>(args); }
void linear_bf16(const LinearArgs& args) { linear_all<DenseWeight<Bf16>>(args); }
void linear_f16(const LinearArgs& args) { linear_all<DenseWeight<F16>>(args); }
void linear_mxfp4(const LinearArgs& args) { linear_all<Mxfp4Weight>(args); }

void pack(const float* x, std::int64_t n, float* out) {
  for (std::int64_t i = 0; i < n; i += 2 * kLanes) {
    Vec even, odd;
    load_deinterleaved(x + i, even, odd);
    store(out + i, even);
    store(out + i + kLanes, odd);
  }
}

}  // namespace
}  // namespace gov::ops::GOV_ISA
