#include "model/activations.h"

namespace gov {
namespace {

void plan(const Config& c, std::int64_t rows, std::int64_t logits_rows, Activations& a, Arena& arena) {
  const auto f32 = [&](Tensor* out, const char* name, Shape shape) { arena.plan(out, name, DType::kF32, shape); };
  f32(&a.x, "x", {rows, c.hidden_size});
  f32(&a.normed, "normed", {rows, c.hidden_size});
  f32(&a.q, "q", {rows, c.q_size()});
  f32(&a.k, "k", {rows, c.kv_size()});
  f32(&a.v, "v", {rows, c.kv_size()});
  f32(&a.attended, "attended", {rows, c.q_size()});
  f32(&a.cos, "cos", {rows, c.head_dim / 2});
  f32(&a.sin, "sin", {rows, c.head_dim / 2});
  if (c.use_nope && c.nope_attention_scaling) {
    f32(&a.nope_cos, "nope_cos", {rows, c.head_dim / 2});
    f32(&a.nope_sin, "nope_sin", {rows, c.head_dim / 2});
  }
  f32(&a.router_logits, "router_logits", {rows, c.num_local_experts});
  arena.plan(&a.router_indices, "router_indices", DType::kI32, {rows, c.num_experts_per_tok});
  f32(&a.router_weights, "router_weights", {rows, c.num_experts_per_tok});
  f32(&a.last, "last", {logits_rows, c.hidden_size});
  f32(&a.logits, "logits", {logits_rows, c.vocab_size});
}

void plan(const Config& c, std::int64_t images, VisionActivations& a, Arena& arena) {
  const VisionConfig& v = c.vision;
  const std::int64_t d = v.embed_dim, rows = images * v.vit_tokens();
  const auto f32 = [&](Tensor* out, const char* name, Shape shape) { arena.plan(out, name, DType::kF32, shape); };
  f32(&a.patches, "patches", {images, v.patches(), d});
  f32(&a.x, "vit x", {rows, d});
  f32(&a.normed, "vit normed", {rows, d});
  f32(&a.q, "vit q", {rows, d});
  f32(&a.k, "vit k", {rows, d});
  f32(&a.v, "vit v", {rows, d});
  f32(&a.attended, "vit attended", {rows, d});
  f32(&a.mlp, "vit mlp", {rows, v.intermediate_size});
  f32(&a.pooled, "pooled", {images * v.tokens(), d});
  arena.plan(&a.cu_seqlens, "vit cu_seqlens", DType::kI32, {images + 1});
  arena.plan(&a.lengths, "vit lengths", DType::kI32, {images});
}

}  // namespace

Activations::Activations(const Config& config, std::int64_t rows, std::int64_t logits_rows)
    : max_rows(rows), max_logits_rows(logits_rows) {
  plan(config, rows, logits_rows, *this, arena);
  arena.commit(DeviceKind::kCpu, "activations");
}

std::uint64_t Activations::bytes(const Config& config, std::int64_t rows, std::int64_t logits_rows) {
  Activations unallocated;
  plan(config, rows, logits_rows, unallocated, unallocated.arena);
  return unallocated.arena.planned_bytes();
}

VisionActivations::VisionActivations(const Config& config, std::int64_t images) : max_images(images) {
  plan(config, images, *this, arena);
  arena.commit(DeviceKind::kCpu, "image activations");
}

std::uint64_t VisionActivations::bytes(const Config& config, std::int64_t images) {
  VisionActivations unallocated;
  plan(config, images, unallocated, unallocated.arena);
  return unallocated.arena.planned_bytes();
}

}  // namespace gov
