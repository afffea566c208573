#include <fmt/format.h>

#include "model/transformer.h"

namespace gov {

// x += sum over the chosen experts of weight * expert(n), n = norm(x); image rows add vision_bias to the router's
// logits.
void moe_block(Context& ctx, const Model& model, std::int64_t layer, const Batch& batch, Activations& acts) {
  const Config& c = model.config;
  const MoeWeights& w = model.weights.layers[static_cast<std::size_t>(layer)].moe;
  const std::int64_t rows = batch.tokens.rows();
  const Tensor x = acts.x.slice(0, rows), normed = acts.normed.slice(0, rows);
  const Tensor logits = acts.router_logits.slice(0, rows), indices = acts.indices_of(layer, rows);
  const Tensor weights = acts.router_weights.slice(0, rows);

  ops::rms_norm(ctx, x, w.norm, c.rms_norm_eps, normed);
  ops::router(ctx, normed, w.router, w.router_bias, w.vision_bias, w.vision_bias ? batch.modality : Tensor(), logits,
              indices, weights);
  ops::moe(ctx, normed, indices, weights, w.gate_up, w.down, c.swiglu_alpha, c.swiglu_limit, x);

  if (!ctx.trace) return;
  ctx.emit(fmt::format("router_logits.{}", layer), logits);
  ctx.emit(fmt::format("router_indices.{}", layer), indices);
  ctx.emit(fmt::format("router_weights.{}", layer), weights);
}

}  // namespace gov
