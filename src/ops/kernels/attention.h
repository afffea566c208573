#pragma once
// Attention of one tile of query vectors against the keys of one kv head, with an online softmax.
//
// Keys come in blocks of kAttentionKeys that start at multiples of it in the sequence, whatever the window and the
// tile. A vector whose range misses a block leaves it out, so decode, prefill and chunked prefill add the same numbers
// in the same order.

#include "ops/kernels.h"
#include "ops/kernels/math.h"

namespace gov::ops::GOV_ISA {
namespace {

struct KeyBlock {
  std::int64_t start;  // sequence position of key 0
  int first, last;     // keys any vector of the tile can see, within the block
};

// Pointers to the keys' rows of one block. A group of 8 never crosses a cache block, whose size is a multiple of 8.
template <class C>
void key_rows(const AttentionTile& a, const void* base, const KeyBlock& block, const C** rows) {
  for (int group = block.first & ~7; group < block.last; group += 8) {
    const std::int64_t key = block.start + group;
    const C* row = static_cast<const C*>(base);
    if (a.block_table) {
      row += a.block_table[key / a.block_size] * a.block_stride + (key % a.block_size) * a.key_stride;
    } else {
      row += key * a.key_stride;
    }
    for (int i = 0; i < 8; ++i) rows[group + i] = row + i * a.key_stride;
  }
}

// Always inlined: GCC takes a function that only prefetches for one without effect and drops its calls.
template <class C>
[[gnu::always_inline]] inline void prefetch_block(const AttentionTile& a, const KeyBlock& block) {
  const C* rows[kAttentionKeys];
  const std::int64_t row_bytes = a.dim * static_cast<std::int64_t>(sizeof(C));
  for (const void* base : {a.k, a.v}) {
    key_rows<C>(a, base, block, rows);
    for (int j = block.first; j < block.last; ++j)
      for (std::int64_t byte = 0; byte < row_bytes; byte += 64) {
        __builtin_prefetch(reinterpret_cast<const char*>(rows[j]) + byte, 0, 2);
      }
  }
}

template <class C>
inline Vec load_dims(const C* row, int d, int dim) {
  if (d + kLanes <= dim) return load(row + d);
  return d < dim ? load_partial(row + d, dim - d) : zero();
}

// Transposes kLanes rows from dim d on: kLanes dims of F32, or twice as many of BF16, which travel as pairs and are
// widened last.
inline void transpose_whole(const float* const* rows, int d, float* to) {
  Vec square[kLanes];
  for (int i = 0; i < kLanes; ++i) square[i] = load(rows[i] + d);
  transpose(square);
  for (int i = 0; i < kLanes; ++i) store(to + i * kAttentionKeys, square[i]);
}
inline void transpose_whole(const Bf16* const* rows, int d, float* to) {
  Vec square[kLanes];
  for (int i = 0; i < kLanes; ++i) square[i] = load_pairs(rows[i] + d);
  transpose(square);
  for (int i = 0; i < kLanes; ++i) {
    store(to + 2 * i * kAttentionKeys, first_of_pairs(square[i]));
    store(to + (2 * i + 1) * kAttentionKeys, second_of_pairs(square[i]));
  }
}

// kLanes dims at the borders: rows outside [first, last) and dims past the end are zero, their memory may not exist.
template <class C>
void transpose_border(const C* const* rows, int first, int last, int d, int dim, float* to) {
  Vec square[kLanes];
  for (int i = 0; i < kLanes; ++i) square[i] = i >= first && i < last ? load_dims(rows[i], d, dim) : zero();
  transpose(square);
  for (int i = 0; i < kLanes; ++i) store(to + i * kAttentionKeys, square[i]);
}

// Keys as [D', keys], values as [keys, D'], both in F32.
template <class C>
void gather_block(const AttentionTile& a, const KeyBlock& block, int padded) {
  // Elements of the cache in one register.  NOLINTNEXTLINE(bugprone-sizeof-expression): it is a ratio of types
  constexpr int kWhole = kLanes * static_cast<int>(sizeof(float) / sizeof(C));
  const C* rows[kAttentionKeys];
  key_rows<C>(a, a.k, block, rows);
  for (int j = 0; j < kAttentionKeys; j += kLanes) {
    const bool whole = j >= block.first && j + kLanes <= block.last;
    int d = 0;
    for (; whole && d + kWhole <= a.dim; d += kWhole)
      transpose_whole(rows + j, d, a.k_scratch + d * kAttentionKeys + j);
    for (; d < padded; d += kLanes) {
      transpose_border(rows + j, block.first - j, block.last - j, d, a.dim, a.k_scratch + d * kAttentionKeys + j);
    }
  }
  key_rows<C>(a, a.v, block, rows);
  for (int j = block.first; j < block.last; ++j)
    for (int d = 0; d < padded; d += kLanes) store(a.v_scratch + j * padded + d, load_dims(rows[j], d, a.dim));
}

template <int M>
void score_tile(const AttentionTile& a, int vector) {
  const Vec scale = splat(a.scale);
  for (int j = 0; j < kAttentionKeys; j += kScoreVecs * kLanes) {
    Vec acc[M][kScoreVecs];
    for (int m = 0; m < M; ++m)
      for (int n = 0; n < kScoreVecs; ++n) acc[m][n] = zero();
    for (int d = 0; d < a.dim; ++d) {
      Vec k[kScoreVecs];
      for (int n = 0; n < kScoreVecs; ++n) k[n] = load(a.k_scratch + d * kAttentionKeys + j + n * kLanes);
      for (int m = 0; m < M; ++m) {
        const Vec q = splat(a.q[vector + m][d]);
        for (int n = 0; n < kScoreVecs; ++n) acc[m][n] = fma(q, k[n], acc[m][n]);
      }
    }
    for (int m = 0; m < M; ++m)
      for (int n = 0; n < kScoreVecs; ++n) {
        store(a.scores + (vector + m) * kAttentionKeys + j + n * kLanes, mul(scale, acc[m][n]));
      }
  }
}

// Adds p[first..last) V to M accumulators, N vectors of dims from d on.
template <int M, int N>
void value_tile(const AttentionTile& a, int vector, int first, int last, int padded, int d) {
  Vec acc[M][N];
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) acc[m][n] = load(a.accumulators + (vector + m) * padded + d + n * kLanes);
  for (int j = first; j < last; ++j) {
    Vec v[N];
    for (int n = 0; n < N; ++n) v[n] = load(a.v_scratch + j * padded + d + n * kLanes);
    for (int m = 0; m < M; ++m) {
      const Vec p = splat(a.scores[(vector + m) * kAttentionKeys + j]);
      for (int n = 0; n < N; ++n) acc[m][n] = fma(p, v[n], acc[m][n]);
    }
  }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) store(a.accumulators + (vector + m) * padded + d + n * kLanes, acc[m][n]);
}

template <int M>
void add_values(const AttentionTile& a, int vector, int first, int last, int padded) {
  int d = 0;
  for (; d + kScoreVecs * kLanes <= padded; d += kScoreVecs * kLanes) {
    value_tile<M, kScoreVecs>(a, vector, first, last, padded, d);
  }
  for (; d < padded; d += kLanes) value_tile<M, 1>(a, vector, first, last, padded, d);
}

struct Softmax {
  float max;  // largest score so far, the sink included
  float sum;  // of exp(score - max)
};

// Turns the scores of keys [first, last) into exp(score - max), zero elsewhere; rescales the vector's sums to the new
// maximum.
void softmax_block(Softmax& state, float* scores, int first, int last, float* accumulator, int padded) {
  for (int j = 0; j < first; ++j) scores[j] = -__builtin_inff();
  for (int j = last; j < kAttentionKeys; ++j) scores[j] = -__builtin_inff();
  Vec largest = load(scores);
  for (int j = kLanes; j < kAttentionKeys; j += kLanes) largest = at_least(largest, load(scores + j));
  const float block_max = reduce_max(largest);
  if (block_max > state.max) {
    const Vec shrink = exp(splat(state.max - block_max));
    float factor[kLanes];
    store(factor, shrink);
    state.sum *= factor[0];
    for (int d = 0; d < padded; d += kLanes) store(accumulator + d, mul(load(accumulator + d), shrink));
    state.max = block_max;
  }
  const Vec max = splat(state.max);
  Vec sum = zero();
  for (int j = 0; j < kAttentionKeys; j += kLanes) {
    const Vec p = exp(sub(load(scores + j), max));
    store(scores + j, p);
    sum = add(sum, p);
  }
  state.sum += reduce_add(sum);
}

template <class C>
void attend_block(const AttentionTile& a, const KeyBlock& block, int padded, Softmax* state) {
  gather_block<C>(a, block, padded);
  int vector = 0;
  for (; vector + 4 <= a.count; vector += 4) score_tile<4>(a, vector);
  for (; vector < a.count; ++vector) score_tile<1>(a, vector);
  int first[kAttentionTile], last[kAttentionTile];
  for (int m = 0; m < a.count; ++m) {
    const std::int64_t begin = a.first[m] - block.start, end = a.last[m] - block.start;
    first[m] = begin > 0 ? static_cast<int>(begin < kAttentionKeys ? begin : kAttentionKeys) : 0;
    last[m] = end < kAttentionKeys ? static_cast<int>(end > 0 ? end : 0) : kAttentionKeys;
    if (first[m] >= last[m]) continue;
    softmax_block(state[m], a.scores + m * kAttentionKeys, first[m], last[m], a.accumulators + m * padded, padded);
  }
  for (int m = 0; m < a.count;) {
    const bool four = m + 4 <= a.count && first[m] == first[m + 1] && first[m] == first[m + 2] &&
                      first[m] == first[m + 3] && last[m] == last[m + 1] && last[m] == last[m + 2] &&
                      last[m] == last[m + 3];
    if (first[m] < last[m]) {
      four ? add_values<4>(a, m, first[m], last[m], padded) : add_values<1>(a, m, first[m], last[m], padded);
    }
    m += four ? 4 : 1;
  }
}

template <class C>
void attention_tile(const AttentionTile& a) {
  const int padded = (a.dim + kAttentionPad - 1) / kAttentionPad * kAttentionPad;
  Softmax state[kAttentionTile];
  std::int64_t begin = a.first[0], end = a.last[0];
  for (int m = 0; m < a.count; ++m) {
    state[m] = a.sink ? Softmax{a.sink[m], 1.f} : Softmax{-__builtin_inff(), 0.f};
    for (int d = 0; d < padded; d += kLanes) store(a.accumulators + m * padded + d, zero());
    begin = a.first[m] < begin ? a.first[m] : begin;
    end = a.last[m] > end ? a.last[m] : end;
  }
  const auto block_at = [&](std::int64_t start) {
    return KeyBlock{start, static_cast<int>(begin > start ? begin - start : 0),
                    static_cast<int>(end - start < kAttentionKeys ? end - start : kAttentionKeys)};
  };
  for (std::int64_t start = begin / kAttentionKeys * kAttentionKeys; start < end; start += kAttentionKeys) {
    if (start + kAttentionKeys < end) prefetch_block<C>(a, block_at(start + kAttentionKeys));
    attend_block<C>(a, block_at(start), padded, state);
  }
  for (int m = 0; m < a.count; ++m) {
    if (a.softmax) {
      a.softmax[2 * m] = state[m].max;
      a.softmax[2 * m + 1] = state[m].sum;
    }
    const Vec sum = splat(state[m].sum);
    for (int d = 0; d < a.dim; d += kLanes) {
      const Vec value = div(load(a.accumulators + m * padded + d), sum);
      d + kLanes <= a.dim ? store(a.out[m] + d, value) : store_partial(a.out[m] + d, value, a.dim - d);
    }
  }
}

void attention(const AttentionTile& a) { a.cache_bf16 ? attention_tile<Bf16>(a) : attention_tile<float>(a); }

}  // namespace
}  // namespace gov::ops::GOV_ISA
