#include <cmath>

#include "model/transformer.h"

namespace gov {

// x += W_o attention(rope(W_q n), rope(W_k n), W_v n) with n = norm(x), keys and values read through the paged cache.
void attention_block(Context& ctx, const Model& model, std::int64_t layer, const Batch& batch, const KvCache& cache,
                     Activations& acts) {
  const Config& c = model.config;
  const AttentionWeights& w = model.weights.layers[static_cast<std::size_t>(layer)].attention;
  const KvLayer& kv = cache.layer(layer);
  const bool sliding = c.is_sliding(layer);
  const BatchCache& where = sliding ? batch.sliding : batch.full;
  const std::int64_t rows = batch.tokens.rows();
  const Tensor x = acts.x.slice(0, rows), normed = acts.normed.slice(0, rows);
  const Tensor q = acts.q.slice(0, rows), k = acts.k.slice(0, rows), v = acts.v.slice(0, rows);
  const Tensor attended = acts.attended.slice(0, rows);

  ops::rms_norm(ctx, x, w.norm, c.rms_norm_eps, normed);
  ops::linear(ctx, normed, w.q, w.q_bias, q);
  ops::linear(ctx, normed, w.k, w.k_bias, k);
  ops::linear(ctx, normed, w.v, w.v_bias, v);

  const Tensor q_heads = q.view({rows, c.num_attention_heads, c.head_dim});
  const Tensor k_heads = k.view({rows, c.num_key_value_heads, c.head_dim});
  const Tensor v_heads = v.view({rows, c.num_key_value_heads, c.head_dim});
  const PositionKind position = c.position_kind(layer);
  if (position != PositionKind::kNone) {
    const bool turn = position == PositionKind::kRope;
    const Tensor cos = (turn ? acts.cos : acts.nope_cos).slice(0, rows),
                 sin = (turn ? acts.sin : acts.nope_sin).slice(0, rows);
    ops::rope(ctx, cos, sin, q_heads);
    ops::rope(ctx, cos, sin, k_heads);
  }
  ops::kv_append(ctx, k_heads, v_heads, where.slots, kv.k, kv.v);

  ops::AttentionArgs args;
  args.q = q_heads;
  args.cu_seqlens = batch.cu_seqlens;
  args.kv_lens = batch.kv_lens;
  args.k_cache = kv.k;
  args.v_cache = kv.v;
  args.block_tables = where.block_tables;
  args.sinks = w.sinks;
  args.scale = 1.f / std::sqrt(static_cast<float>(c.head_dim));
  args.window = sliding ? static_cast<int>(c.sliding_window) : 0;
  ops::attention(ctx, args, attended.view(q_heads.shape));
  ops::linear(ctx, attended, w.o, w.o_bias, x, /*accumulate=*/true);
}

}  // namespace gov
