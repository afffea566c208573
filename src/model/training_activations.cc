#include "model/training_activations.h"

#include <vector>

#include "tensor/device.h"

namespace gov {
namespace {

// Plans tensors by type.
struct Planner {
  Arena& arena;
  DType act_type;
  void f32(Tensor& out, const char* name, Shape shape) const { arena.plan(&out, name, DType::kF32, shape); }
  void act(Tensor& out, const char* name, Shape shape) const { arena.plan(&out, name, act_type, shape); }
  void i32(Tensor& out, const char* name, Shape shape) const { arena.plan(&out, name, DType::kI32, shape); }
};

void plan_layer(const Planner& p, const Config& c, std::int64_t rows, bool keep_h, LayerActivations& a) {
  p.act(a.q, "q", {rows, c.q_size()});
  p.act(a.k, "k", {rows, c.kv_size()});
  p.act(a.v, "v", {rows, c.kv_size()});
  p.act(a.attended, "attended", {rows, c.q_size()});
  p.f32(a.lse, "lse", {rows, c.num_attention_heads});
  p.f32(a.mid, "mid", {rows, c.hidden_size});
  p.f32(a.logits, "router_logits", {rows, c.num_local_experts});
  p.i32(a.indices, "router_indices", {rows, c.num_experts_per_tok});
  p.f32(a.weights, "router_weights", {rows, c.num_experts_per_tok});
  if (keep_h) p.act(a.h, "experts h", {rows * c.num_experts_per_tok, 2 * c.intermediate_size});
}

void plan_vit_layer(const Planner& p, const VisionConfig& v, std::int64_t rows, VitLayerActivations& a) {
  const std::int64_t d = v.embed_dim;
  p.f32(a.x, "vit x", {rows, d});
  for (Tensor* t : {&a.q, &a.k, &a.v, &a.attended}) p.act(*t, "vit attention", {rows, d});
  p.f32(a.lse, "vit lse", {rows, v.num_heads});
  p.f32(a.mid, "vit mid", {rows, d});
  p.act(a.mlp, "vit mlp", {rows, v.intermediate_size});
}

void write(const Tensor& out, const std::vector<std::int32_t>& values) {
  copy_bytes(out.data, out.device, values.data(), DeviceKind::kCpu, out.bytes(), nullptr);
  if (out.device != DeviceKind::kCpu) synchronize(nullptr);
}

}  // namespace

void TrainingActivations::plan(const Config& c, const Place& place) {
  const Planner p{arena, place.dtype};
  const std::int64_t rows = sizes.rows, h = c.hidden_size, e = c.num_local_experts, depth = c.num_hidden_layers;
  const bool own = recompute != Recompute::kBlock;
  layers.resize(static_cast<std::size_t>(depth));
  for (std::size_t i = 0; i < layers.size(); ++i) {
    p.f32(layers[i].x, "x", {rows, h});
    if (own || i == 0) plan_layer(p, c, rows, recompute == Recompute::kNone, layers[i]);
  }
  p.f32(last_x, "x", {rows, h});
  p.f32(cos, "cos", {rows, c.head_dim / 2});
  p.f32(sin, "sin", {rows, c.head_dim / 2});
  if (c.use_nope && c.nope_attention_scaling) {
    p.f32(nope_cos, "nope_cos", {rows, c.head_dim / 2});
    p.f32(nope_sin, "nope_sin", {rows, c.head_dim / 2});
  }
  p.act(normed, "normed", {rows, h});
  p.f32(last, "last", {sizes.loss_rows, h});
  p.act(last_normed, "last_normed", {sizes.loss_rows, h});
  p.f32(logits, "logits", {sizes.logits_rows, c.vocab_size});
  p.f32(losses, "losses", {sizes.loss_rows});
  p.f32(counts, "router counts", {depth, 2, e});
  p.f32(probabilities, "router probabilities", {depth, 2, e});
  p.f32(z, "router z", {depth, 1});
  p.f32(slopes, "router slopes", {depth, e});
  p.f32(dx, "dx", {rows, h});
  p.f32(dnormed, "dnormed", {rows, h});
  p.act(dq, "dq", {rows, c.q_size()});
  p.act(dk, "dk", {rows, c.kv_size()});
  p.act(dv, "dv", {rows, c.kv_size()});
  p.act(dattended, "dattended", {rows, c.q_size()});
  p.f32(dweights, "router dweights", {rows, c.num_experts_per_tok});
  p.f32(dlogits, "router dlogits", {rows, e});
  p.act(dlast, "dlast", {sizes.loss_rows, h});
  p.f32(dlast_x, "dlast_x", {sizes.loss_rows, h});
  if (sizes.images > 0) plan_vision(c, place);
}

void TrainingActivations::plan_vision(const Config& c, const Place& place) {
  const Planner p{arena, place.dtype};
  const VisionConfig& v = c.vision;
  const std::int64_t n = sizes.images, d = v.embed_dim, rows = n * v.vit_tokens(), all = n * v.tokens();
  p.f32(image_rows, "image rows", {sizes.image_rows, c.hidden_size});
  VisionTraining& a = vision;
  p.f32(a.patches, "patches", {n, v.patches(), d});
  if (v.pre_layernorm) p.f32(a.embedded, "vit embedded", {rows, d});
  a.layers.resize(static_cast<std::size_t>(v.num_layers));
  for (VitLayerActivations& layer : a.layers) plan_vit_layer(p, v, rows, layer);
  p.f32(a.last, "vit last", {rows, d});
  p.f32(a.pooled, "pooled", {all, d});
  p.f32(a.embeds, "vision_embeds", {all, c.hidden_size});
  p.i32(a.cu_seqlens, "vit cu_seqlens", {n + 1});
  p.i32(a.lengths, "vit lengths", {n});
  p.act(a.normed, "vit normed", {all, d});
  p.act(a.gelu, "vit gelu", {rows, v.intermediate_size});
  p.f32(a.dembeds, "dvision_embeds", {all, c.hidden_size});
  p.f32(a.dpooled, "dpooled", {all, d});
  p.f32(a.dnormed, "vit dnormed", {all, d});
  p.f32(a.dx, "vit dx", {rows, d});
  p.f32(a.dx_before, "vit dx", {rows, d});
  for (Tensor* t : {&a.dq, &a.dk, &a.dv, &a.dattended}) p.act(*t, "vit dattention", {rows, d});
  p.act(a.dmlp, "vit dmlp", {rows, v.intermediate_size});
}

TrainingActivations::TrainingActivations(const Config& config, const TrainingSizes& most, Recompute policy,
                                         const Place& place)
    : recompute(policy), sizes(most) {
  plan(config, place);
  arena.commit(place.device, "training activations");
  if (recompute == Recompute::kBlock) {
    for (std::size_t i = 1; i < layers.size(); ++i) {
      const Tensor x = layers[i].x;
      layers[i] = layers[0];
      layers[i].x = x;
    }
  }
  if (sizes.images == 0) return;
  const auto rows = static_cast<std::int32_t>(config.vision.vit_tokens());
  std::vector<std::int32_t> starts(static_cast<std::size_t>(sizes.images) + 1);
  for (std::size_t i = 0; i < starts.size(); ++i) starts[i] = static_cast<std::int32_t>(i) * rows;
  write(vision.cu_seqlens, starts);
  write(vision.lengths, std::vector<std::int32_t>(static_cast<std::size_t>(sizes.images), rows));
}

std::uint64_t TrainingActivations::bytes(const Config& config, const TrainingSizes& sizes, Recompute recompute,
                                         const Place& place) {
  TrainingActivations unallocated;
  unallocated.sizes = sizes;
  unallocated.recompute = recompute;
  unallocated.plan(config, place);
  return unallocated.arena.planned_bytes();
}

}  // namespace gov
