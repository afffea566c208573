#include "model/activations.h"

#include <vector>

#include "tensor/device.h"

namespace gov {
namespace {

void plan(const Config& c, std::int64_t rows, std::int64_t logits_rows, const Place& place, Activations& a,
          Arena& arena) {
  const auto f32 = [&](Tensor* out, const char* name, Shape shape) { arena.plan(out, name, DType::kF32, shape); };
  const auto act = [&](Tensor* out, const char* name, Shape shape) { arena.plan(out, name, place.dtype, shape); };
  f32(&a.x, "x", {rows, c.hidden_size});
  act(&a.normed, "normed", {rows, c.hidden_size});
  if (place.device != DeviceKind::kCpu) act(&a.qkv, "qkv", {rows, c.q_size() + 2 * c.kv_size()});
  act(&a.q, "q", {rows, c.q_size()});
  act(&a.k, "k", {rows, c.kv_size()});
  act(&a.v, "v", {rows, c.kv_size()});
  act(&a.attended, "attended", {rows, c.q_size()});
  f32(&a.cos, "cos", {rows, c.head_dim / 2});
  f32(&a.sin, "sin", {rows, c.head_dim / 2});
  if (c.use_nope && c.nope_attention_scaling) {
    f32(&a.nope_cos, "nope_cos", {rows, c.head_dim / 2});
    f32(&a.nope_sin, "nope_sin", {rows, c.head_dim / 2});
  }
  f32(&a.router_logits, "router_logits", {rows, c.num_local_experts});
  arena.plan(&a.router_indices, "router_indices", DType::kI32, {c.num_hidden_layers, rows, c.num_experts_per_tok});
  f32(&a.router_weights, "router_weights", {rows, c.num_experts_per_tok});
  f32(&a.last, "last", {logits_rows, c.hidden_size});
  act(&a.last_normed, "last_normed", {logits_rows, c.hidden_size});
  f32(&a.logits, "logits", {logits_rows, c.vocab_size});
}

void plan(const Config& c, std::int64_t images, const Place& place, VisionActivations& a, Arena& arena) {
  const VisionConfig& v = c.vision;
  const std::int64_t d = v.embed_dim, rows = images * v.vit_tokens(), pooled_rows = images * v.tokens();
  const auto f32 = [&](Tensor* out, const char* name, Shape shape) { arena.plan(out, name, DType::kF32, shape); };
  const auto act = [&](Tensor* out, const char* name, Shape shape) { arena.plan(out, name, place.dtype, shape); };
  const auto i32 = [&](Tensor* out, const char* name, std::int64_t n) { arena.plan(out, name, DType::kI32, {n}); };
  f32(&a.patches, "patches", {images, v.patches(), d});
  f32(&a.x, "vit x", {rows, d});
  act(&a.normed, "vit normed", {pooled_rows, d});
  act(&a.q, "vit q", {rows, d});
  act(&a.k, "vit k", {rows, d});
  act(&a.v, "vit v", {rows, d});
  act(&a.attended, "vit attended", {rows, d});
  act(&a.mlp, "vit mlp", {rows, v.intermediate_size});
  f32(&a.pooled, "pooled", {pooled_rows, d});
  i32(&a.cu_seqlens, "vit cu_seqlens", images + 1);
  i32(&a.lengths, "vit lengths", images);
}

// Element i of `out` becomes value(i).
template <class Value>
void write(const Tensor& out, Value&& value) {
  std::vector<std::int32_t> values;
  for (std::int64_t i = 0; i < out.elements(); ++i) values.push_back(static_cast<std::int32_t>(value(i)));
  copy_bytes(out.data, out.device, values.data(), DeviceKind::kCpu, out.bytes(), nullptr);
  if (out.device != DeviceKind::kCpu) synchronize(nullptr);
}

}  // namespace

Activations::Activations(const Config& config, std::int64_t rows, std::int64_t logits_rows, const Place& place)
    : max_rows(rows), max_logits_rows(logits_rows) {
  plan(config, rows, logits_rows, place, *this, arena);
  arena.commit(place.device, "activations");
}

std::uint64_t Activations::bytes(const Config& config, std::int64_t rows, std::int64_t logits_rows,
                                 const Place& place) {
  Activations unallocated;
  plan(config, rows, logits_rows, place, unallocated, unallocated.arena);
  return unallocated.arena.planned_bytes();
}

VisionActivations::VisionActivations(const Config& config, std::int64_t images, const Place& place)
    : max_images(images) {
  plan(config, images, place, *this, arena);
  arena.commit(place.device, "image activations");
  const std::int64_t rows = config.vision.vit_tokens();
  write(cu_seqlens, [&](std::int64_t i) { return i * rows; });
  write(lengths, [&](std::int64_t) { return rows; });
}

std::uint64_t VisionActivations::bytes(const Config& config, std::int64_t images, const Place& place) {
  VisionActivations unallocated;
  plan(config, images, place, unallocated, unallocated.arena);
  return unallocated.arena.planned_bytes();
}

}  // namespace gov
