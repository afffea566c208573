#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/cpu_support.h"
#include "ops/ops_list.h"

namespace gov::ops::cpu {
namespace {

struct KeyRange {
  std::int64_t first, last;  // [first, last)
};

// Keys that the query at `position` of a sequence with `keys` keys sees.
KeyRange visible_keys(const AttentionArgs& args, std::int64_t position, std::int64_t keys) {
  const std::int64_t first = args.window > 0 ? std::max<std::int64_t>(0, position - args.window + 1) : 0;
  return {first, args.causal ? position + 1 : keys};
}

void check_sequences(const AttentionArgs& args) {
  const auto* cu = args.cu_seqlens.as<std::int32_t>();
  const auto* kv = args.kv_lens.as<std::int32_t>();
  const std::int64_t sequences = args.kv_lens.elements();
  if (cu[0] != 0 || cu[sequences] != args.q.shape[0]) {
    fail(ErrorCode::kInvalidArgument, "attention: cu_seqlens must run from 0 to {}", args.q.shape[0]);
  }
  for (std::int64_t s = 0; s < sequences; ++s) {
    const std::int64_t rows = static_cast<std::int64_t>(cu[s + 1]) - cu[s];
    if (rows < 0) fail(ErrorCode::kInvalidArgument, "attention: cu_seqlens decreases at sequence {}", s);
    if (kv[s] < rows || (args.k && kv[s] != rows)) {
      fail(ErrorCode::kInvalidArgument, "attention: sequence {} has {} queries and {} keys", s, rows, kv[s]);
    }
    if (!args.k_cache || rows == 0) continue;
    const std::int64_t block_size = args.k_cache.shape[2], blocks = args.k_cache.shape[0];
    const std::int64_t columns = args.block_tables.shape[1];
    const std::int64_t begin = visible_keys(args, kv[s] - rows, kv[s]).first / block_size;
    const std::int64_t end = (kv[s] + block_size - 1) / block_size;
    if (end > columns)
      fail(ErrorCode::kInvalidArgument, "attention: sequence {} needs {} blocks, its table has {}", s, end, columns);
    const std::int32_t* table = args.block_tables.as<std::int32_t>() + s * columns;
    for (std::int64_t b = begin; b < end; ++b) {
      if (table[b] < 0 || table[b] >= blocks) {
        fail(ErrorCode::kInvalidArgument, "attention: block {} of sequence {} is {}, outside [0, {})", b, s, table[b],
             blocks);
      }
    }
  }
}

// One call's layout. The query vectors of a (sequence, kv head) are numbered row by row, the heads of the group within
// a row, and cut into tiles of kAttentionTile.
struct Plan {
  const AttentionArgs& args;
  float* out;
  std::int64_t heads, kv_heads, group, dim;
  const float* sinks;              // [heads] or null
  const std::int64_t* tile_start;  // [S + 1]: tiles of all sequences before
  std::int64_t scratch_floats;     // per thread
  float* scratch;

  std::int64_t tiles_of(std::int64_t rows) const { return (rows * group + kAttentionTile - 1) / kAttentionTile; }
};

// Where the tile's kv head finds its keys.
void locate_keys(const Plan& plan, std::int64_t sequence, std::int64_t kv_head, AttentionTile& tile) {
  const AttentionArgs& args = plan.args;
  if (args.k) {
    const std::int64_t row = args.cu_seqlens.as<std::int32_t>()[sequence];
    const std::int64_t offset = (row * plan.kv_heads + kv_head) * plan.dim;
    tile.k = args.k.as<float>() + offset;
    tile.v = args.v.as<float>() + offset;
    tile.key_stride = plan.kv_heads * plan.dim;
    return;
  }
  tile.cache_bf16 = args.k_cache.dtype == DType::kBF16;
  tile.block_size = args.k_cache.shape[2];
  tile.block_stride = plan.kv_heads * tile.block_size * plan.dim;
  tile.key_stride = plan.dim;
  const std::size_t offset =
      static_cast<std::size_t>(kv_head * tile.block_size * plan.dim) * dtype_size(args.k_cache.dtype);
  tile.k = static_cast<const char*>(args.k_cache.data) + offset;
  tile.v = static_cast<const char*>(args.v_cache.data) + offset;
  tile.block_table = args.block_tables.as<std::int32_t>() + sequence * args.block_tables.shape[1];
}

void run_tile(const Kernels& table, const Plan& plan, std::int64_t sequence, std::int64_t index, float* scratch) {
  const AttentionArgs& args = plan.args;
  const std::int64_t row_begin = args.cu_seqlens.as<std::int32_t>()[sequence];
  const std::int64_t rows = args.cu_seqlens.as<std::int32_t>()[sequence + 1] - row_begin;
  const std::int64_t keys = args.kv_lens.as<std::int32_t>()[sequence], tiles = plan.tiles_of(rows);
  const std::int64_t kv_head = index / tiles, begin = index % tiles * kAttentionTile;
  const std::int64_t end = std::min(begin + kAttentionTile, rows * plan.group);
  const float* q[kAttentionTile];
  float* out[kAttentionTile];
  std::int64_t first[kAttentionTile], last[kAttentionTile];
  float sink[kAttentionTile];
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int64_t row = i / plan.group, head = kv_head * plan.group + i % plan.group, m = i - begin;
    const std::int64_t offset = ((row_begin + row) * plan.heads + head) * plan.dim;
    const KeyRange range = visible_keys(args, keys - rows + row, keys);
    q[m] = args.q.as<float>() + offset;
    out[m] = plan.out + offset;
    first[m] = range.first;
    last[m] = range.last;
    sink[m] = plan.sinks ? plan.sinks[head] : 0.f;
  }
  const std::int64_t padded = (plan.dim + kAttentionPad - 1) / kAttentionPad * kAttentionPad;
  AttentionTile tile{};
  tile.count = static_cast<int>(end - begin);
  tile.dim = static_cast<int>(plan.dim);
  tile.scale = args.scale;
  tile.q = q;
  tile.out = out;
  tile.first = first;
  tile.last = last;
  tile.sink = plan.sinks ? sink : nullptr;
  locate_keys(plan, sequence, kv_head, tile);
  tile.k_scratch = scratch;
  tile.v_scratch = tile.k_scratch + padded * kAttentionKeys;
  tile.accumulators = tile.v_scratch + kAttentionKeys * padded;
  tile.scores = tile.accumulators + kAttentionTile * padded;
  float softmax[2 * kAttentionTile];
  tile.softmax = args.lse ? softmax : nullptr;
  table.attention(tile);
  for (std::int64_t i = begin; args.lse && i < end; ++i) {
    const std::int64_t row = row_begin + i / plan.group, head = kv_head * plan.group + i % plan.group;
    const float* s = softmax + 2 * (i - begin);
    args.lse.as<float>()[row * plan.heads + head] = s[0] + std::log(s[1]);
  }
}

}  // namespace

void attention(Context& ctx, const AttentionArgs& args, const Tensor& out) {
  check_sequences(args);
  const std::int64_t sequences = args.kv_lens.elements();
  const Tensor& keys = args.k ? args.k : args.k_cache;
  const std::int64_t dim = args.q.shape[2], padded = (dim + kAttentionPad - 1) / kAttentionPad * kAttentionPad;
  Plan plan{args,
            out.as<float>(),
            args.q.shape[1],
            keys.shape[1],
            args.q.shape[1] / keys.shape[1],
            dim,
            nullptr,
            nullptr,
            padded * (2 * kAttentionKeys + kAttentionTile) + kAttentionTile * kAttentionKeys,
            nullptr};
  if (args.sinks) plan.sinks = widen(ctx, args.sinks);
  std::int64_t* tile_start = ctx.workspace.take<std::int64_t>(sequences + 1);
  plan.scratch = ctx.workspace.take<float>(plan.scratch_floats * ctx.pool->size());
  tile_start[0] = 0;
  const auto* cu = args.cu_seqlens.as<std::int32_t>();
  for (std::int64_t s = 0; s < sequences; ++s)
    tile_start[s + 1] = tile_start[s] + plan.kv_heads * plan.tiles_of(cu[s + 1] - cu[s]);
  plan.tile_start = tile_start;
  const Kernels& table = kernels(ctx.isa);
  const std::int64_t tiles = tile_start[sequences];
  ctx.pool->parallel_for(tiles, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t tile = tiles - 1 - i;  // late rows see the most keys: start with them
      const std::int64_t sequence = std::upper_bound(tile_start, tile_start + sequences + 1, tile) - tile_start - 1;
      run_tile(table, plan, sequence, tile - tile_start[sequence], plan.scratch + plan.scratch_floats * thread);
    }
  });
}

}  // namespace gov::ops::cpu
