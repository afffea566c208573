// The image encoder: a pre-norm ViT, the pool token, and the projection into the text model's width.

#include <cmath>
#include <cstring>

#include "model/transformer.h"

namespace gov {
namespace {

constexpr float kAdapterNormEps = 1e-5f;  // of the adapter's own LayerNorm; not vision_layer_norm_eps

// Widens row vectors (class token, positions, pool token) of any float dtype into f32.
void read_row(const Tensor& table, std::int64_t row, std::int64_t width, float* out) {
  const std::int64_t base = row * width;
  for (std::int64_t i = 0; i < width; ++i) {
    switch (table.dtype) {
      case DType::kBF16: out[i] = to_f32(table.as<bf16>()[base + i]); break;
      case DType::kF16: out[i] = to_f32(table.as<f16>()[base + i]); break;
      default: out[i] = table.as<float>()[base + i];
    }
  }
}

// x = [class token, patches] + positions, image after image.
void assemble(const VisionConfig& v, const VisionWeights& w, std::int64_t images, const VisionActivations& a,
              const Tensor& x) {
  const std::int64_t d = v.embed_dim, skip = v.class_token ? 1 : 0;
  std::vector<float> row(static_cast<std::size_t>(d));
  for (std::int64_t t = 0; t < v.vit_tokens(); ++t) {
    read_row(w.positions, t, d, row.data());
    for (std::int64_t n = 0; n < images; ++n) {
      float* out = x.as<float>() + (n * v.vit_tokens() + t) * d;
      if (t < skip) read_row(w.class_token, 0, d, out);
      else
        std::memcpy(out, a.patches.as<float>() + (n * v.patches() + t - skip) * d,
                    static_cast<std::size_t>(d) * sizeof(float));
      for (std::int64_t i = 0; i < d; ++i) out[i] += row[static_cast<std::size_t>(i)];
    }
  }
}

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
  ops::attention(ctx, args, attended.view(heads));
  ops::linear(ctx, attended, w.o, w.o_bias, x, /*accumulate=*/true);

  ops::layer_norm(ctx, x, w.norm2, w.norm2_bias, v.layer_norm_eps, normed);
  ops::linear(ctx, normed, w.fc1, w.fc1_bias, mlp);
  ops::gelu(ctx, mlp, v.hidden_act, mlp);
  ops::linear(ctx, mlp, w.fc2, w.fc2_bias, x, /*accumulate=*/true);
}

// pooled = [pool token, x] image after image: the pool token joins behind the ViT and its last norm.
Tensor prepend_pool_token(const VisionConfig& v, const VisionWeights& w, std::int64_t images,
                          const VisionActivations& a, const Tensor& x) {
  if (!v.pool_token) return x;
  const std::int64_t d = v.embed_dim, inner = v.vit_tokens() * d;
  for (std::int64_t n = 0; n < images; ++n) {
    float* out = a.pooled.as<float>() + n * v.tokens() * d;
    read_row(w.pool_token, 0, d, out);
    std::memcpy(out + d, x.as<float>() + n * inner, static_cast<std::size_t>(inner) * sizeof(float));
  }
  return a.pooled.slice(0, images * v.tokens());
}

}  // namespace

void encode_images(Context& ctx, const Model& model, const Tensor& pixels, VisionActivations& acts, const Tensor& out) {
  const VisionConfig& v = model.config.vision;
  const VisionWeights& w = model.weights.vision;
  if (!model.config.use_vision) fail(ErrorCode::kInvalidArgument, "this model has no image encoder");
  const std::int64_t images = pixels.rows();
  if (images > acts.max_images)
    fail(ErrorCode::kInvalidArgument, "encode_images: {} images, planned for {}", images, acts.max_images);

  const Tensor patches = acts.patches.slice(0, images);
  ops::patch_embed(ctx, pixels, w.patch, w.patch_bias, patches);
  const Tensor x = acts.x.slice(0, images * v.vit_tokens());
  assemble(v, w, images, acts, x);
  if (v.pre_layernorm) ops::layer_norm(ctx, x, w.pre_norm, w.pre_norm_bias, v.layer_norm_eps, x);
  for (std::int64_t n = 0; n <= images; ++n)
    acts.cu_seqlens.as<std::int32_t>()[n] = static_cast<std::int32_t>(n * v.vit_tokens());
  for (std::int64_t n = 0; n < images; ++n)
    acts.lengths.as<std::int32_t>()[n] = static_cast<std::int32_t>(v.vit_tokens());
  const Tensor cu_seqlens = acts.cu_seqlens.slice(0, images + 1), lengths = acts.lengths.slice(0, images);
  for (const VitLayerWeights& layer : w.layers) vit_layer(ctx, v, layer, acts, x, cu_seqlens, lengths);
  if (v.final_layernorm) ops::layer_norm(ctx, x, w.post_norm, w.post_norm_bias, v.layer_norm_eps, x);

  const Tensor rows = prepend_pool_token(v, w, images, acts, x);
  ops::layer_norm(ctx, rows, w.norm, w.norm_bias, kAdapterNormEps, rows);
  ops::linear(ctx, rows, w.proj, w.proj_bias, out);
  if (ctx.trace) ctx.trace("vision_embeds", out.view({images, v.tokens(), model.config.hidden_size}));
}

}  // namespace gov
