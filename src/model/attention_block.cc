#include <cmath>

#include "model/transformer.h"

namespace gov {

Angles layer_angles(const Config& config, std::int64_t layer, const Activations& acts, std::int64_t rows) {
  switch (config.position_kind(layer)) {
    case PositionKind::kNone: return {};
    case PositionKind::kRope: return {acts.cos.slice(0, rows), acts.sin.slice(0, rows)};
    case PositionKind::kScaleOnly: return {acts.nope_cos.slice(0, rows), acts.nope_sin.slice(0, rows)};
  }
  return {};
}

ops::AttentionArgs attention_args(const Model& model, std::int64_t layer, const Batch& batch, const KvCache& cache,
                                  const Tensor& q) {
  const Config& c = model.config;
  const bool sliding = c.is_sliding(layer);
  ops::AttentionArgs args;
  args.q = q;
  args.cu_seqlens = batch.cu_seqlens;
  args.kv_lens = batch.kv_lens;
  args.k_cache = cache.layer(layer).k;
  args.v_cache = cache.layer(layer).v;
  args.block_tables = (sliding ? batch.sliding : batch.full).block_tables;
  args.sinks = model.weights.layers[static_cast<std::size_t>(layer)].attention.sinks;
  args.scale = 1.f / std::sqrt(static_cast<float>(c.head_dim));
  args.max_rows = batch.max_rows;
  args.max_keys = batch.max_keys;
  args.window = sliding ? static_cast<int>(c.sliding_window) : 0;
  return args;
}

namespace {

// Queries [T, heads, D] of the normed rows; their keys and values go to the cache. Where the three projections lie one
// behind the other, one product makes all of them and one pass does the rest.
Tensor queries(Context& ctx, const Config& c, const AttentionWeights& w, const Tensor& normed, const Angles& turn,
               const Tensor& slots, const KvLayer& kv, const Activations& acts) {
  const std::int64_t rows = normed.rows();
  const Tensor q = acts.q.slice(0, rows).view({rows, c.num_attention_heads, c.head_dim});
  if (w.qkv) {
    const Tensor qkv = acts.qkv.slice(0, rows);
    ops::linear(ctx, normed, w.qkv, w.qkv_bias, qkv);
    ops::qkv_rope_append(ctx, qkv, turn.cos, turn.sin, slots, q, kv.k, kv.v);
    return q;
  }
  const Tensor k = acts.k.slice(0, rows), v = acts.v.slice(0, rows);
  ops::linear(ctx, normed, w.q, w.q_bias, acts.q.slice(0, rows));
  ops::linear(ctx, normed, w.k, w.k_bias, k);
  ops::linear(ctx, normed, w.v, w.v_bias, v);
  const Shape heads{rows, c.num_key_value_heads, c.head_dim};
  if (turn.cos) {
    ops::rope(ctx, turn.cos, turn.sin, q);
    ops::rope(ctx, turn.cos, turn.sin, k.view(heads));
  }
  ops::kv_append(ctx, k.view(heads), v.view(heads), slots, kv.k, kv.v);
  return q;
}

}  // namespace

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
  const Tensor attended = acts.attended.slice(0, rows);

  ops::rms_norm(ctx, x, w.norm, c.rms_norm_eps, normed);
  const Tensor q = queries(ctx, c, w, normed, layer_angles(c, layer, acts, rows), where.slots, kv, acts);

  const ops::AttentionArgs args = attention_args(model, layer, batch, cache, q);
  ops::attention(ctx, args, attended.view(q.shape));
  ops::linear(ctx, attended, w.o, w.o_bias, x, /*accumulate=*/true);
}

}  // namespace gov
