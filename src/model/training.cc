#include "model/training.h"

#include "tensor/device.h"

namespace gov {
namespace {

// How far down the gradients have to go.
struct Depth {
  std::int64_t lowest_layer = 0;  // the layer count: none
  bool embedding = false;
  bool vision = false;   // anything of the adapter
  bool encoder = false;  // anything below its pool token
};

Depth depth_of(const Config& config, const ParameterSet& gradients) {
  Depth depth;
  depth.lowest_layer = config.num_hidden_layers;
  for (const ParameterSet::Entry& entry : gradients.entries()) {
    const ParameterSpec& spec = entry.spec;
    if (spec.part == Part::kEmbedding) depth.embedding = true;
    if (spec.part == Part::kVision) {
      depth.vision = true;
      depth.encoder = depth.encoder || spec.name.starts_with("model.vision_adapter.vit.");
    } else if (spec.layer >= 0) {
      depth.lowest_layer = std::min(depth.lowest_layer, spec.layer);
    }
  }
  if (depth.embedding || depth.vision) depth.lowest_layer = 0;
  return depth;
}

void check_sizes(const Config& config, const TrainingBatch& b, const TrainingActivations& a) {
  const auto within = [](std::int64_t count, std::int64_t planned, const char* what) {
    if (count > planned)
      fail(ErrorCode::kInvalidArgument, "a training batch has {} {}, planned for {}", count, what, planned);
  };
  within(b.rows(), a.sizes.rows, "rows");
  within(b.loss_rows.rows(), a.sizes.loss_rows, "rows that predict something");
  within(b.images(), a.sizes.images, "images");
  for (const ImageFill& fill : b.fills) within(fill.rows.rows(), a.sizes.image_rows, "image rows at a time");
  if (!b.fills.empty() && b.images() == 0) fail(ErrorCode::kInvalidArgument, "a training batch has image rows only");
  if (config.num_hidden_layers < 1) fail(ErrorCode::kUnsupported, "a model without layers cannot be trained");
}

void embed(Context& ctx, const Model& model, const TrainingBatch& b, TrainingActivations& a) {
  const Tensor x = a.layers[0].x.slice(0, b.rows());
  ops::embedding(ctx, model.weights.embed, b.tokens, x);
  if (b.images() > 0) encode_images(ctx, model, b.pixels, a.vision);
  for (const ImageFill& fill : b.fills) {
    const Tensor rows = a.image_rows.slice(0, fill.rows.rows());
    const std::int64_t encoded = b.images() * model.config.vision.tokens();
    ops::gather_rows(ctx, a.vision.embeds.slice(0, encoded), fill.sources, rows);
    ops::scatter_rows(ctx, rows, fill.rows, x);
  }
}

void embed_backward(Context& ctx, const Model& model, const TrainingBatch& b, TrainingActivations& a,
                    const Depth& depth, const Weights& g) {
  const Tensor dx = a.dx.slice(0, b.rows());
  if (depth.embedding) ops::embedding_backward(ctx, b.text_tokens, dx, g.embed);
  if (!depth.vision || b.images() == 0) return;
  const Tensor dembeds = a.vision.dembeds.slice(0, b.images() * model.config.vision.tokens());
  fill_bytes(dembeds.data, dembeds.device, 0, dembeds.bytes(), ctx.stream);
  for (const ImageFill& fill : b.fills) {
    const Tensor rows = a.image_rows.slice(0, fill.rows.rows());
    ops::gather_rows(ctx, dx, fill.rows, rows);
    ops::gather_rows_backward(ctx, fill.sources, rows, dembeds);
  }
  encode_images_backward(ctx, model, b.pixels, a.vision, depth.encoder, g.vision);
}

// Losses of the rows that predict something and, if wanted, acts.dx: the gradient of what leaves the layers.
void head(Context& ctx, const Model& model, const TrainingBatch& b, TrainingActivations& a, const Weights* g) {
  const std::int64_t wanted = b.loss_rows.rows();
  const Tensor dx = a.dx.slice(0, b.rows());
  if (g) fill_bytes(dx.data, dx.device, 0, dx.bytes(), ctx.stream);
  if (wanted == 0) return;
  const Weights& w = model.weights;
  const Tensor last = a.last.slice(0, wanted), normed = a.last_normed.slice(0, wanted);
  const Tensor dlast = g ? a.dlast.slice(0, wanted) : Tensor();
  ops::gather_rows(ctx, a.last_x.slice(0, b.rows()), b.loss_rows, last);
  ops::rms_norm(ctx, last, w.norm, model.config.rms_norm_eps, normed);
  ops::linear_cross_entropy(ctx, normed, w.lm_head, b.targets, b.row_weights, a.logits, a.losses.slice(0, wanted),
                            dlast, g ? g->lm_head : Tensor());
  if (!g) return;
  const Tensor dlast_x = a.dlast_x.slice(0, wanted);
  fill_bytes(dlast_x.data, dlast_x.device, 0, dlast_x.bytes(), ctx.stream);
  ops::rms_norm_backward(ctx, last, w.norm, model.config.rms_norm_eps, dlast, dlast_x, g->norm);
  ops::gather_rows_backward(ctx, b.loss_rows, dlast_x, dx);
}

std::vector<double> to_host(Context& ctx, const Tensor& t) {
  std::vector<float> values(static_cast<std::size_t>(t.elements()));
  copy_bytes(values.data(), DeviceKind::kCpu, t.data, t.device, t.bytes(), ctx.stream);
  if (ctx.on_cuda()) synchronize(ctx.stream);
  return {values.begin(), values.end()};
}

RouterStatistics read_statistics(Context& ctx, const Config& c, const TrainingBatch& b, const TrainingActivations& a) {
  RouterStatistics s{
      c.num_hidden_layers,    c.num_local_experts,           c.num_experts_per_tok, static_cast<double>(b.rows()),
      to_host(ctx, a.counts), to_host(ctx, a.probabilities), to_host(ctx, a.z)};
  return s;
}

// The slopes of the losses of the routers, where the backward reads them.
void write_slopes(Context& ctx, const RouterLosses& losses, double coefficient, const Tensor& slopes) {
  std::vector<float> values;
  for (const double slope : losses.slopes) values.push_back(static_cast<float>(coefficient * slope));
  copy_bytes(slopes.data, slopes.device, values.data(), DeviceKind::kCpu, slopes.bytes(), ctx.stream);
  if (ctx.on_cuda()) synchronize(ctx.stream);
}

void forward(Context& ctx, const Model& model, const TrainingBatch& b, TrainingActivations& a) {
  const std::int64_t rows = b.rows(), depth = model.config.num_hidden_layers;
  for (const Tensor* sums : {&a.counts, &a.probabilities, &a.z})
    fill_bytes(sums->data, sums->device, 0, sums->bytes(), ctx.stream);
  make_angles(ctx, model, b.positions, {a.cos, a.sin, a.nope_cos, a.nope_sin});
  embed(ctx, model, b, a);
  for (std::int64_t layer = 0; layer < depth; ++layer) {
    const Tensor& next = layer + 1 < depth ? a.layers[static_cast<std::size_t>(layer) + 1].x : a.last_x;
    attention_block(ctx, model, layer, b, a);
    moe_block(ctx, model, layer, b, a, next.slice(0, rows));
  }
}

// All but the experts' matrices, which moe_backward() overwrites.
void zero_others(Context& ctx, const ParameterSet& gradients) {
  for (const ParameterSet::Entry& entry : gradients.entries()) {
    const Tensor& t = entry.tensor;
    if (entry.spec.storage != Storage::kExpertMatrix) fill_bytes(t.data, t.device, 0, t.bytes(), ctx.stream);
  }
}

void backward(Context& ctx, const Model& model, const TrainingBatch& b, TrainingActivations& a, const LossOptions& o,
              double z_slope, const ParameterSet& gradients) {
  const bool balance = o.balance != Balance::kNone;
  const Depth depth = depth_of(model.config, gradients);
  for (std::int64_t layer = model.config.num_hidden_layers; layer-- > depth.lowest_layer;) {
    const LayerWeights& g = gradients.views().layers[static_cast<std::size_t>(layer)];
    if (a.recompute == Recompute::kBlock) attention_block(ctx, model, layer, b, a);
    const Tensor slopes = balance ? a.slopes.slice(layer, 1).view({model.config.num_local_experts}) : Tensor();
    moe_block_backward(ctx, model, layer, b, a, slopes, static_cast<float>(z_slope), o.accumulate, g.moe);
    attention_block_backward(ctx, model, layer, b, a, g.attention);
  }
  if (depth.lowest_layer == 0) embed_backward(ctx, model, b, a, depth, gradients.views());
}

}  // namespace

void copy_tensor(Context& ctx, const Tensor& from, const Tensor& to) {
  copy_bytes(to.data, to.device, from.data, from.device, from.bytes(), ctx.stream);
}

TrainingLosses loss_and_gradients(Context& ctx, const Model& model, const TrainingBatch& batch,
                                  const LossOptions& options, TrainingActivations& acts,
                                  const ParameterSet* gradients) {
  check_sizes(model.config, batch, acts);
  if (gradients && !options.accumulate) zero_others(ctx, *gradients);
  forward(ctx, model, batch, acts);
  head(ctx, model, batch, acts, gradients ? &gradients->views() : nullptr);
  TrainingLosses losses;
  losses.routing = read_statistics(ctx, model.config, batch, acts);
  if (options.reduce) options.reduce(losses.routing);
  const RouterLosses router = router_losses(losses.routing, options.balance);
  losses.balance = router.balance;
  losses.z = router.z;
  if (gradients) {
    write_slopes(ctx, router, options.balance_coefficient, acts.slopes);
    backward(ctx, model, batch, acts, options, options.z_coefficient * router.z_slope, *gradients);
  }
  if (batch.loss_rows.rows() == 0) return losses;
  const std::vector<double> each = to_host(ctx, acts.losses.slice(0, batch.loss_rows.rows())),
                            weights = to_host(ctx, batch.row_weights);
  for (std::size_t i = 0; i < each.size(); ++i) losses.cross_entropy += weights[i] * each[i];
  return losses;
}

}  // namespace gov
