// The derivative of attention. A task is one kv head of one sequence: it owns that head's dk and dv and the dq of the
// heads that share it, and walks blocks of keys, for each block the tiles of queries that see it, always in the same
// order.
#include <algorithm>
#include <cmath>

#include "ops/cpu_support.h"
#include "ops/ops_list.h"

namespace gov::ops::cpu {
namespace {

constexpr std::int64_t kKeys = kAttentionKeys, kVectors = kAttentionTile;

struct Problem {
  const Kernels& table;
  const AttentionArgs& args;
  std::int64_t heads, kv_heads, group, dim, padded;
  const float* dout;
  const float* shift;  // [T, heads]: dout . out
  float *dq, *dk, *dv;
};

// Rows of length `padded` unless said otherwise.
struct Scratch {
  float *k, *v;          // [kKeys] of the block
  float *kt, *vt;        // [padded, kKeys], the same transposed
  float *dk, *dv;        // [kKeys]
  float *q, *dout, *dq;  // [kVectors] of the tile; q times the scale
  float *p, *ds;         // [kVectors, kKeys]

  static std::int64_t floats(std::int64_t padded) { return padded * (6 * kKeys + 3 * kVectors) + 2 * kVectors * kKeys; }
  Scratch(float* memory, std::int64_t padded) {
    for (float** part : {&k, &v, &kt, &vt, &dk, &dv}) {
      *part = memory;
      memory += padded * kKeys;
    }
    for (float** part : {&q, &dout, &dq}) {
      *part = memory;
      memory += padded * kVectors;
    }
    p = memory;
    ds = p + kVectors * kKeys;
  }
};

// One sequence: its first row and its length, and the kv head.
struct Place {
  std::int64_t row, rows, kv_head;
};

// Keys [begin, begin + count) of a head, and their transpose; rows past the end are zero.
void load_keys(const Problem& p, const Tensor& from, const Place& at, std::int64_t begin, std::int64_t count,
               float* rows, float* transposed) {
  std::fill(rows, rows + kKeys * p.padded, 0.f);
  for (std::int64_t j = 0; j < count; ++j)
    std::copy_n(from.as<float>() + ((at.row + begin + j) * p.kv_heads + at.kv_head) * p.dim, p.dim,
                rows + j * p.padded);
  for (std::int64_t d = 0; d < p.dim; ++d)
    for (std::int64_t j = 0; j < kKeys; ++j) transposed[d * kKeys + j] = rows[j * p.padded + d];
}

// Keys [first, last) of the block from `begin` that a query row sees.
struct Range {
  std::int64_t first, last;
};
Range visible(const AttentionArgs& args, std::int64_t row, std::int64_t rows, std::int64_t begin) {
  const std::int64_t first = args.window > 0 ? row - args.window + 1 : 0, last = args.causal ? row + 1 : rows;
  return {std::clamp<std::int64_t>(first - begin, 0, kKeys), std::clamp<std::int64_t>(last - begin, 0, kKeys)};
}

// Vectors [begin, begin + count) of the sequence, numbered row by row with the heads of the group within a row, against
// the block of keys at `key`.
void run_tile(const Problem& p, const Place& at, std::int64_t key, std::int64_t begin, std::int64_t count,
              const Scratch& s) {
  const auto offset = [&](std::int64_t m) {  // of a vector among all [T, heads]
    const std::int64_t i = begin + m;
    return (at.row + i / p.group) * p.heads + at.kv_head * p.group + i % p.group;
  };
  for (std::int64_t m = 0; m < count; ++m) {
    const std::int64_t from = offset(m) * p.dim;
    for (std::int64_t d = 0; d < p.dim; ++d) s.q[m * p.padded + d] = p.args.scale * p.args.q.as<float>()[from + d];
    std::copy_n(p.dout + from, p.dim, s.dout + m * p.padded);
    std::fill(s.q + m * p.padded + p.dim, s.q + (m + 1) * p.padded, 0.f);
    std::fill(s.dout + m * p.padded + p.dim, s.dout + (m + 1) * p.padded, 0.f);
  }
  p.table.product({s.q, p.padded, 1, s.kt, kKeys, s.p, kKeys, count, kKeys, p.dim, false});
  p.table.product({s.dout, p.padded, 1, s.vt, kKeys, s.ds, kKeys, count, kKeys, p.dim, false});
  for (std::int64_t m = 0; m < count; ++m) {
    float *weight = s.p + m * kKeys, *slope = s.ds + m * kKeys;
    const Range range = visible(p.args, (begin + m) / p.group, at.rows, key);
    const float shift = p.shift[offset(m)];
    if (range.first < range.last)
      p.table.exp_sum(weight + range.first, range.last - range.first, p.args.lse.as<float>()[offset(m)], 1.f,
                      weight + range.first);
    for (std::int64_t j = 0; j < kKeys; ++j) {
      weight[j] = j >= range.first && j < range.last ? weight[j] : 0.f;
      slope[j] = weight[j] * (slope[j] - shift);
    }
  }
  p.table.product({s.p, 1, kKeys, s.dout, p.padded, s.dv, p.padded, kKeys, p.padded, count, true});
  p.table.product({s.ds, 1, kKeys, s.q, p.padded, s.dk, p.padded, kKeys, p.padded, count, true});
  p.table.product({s.ds, kKeys, 1, s.k, p.padded, s.dq, p.padded, count, p.padded, kKeys, false});
  for (std::int64_t m = 0; m < count; ++m) {
    float* to = p.dq + offset(m) * p.dim;
    for (std::int64_t d = 0; d < p.dim; ++d) to[d] += p.args.scale * s.dq[m * p.padded + d];
  }
}

void run_head(const Problem& p, const Place& at, const Scratch& s) {
  for (std::int64_t row = at.row; row < at.row + at.rows; ++row)
    std::fill_n(p.dq + (row * p.heads + at.kv_head * p.group) * p.dim, p.group * p.dim, 0.f);
  for (std::int64_t key = 0; key < at.rows; key += kKeys) {
    const std::int64_t count = std::min(kKeys, at.rows - key);
    load_keys(p, p.args.k, at, key, count, s.k, s.kt);
    load_keys(p, p.args.v, at, key, count, s.v, s.vt);
    std::fill(s.dk, s.dk + kKeys * p.padded, 0.f);
    std::fill(s.dv, s.dv + kKeys * p.padded, 0.f);
    const std::int64_t first = p.args.causal ? key : 0;
    const std::int64_t last = p.args.window > 0 ? std::min(at.rows, key + count + p.args.window - 1) : at.rows;
    for (std::int64_t i = first * p.group; i < last * p.group; i += kVectors)
      run_tile(p, at, key, i, std::min(kVectors, last * p.group - i), s);
    for (std::int64_t j = 0; j < count; ++j) {
      const std::int64_t to = ((at.row + key + j) * p.kv_heads + at.kv_head) * p.dim;
      std::copy_n(s.dk + j * p.padded, p.dim, p.dk + to);
      std::copy_n(s.dv + j * p.padded, p.dim, p.dv + to);
    }
  }
}

void check_sequences(const AttentionArgs& args) {
  const auto* cu = args.cu_seqlens.as<std::int32_t>();
  const auto* kv = args.kv_lens.as<std::int32_t>();
  const std::int64_t sequences = args.kv_lens.elements();
  if (cu[0] != 0 || cu[sequences] != args.q.shape[0])
    fail(ErrorCode::kInvalidArgument, "attention_backward: cu_seqlens must run from 0 to {}", args.q.shape[0]);
  for (std::int64_t s = 0; s < sequences; ++s) {
    if (kv[s] < 0 || cu[s + 1] - cu[s] != kv[s])
      fail(ErrorCode::kInvalidArgument, "attention_backward: sequence {} has {} queries and {} keys", s,
           cu[s + 1] - cu[s], kv[s]);
  }
}

void add_sink_gradient(const Problem& p, const float* sinks, std::int64_t rows, const Tensor& dsinks) {
  for (std::int64_t h = 0; h < p.heads; ++h) {
    double sum = 0;
    for (std::int64_t t = 0; t < rows; ++t) {
      const std::int64_t i = t * p.heads + h;
      sum -= static_cast<double>(std::exp(sinks[h] - p.args.lse.as<float>()[i])) * static_cast<double>(p.shift[i]);
    }
    dsinks.as<float>()[h] += static_cast<float>(sum);
  }
}

}  // namespace

void attention_backward(Context& ctx, const AttentionArgs& args, const Tensor& out, const Tensor& dout,
                        const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dsinks) {
  check_sequences(args);
  const std::int64_t rows = args.q.shape[0], heads = args.q.shape[1], dim = args.q.shape[2];
  const std::int64_t kv_heads = args.k.shape[1], sequences = args.kv_lens.elements();
  float* shift = ctx.workspace.take<float>(rows * heads);
  for_rows(ctx, rows, heads * dim * 2, [&](std::int64_t t) {
    for (std::int64_t i = t * heads; i < (t + 1) * heads; ++i) {
      double sum = 0;
      for (std::int64_t d = i * dim; d < (i + 1) * dim; ++d)
        sum += static_cast<double>(dout.as<float>()[d]) * static_cast<double>(out.as<float>()[d]);
      shift[i] = static_cast<float>(sum);
    }
  });
  const std::int64_t padded = (dim + kAttentionPad - 1) / kAttentionPad * kAttentionPad;
  const Problem p{kernels(ctx.isa), args,  heads,          kv_heads,       heads / kv_heads, dim, padded,
                  dout.as<float>(), shift, dq.as<float>(), dk.as<float>(), dv.as<float>()};
  const std::int64_t floats = Scratch::floats(padded);
  float* memory = ctx.workspace.take<float>(floats * ctx.pool->size());
  const auto* cu = args.cu_seqlens.as<std::int32_t>();
  ctx.pool->parallel_for(sequences * kv_heads, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    const Scratch scratch(memory + floats * thread, padded);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t s = i / kv_heads;
      run_head(p, {cu[s], cu[s + 1] - cu[s], i % kv_heads}, scratch);
    }
  });
  if (dsinks) add_sink_gradient(p, widen(ctx, args.sinks), rows, dsinks);
}

}  // namespace gov::ops::cpu
