#include <cmath>

#include "model/training.h"

namespace gov {

Angles layer_angles(const Config& config, std::int64_t layer, const AngleTables& tables, std::int64_t rows) {
  switch (config.position_kind(layer)) {
    case PositionKind::kNone: return {};
    case PositionKind::kRope: return {tables.cos.slice(0, rows), tables.sin.slice(0, rows)};
    case PositionKind::kScaleOnly: return {tables.nope_cos.slice(0, rows), tables.nope_sin.slice(0, rows)};
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

// ---- training ----

namespace {

ops::AttentionArgs attention_args(const Model& model, std::int64_t layer, const TrainingBatch& batch,
                                  const LayerActivations& a) {
  const Config& c = model.config;
  const std::int64_t rows = batch.rows();
  const Shape keys{rows, c.num_key_value_heads, c.head_dim};
  ops::AttentionArgs args;
  args.q = a.q.slice(0, rows).view({rows, c.num_attention_heads, c.head_dim});
  args.k = a.k.slice(0, rows).view(keys);
  args.v = a.v.slice(0, rows).view(keys);
  args.lse = a.lse.slice(0, rows);
  args.cu_seqlens = batch.cu_seqlens;
  args.kv_lens = batch.lengths;
  args.sinks = model.weights.layers[static_cast<std::size_t>(layer)].attention.sinks;
  args.scale = 1.f / std::sqrt(static_cast<float>(c.head_dim));
  args.max_rows = args.max_keys = batch.max_rows;
  args.window = c.is_sliding(layer) ? static_cast<int>(c.sliding_window) : 0;
  return args;
}

Angles angles_of(const Config& c, std::int64_t layer, const TrainingActivations& acts, std::int64_t rows) {
  return layer_angles(c, layer, {acts.cos, acts.sin, acts.nope_cos, acts.nope_sin}, rows);
}

}  // namespace

void attention_block(Context& ctx, const Model& model, std::int64_t layer, const TrainingBatch& batch,
                     TrainingActivations& acts) {
  const Config& c = model.config;
  const AttentionWeights& w = model.weights.layers[static_cast<std::size_t>(layer)].attention;
  const LayerActivations& a = acts.layers[static_cast<std::size_t>(layer)];
  const std::int64_t rows = batch.rows();
  const Tensor x = a.x.slice(0, rows), mid = a.mid.slice(0, rows), normed = acts.normed.slice(0, rows);
  const Tensor attended = a.attended.slice(0, rows);
  const ops::AttentionArgs args = attention_args(model, layer, batch, a);

  ops::rms_norm(ctx, x, w.norm, c.rms_norm_eps, normed);
  ops::linear(ctx, normed, w.q, w.q_bias, a.q.slice(0, rows));
  ops::linear(ctx, normed, w.k, w.k_bias, a.k.slice(0, rows));
  ops::linear(ctx, normed, w.v, w.v_bias, a.v.slice(0, rows));
  if (const Angles turn = angles_of(c, layer, acts, rows); turn.cos) {
    ops::rope(ctx, turn.cos, turn.sin, args.q);
    ops::rope(ctx, turn.cos, turn.sin, args.k);
  }
  ops::attention(ctx, args, attended.view(args.q.shape));
  copy_tensor(ctx, x, mid);
  ops::linear(ctx, attended, w.o, w.o_bias, mid, /*accumulate=*/true);
}

void attention_block_backward(Context& ctx, const Model& model, std::int64_t layer, const TrainingBatch& batch,
                              TrainingActivations& acts, const AttentionWeights& g) {
  const Config& c = model.config;
  const AttentionWeights& w = model.weights.layers[static_cast<std::size_t>(layer)].attention;
  const LayerActivations& a = acts.layers[static_cast<std::size_t>(layer)];
  const std::int64_t rows = batch.rows();
  const Tensor x = a.x.slice(0, rows), normed = acts.normed.slice(0, rows), attended = a.attended.slice(0, rows);
  const Tensor dx = acts.dx.slice(0, rows), dnormed = acts.dnormed.slice(0, rows);
  const Tensor dq = acts.dq.slice(0, rows), dk = acts.dk.slice(0, rows), dv = acts.dv.slice(0, rows);
  const Tensor dattended = acts.dattended.slice(0, rows);
  const ops::AttentionArgs args = attention_args(model, layer, batch, a);
  const Shape &queries = args.q.shape, &keys = args.k.shape;

  ops::linear_backward(ctx, attended, w.o, dx, dattended, g.o, g.o_bias);
  ops::attention_backward(ctx, args, attended.view(queries), dattended.view(queries), dq.view(queries), dk.view(keys),
                          dv.view(keys), g.sinks);
  if (const Angles turn = angles_of(c, layer, acts, rows); turn.cos) {
    ops::rope_backward(ctx, turn.cos, turn.sin, dq.view(queries));
    ops::rope_backward(ctx, turn.cos, turn.sin, dk.view(keys));
  }
  ops::rms_norm(ctx, x, w.norm, c.rms_norm_eps, normed);
  ops::linear_backward(ctx, normed, w.q, dq, dnormed, g.q, g.q_bias);
  ops::linear_backward(ctx, normed, w.k, dk, dnormed, g.k, g.k_bias, /*accumulate=*/true);
  ops::linear_backward(ctx, normed, w.v, dv, dnormed, g.v, g.v_bias, /*accumulate=*/true);
  ops::rms_norm_backward(ctx, x, w.norm, c.rms_norm_eps, dnormed, dx, g.norm);
}

}  // namespace gov
