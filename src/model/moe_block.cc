#include <fmt/format.h>

#include "model/training.h"

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

// ---- training ----

namespace {

// normed = norm(mid), and the router's results for it.
void route(Context& ctx, const Model& model, const MoeWeights& w, const TrainingBatch& batch, const LayerActivations& a,
           const Tensor& normed) {
  const std::int64_t rows = batch.rows();
  ops::rms_norm(ctx, a.mid.slice(0, rows), w.norm, model.config.rms_norm_eps, normed);
  ops::router(ctx, normed, w.router, w.router_bias, w.vision_bias, w.vision_bias ? batch.modality : Tensor(),
              a.logits.slice(0, rows), a.indices.slice(0, rows), a.weights.slice(0, rows));
}

Tensor first_pairs(const LayerActivations& a, std::int64_t rows) {
  return a.h ? a.h.slice(0, rows * a.indices.shape[1]) : Tensor();
}

}  // namespace

void moe_block(Context& ctx, const Model& model, std::int64_t layer, const TrainingBatch& batch,
               TrainingActivations& acts, const Tensor& out) {
  const Config& c = model.config;
  const MoeWeights& w = model.weights.layers[static_cast<std::size_t>(layer)].moe;
  const LayerActivations& a = acts.layers[static_cast<std::size_t>(layer)];
  const std::int64_t rows = batch.rows(), experts = c.num_local_experts;
  const Tensor normed = acts.normed.slice(0, rows), logits = a.logits.slice(0, rows);
  const Tensor indices = a.indices.slice(0, rows), weights = a.weights.slice(0, rows);

  route(ctx, model, w, batch, a, normed);
  ops::router_load(ctx, logits, indices, batch.modality, acts.counts.slice(layer, 1).view({2, experts}),
                   acts.probabilities.slice(layer, 1).view({2, experts}), acts.z.slice(layer, 1).view({1}));
  copy_tensor(ctx, a.mid.slice(0, rows), out);
  ops::moe_forward(ctx, normed, indices, weights, w.gate_up, w.down, c.swiglu_alpha, c.swiglu_limit, out,
                   first_pairs(a, rows));
}

void moe_block_backward(Context& ctx, const Model& model, std::int64_t layer, const TrainingBatch& batch,
                        TrainingActivations& acts, const Tensor& slopes, float z_slope, bool accumulate,
                        const MoeWeights& g) {
  const Config& c = model.config;
  const MoeWeights& w = model.weights.layers[static_cast<std::size_t>(layer)].moe;
  const LayerActivations& a = acts.layers[static_cast<std::size_t>(layer)];
  const std::int64_t rows = batch.rows();
  const Tensor mid = a.mid.slice(0, rows), normed = acts.normed.slice(0, rows), logits = a.logits.slice(0, rows);
  const Tensor indices = a.indices.slice(0, rows), weights = a.weights.slice(0, rows);
  const Tensor dx = acts.dx.slice(0, rows), dnormed = acts.dnormed.slice(0, rows);
  const Tensor dweights = acts.dweights.slice(0, rows);

  if (acts.recompute == Recompute::kBlock) route(ctx, model, w, batch, a, normed);
  else ops::rms_norm(ctx, mid, w.norm, c.rms_norm_eps, normed);
  ops::moe_backward(ctx, normed, indices, weights, w.gate_up, w.down, c.swiglu_alpha, c.swiglu_limit,
                    first_pairs(a, rows), dx, dnormed, dweights, {g.gate_up.weight, g.gate_up.bias, accumulate},
                    {g.down.weight, g.down.bias, accumulate});
  ops::router_backward(ctx, normed, w.router, w.vision_bias ? batch.modality : Tensor(), logits, indices, weights,
                       dweights, slopes, z_slope,
                       {acts.dlogits.slice(0, rows), dnormed, g.router, g.router_bias, g.vision_bias});
  ops::rms_norm_backward(ctx, mid, w.norm, c.rms_norm_eps, dnormed, dx, g.norm);
}

}  // namespace gov
