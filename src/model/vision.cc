// The image encoder: a pre-norm ViT, the pool token, and the projection into the text model's width.

#include <cmath>

#include "model/transformer.h"

namespace gov {
namespace {

// x += W_o attention(norm(x)); x += W_2 gelu(W_1 norm(x)); every token sees its whole image.
void vit_layer(Context& ctx, const VisionConfig& v, const VitLayerWeights& w, const VisionActivations& a,
               const Tensor& x, const Tensor& cu_seqlens, const Tensor& lengths) {
  const std::int64_t rows = x.rows();
  const Tensor normed = a.normed.slice(0, rows), q = a.q.slice(0, rows), k = a.k.slice(0, rows),
               value = a.v.slice(0, rows);
  const Tensor attended = a.attended.slice(0, rows), mlp = a.mlp.slice(0, rows);
  const std::int64_t head_dim = v.embed_dim / v.num_heads;
  const Shape heads{rows, v.num_heads, head_dim};

  ops::layer_norm(ctx, x, w.norm1, w.norm1_bias, v.layer_norm_eps, normed);
  ops::linear(ctx, normed, w.q, w.q_bias, q);
  ops::linear(ctx, normed, w.k, w.k_bias, k);
  ops::linear(ctx, normed, w.v, w.v_bias, value);
  ops::AttentionArgs args;
  args.q = q.view(heads);
  args.k = k.view(heads);
  args.v = value.view(heads);
  args.cu_seqlens = cu_seqlens;
  args.kv_lens = lengths;
  args.scale = 1.f / std::sqrt(static_cast<float>(head_dim));
  args.causal = false;
  args.max_rows = args.max_keys = v.vit_tokens();
  ops::attention(ctx, args, attended.view(heads));
  ops::linear(ctx, attended, w.o, w.o_bias, x, /*accumulate=*/true);

  ops::layer_norm(ctx, x, w.norm2, w.norm2_bias, v.layer_norm_eps, normed);
  ops::linear(ctx, normed, w.fc1, w.fc1_bias, mlp);
  ops::gelu(ctx, mlp, v.hidden_act, mlp);
  ops::linear(ctx, mlp, w.fc2, w.fc2_bias, x, /*accumulate=*/true);
}

// A learned row as the ops take it; empty if the model has none.
Tensor row_of(const Tensor& token, std::int64_t width) { return token ? token.view({width}) : Tensor(); }

}  // namespace

void encode_images(Context& ctx, const Model& model, const Tensor& pixels, VisionActivations& acts, const Tensor& out) {
  const VisionConfig& v = model.config.vision;
  const VisionWeights& w = model.weights.vision;
  if (!model.config.use_vision) fail(ErrorCode::kInvalidArgument, "this model has no image encoder");
  const std::int64_t images = pixels.rows();
  if (images > acts.max_images)
    fail(ErrorCode::kInvalidArgument, "encode_images: {} images, planned for {}", images, acts.max_images);

  const std::int64_t d = v.embed_dim, p = v.vit_tokens(), n = v.tokens();
  const Tensor patches = acts.patches.slice(0, images), x = acts.x.slice(0, images * p);
  ops::patch_embed(ctx, pixels, w.patch, w.patch_bias, patches);
  ops::prepend_token(ctx, row_of(w.class_token, d), patches, w.positions.view({p, d}), x.view({images, p, d}));
  if (v.pre_layernorm) ops::layer_norm(ctx, x, w.pre_norm, w.pre_norm_bias, v.layer_norm_eps, x);
  const Tensor cu_seqlens = acts.cu_seqlens.slice(0, images + 1), lengths = acts.lengths.slice(0, images);
  for (const VitLayerWeights& layer : w.layers) vit_layer(ctx, v, layer, acts, x, cu_seqlens, lengths);
  if (v.final_layernorm) ops::layer_norm(ctx, x, w.post_norm, w.post_norm_bias, v.layer_norm_eps, x);

  // The pool token joins behind the ViT and its last norm.
  const Tensor rows = acts.pooled.slice(0, images * n), normed = acts.normed.slice(0, images * n);
  ops::prepend_token(ctx, row_of(w.pool_token, d), x.view({images, p, d}), {}, rows.view({images, n, d}));
  ops::layer_norm(ctx, rows, w.norm, w.norm_bias, kAdapterNormEps, normed);
  ops::linear(ctx, normed, w.proj, w.proj_bias, out);
  if (ctx.trace) ctx.emit("vision_embeds", out.view({images, v.tokens(), model.config.hidden_size}));
}

}  // namespace gov
