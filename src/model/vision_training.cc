// The image encoder of vision.cc with its derivative.

#include <cmath>

#include "model/training.h"
#include "tensor/device.h"

namespace gov {
namespace {

Tensor row_of(const Tensor& token, std::int64_t width) { return token ? token.view({width}) : Tensor(); }

void zero(Context& ctx, const Tensor& t) { fill_bytes(t.data, t.device, 0, t.bytes(), ctx.stream); }

// The first `rows` rows of a layer's results.
VitLayerActivations first_rows(const VitLayerActivations& a, std::int64_t rows) {
  VitLayerActivations part = a;
  for (Tensor* t : {&part.x, &part.q, &part.k, &part.v, &part.attended, &part.lse, &part.mid, &part.mlp})
    *t = t->slice(0, rows);
  return part;
}

ops::AttentionArgs attention_args(const VisionConfig& v, const VitLayerActivations& a, const VisionTraining& t) {
  const std::int64_t rows = a.q.rows(), head_dim = v.embed_dim / v.num_heads, images = rows / v.vit_tokens();
  const Shape heads{rows, v.num_heads, head_dim};
  ops::AttentionArgs args;
  args.q = a.q.view(heads);
  args.k = a.k.view(heads);
  args.v = a.v.view(heads);
  args.lse = a.lse;
  args.cu_seqlens = t.cu_seqlens.slice(0, images + 1);
  args.kv_lens = t.lengths.slice(0, images);
  args.scale = 1.f / std::sqrt(static_cast<float>(head_dim));
  args.causal = false;
  args.max_rows = args.max_keys = v.vit_tokens();
  return args;
}

// mid = x + W_o attention(norm(x)); out = mid + W_2 gelu(W_1 norm(mid)).
void vit_layer(Context& ctx, const VisionConfig& v, const VitLayerWeights& w, const VitLayerActivations& a,
               const VisionTraining& t, const Tensor& out) {
  const std::int64_t rows = a.x.rows();
  const Tensor normed = t.normed.slice(0, rows), gelu = t.gelu.slice(0, rows);
  ops::layer_norm(ctx, a.x, w.norm1, w.norm1_bias, v.layer_norm_eps, normed);
  ops::linear(ctx, normed, w.q, w.q_bias, a.q);
  ops::linear(ctx, normed, w.k, w.k_bias, a.k);
  ops::linear(ctx, normed, w.v, w.v_bias, a.v);
  const ops::AttentionArgs args = attention_args(v, a, t);
  ops::attention(ctx, args, a.attended.view(args.q.shape));
  copy_tensor(ctx, a.x, a.mid);
  ops::linear(ctx, a.attended, w.o, w.o_bias, a.mid, /*accumulate=*/true);

  ops::layer_norm(ctx, a.mid, w.norm2, w.norm2_bias, v.layer_norm_eps, normed);
  ops::linear(ctx, normed, w.fc1, w.fc1_bias, a.mlp);
  ops::gelu(ctx, a.mlp, v.hidden_act, gelu);
  copy_tensor(ctx, a.mid, out);
  ops::linear(ctx, gelu, w.fc2, w.fc2_bias, out, /*accumulate=*/true);
}

void vit_layer_backward(Context& ctx, const VisionConfig& v, const VitLayerWeights& w, const VitLayerActivations& a,
                        const VisionTraining& t, const Tensor& dx, const VitLayerWeights& g) {
  const std::int64_t rows = a.x.rows();
  const Tensor normed = t.normed.slice(0, rows), gelu = t.gelu.slice(0, rows), dnormed = t.dnormed.slice(0, rows);
  const Tensor dmlp = t.dmlp.slice(0, rows), dattended = t.dattended.slice(0, rows);
  ops::gelu(ctx, a.mlp, v.hidden_act, gelu);
  ops::linear_backward(ctx, gelu, w.fc2, dx, dmlp, g.fc2, g.fc2_bias);
  ops::gelu_backward(ctx, a.mlp, v.hidden_act, dmlp, dmlp);
  ops::layer_norm(ctx, a.mid, w.norm2, w.norm2_bias, v.layer_norm_eps, normed);
  ops::linear_backward(ctx, normed, w.fc1, dmlp, dnormed, g.fc1, g.fc1_bias);
  ops::layer_norm_backward(ctx, a.mid, w.norm2, v.layer_norm_eps, dnormed, dx, g.norm2, g.norm2_bias);

  const Tensor dq = t.dq.slice(0, rows), dk = t.dk.slice(0, rows), dv = t.dv.slice(0, rows);
  const ops::AttentionArgs args = attention_args(v, a, t);
  const Shape& heads = args.q.shape;
  ops::linear_backward(ctx, a.attended, w.o, dx, dattended, g.o, g.o_bias);
  ops::attention_backward(ctx, args, a.attended.view(heads), dattended.view(heads), dq.view(heads), dk.view(heads),
                          dv.view(heads), {});
  ops::layer_norm(ctx, a.x, w.norm1, w.norm1_bias, v.layer_norm_eps, normed);
  ops::linear_backward(ctx, normed, w.q, dq, dnormed, g.q, g.q_bias);
  ops::linear_backward(ctx, normed, w.k, dk, dnormed, g.k, g.k_bias, /*accumulate=*/true);
  ops::linear_backward(ctx, normed, w.v, dv, dnormed, g.v, g.v_bias, /*accumulate=*/true);
  ops::layer_norm_backward(ctx, a.x, w.norm1, v.layer_norm_eps, dnormed, dx, g.norm1, g.norm1_bias);
}

// From a.dx, the gradient of what the encoder gives to the adapter, down to the patches.
void encoder_backward(Context& ctx, const Model& model, const Tensor& pixels, const VisionTraining& a,
                      const VisionWeights& g) {
  const VisionConfig& v = model.config.vision;
  const VisionWeights& w = model.weights.vision;
  const std::int64_t images = pixels.rows(), d = v.embed_dim, p = v.vit_tokens(), rows = images * p;
  Tensor dx = a.dx.slice(0, rows), other = a.dx_before.slice(0, rows);
  const auto through_norm = [&](const Tensor& x, const Tensor& weight, const Tensor& dweight, const Tensor& dbias) {
    zero(ctx, other);
    ops::layer_norm_backward(ctx, x, weight, v.layer_norm_eps, dx, other, dweight, dbias);
    std::swap(dx, other);
  };
  if (v.final_layernorm) through_norm(a.last.slice(0, rows), w.post_norm, g.post_norm, g.post_norm_bias);
  for (std::size_t layer = a.layers.size(); layer-- > 0;)
    vit_layer_backward(ctx, v, w.layers[layer], first_rows(a.layers[layer], rows), a, dx, g.layers[layer]);
  if (v.pre_layernorm) through_norm(a.embedded.slice(0, rows), w.pre_norm, g.pre_norm, g.pre_norm_bias);
  const Tensor dpatches = a.patches.slice(0, images);  // the patches themselves are not needed any more
  const Tensor dpositions = g.positions ? g.positions.view({p, d}) : Tensor();
  ops::prepend_token_backward(ctx, v.class_token, dx.view({images, p, d}), row_of(g.class_token, d), dpatches,
                              dpositions);
  ops::patch_embed_backward(ctx, pixels, v.patch_size, dpatches, g.patch, g.patch_bias);
}

}  // namespace

void encode_images(Context& ctx, const Model& model, const Tensor& pixels, VisionTraining& acts) {
  const VisionConfig& v = model.config.vision;
  const VisionWeights& w = model.weights.vision;
  const std::int64_t images = pixels.rows(), d = v.embed_dim, p = v.vit_tokens(), n = v.tokens(), rows = images * p;
  const Tensor patches = acts.patches.slice(0, images), last = acts.last.slice(0, rows);
  const Tensor first = (acts.layers.empty() ? acts.last : acts.layers[0].x).slice(0, rows);
  const Tensor embedded = v.pre_layernorm ? acts.embedded.slice(0, rows) : first;
  ops::patch_embed(ctx, pixels, w.patch, w.patch_bias, patches);
  ops::prepend_token(ctx, row_of(w.class_token, d), patches, w.positions.view({p, d}), embedded.view({images, p, d}));
  if (v.pre_layernorm) ops::layer_norm(ctx, embedded, w.pre_norm, w.pre_norm_bias, v.layer_norm_eps, first);
  for (std::size_t i = 0; i < acts.layers.size(); ++i) {
    const Tensor out = i + 1 < acts.layers.size() ? acts.layers[i + 1].x.slice(0, rows) : last;
    vit_layer(ctx, v, w.layers[i], first_rows(acts.layers[i], rows), acts, out);
  }
  Tensor encoded = last;
  if (v.final_layernorm) {
    encoded = acts.dx.slice(0, rows);  // free until the backward
    ops::layer_norm(ctx, last, w.post_norm, w.post_norm_bias, v.layer_norm_eps, encoded);
  }
  const Tensor pooled = acts.pooled.slice(0, images * n), normed = acts.normed.slice(0, images * n);
  ops::prepend_token(ctx, row_of(w.pool_token, d), encoded.view({images, p, d}), {}, pooled.view({images, n, d}));
  ops::layer_norm(ctx, pooled, w.norm, w.norm_bias, kAdapterNormEps, normed);
  ops::linear(ctx, normed, w.proj, w.proj_bias, acts.embeds.slice(0, images * n));
}

void encode_images_backward(Context& ctx, const Model& model, const Tensor& pixels, VisionTraining& acts, bool encoder,
                            const VisionWeights& g) {
  const VisionConfig& v = model.config.vision;
  const VisionWeights& w = model.weights.vision;
  const std::int64_t images = pixels.rows(), d = v.embed_dim, p = v.vit_tokens(), n = v.tokens(), all = images * n;
  const Tensor pooled = acts.pooled.slice(0, all), normed = acts.normed.slice(0, all);
  const Tensor dnormed = acts.dnormed.slice(0, all), dpooled = acts.dpooled.slice(0, all);
  ops::layer_norm(ctx, pooled, w.norm, w.norm_bias, kAdapterNormEps, normed);
  ops::linear_backward(ctx, normed, w.proj, acts.dembeds.slice(0, all), dnormed, g.proj, g.proj_bias);
  zero(ctx, dpooled);
  ops::layer_norm_backward(ctx, pooled, w.norm, kAdapterNormEps, dnormed, dpooled, g.norm, g.norm_bias);
  const Tensor dx = encoder ? acts.dx.slice(0, images * p).view({images, p, d}) : Tensor();
  ops::prepend_token_backward(ctx, v.pool_token, dpooled.view({images, n, d}), row_of(g.pool_token, d), dx, {});
  if (encoder) encoder_backward(ctx, model, pixels, acts, g);
}

}  // namespace gov
