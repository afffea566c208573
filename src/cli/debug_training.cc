// gpt-oss-vision debug gradients and debug train-steps: the training passes on one batch, for comparing with other
// implementations.

#include <cmath>
#include <numeric>

#include "cli/debug.h"
#include "cli/debug_files.h"
#include "model/training.h"

namespace gov::cli {
namespace {

// All sequences of the inputs as one packed batch, every picture in front of its text.
struct PackedInputs {
  std::vector<std::int32_t> tokens, positions, cu_seqlens{0}, targets, image_rows, image_sources;
  std::vector<std::uint8_t> modality;
  std::vector<float> weights;
  double trained = 0;

  PackedInputs(const Config& c, const Inputs& in) {
    const std::int64_t image = in.pixels.empty() ? 0 : c.vision.tokens();
    for (std::int64_t b = 0; b < in.batch; ++b) {
      for (std::int64_t s = 0; s < image + in.text; ++s) {
        if (s < image) image_rows.push_back(static_cast<std::int32_t>(tokens.size()));
        tokens.push_back(s < image ? 0 : id(in, b, s - image));
        positions.push_back(static_cast<std::int32_t>(s));
        modality.push_back(s < image ? 1 : 0);
        const std::int64_t next = s + 1 - image;  // the text token that this row predicts
        const bool trains = next >= 0 && next < in.text &&
                            (in.loss_mask.empty() || in.loss_mask[static_cast<std::size_t>(b * in.text + next)] != 0);
        targets.push_back(trains ? id(in, b, next) : -1);
        weights.push_back(trains ? 1.f : 0.f);
        trained += trains ? 1 : 0;
      }
      cu_seqlens.push_back(static_cast<std::int32_t>(tokens.size()));
    }
    image_sources.resize(image_rows.size());
    std::iota(image_sources.begin(), image_sources.end(), 0);
  }

  PackedRows view(const Inputs& in) const {
    PackedRows rows{tokens, positions, modality, cu_seqlens, targets, weights, {}, {in.pixels}};
    if (!image_rows.empty()) rows.fills.push_back({image_rows, image_sources});
    return rows;
  }

 private:
  static std::int32_t id(const Inputs& in, std::int64_t b, std::int64_t t) {
    return static_cast<std::int32_t>(in.ids[static_cast<std::size_t>(b * in.text + t)]);
  }
};

Recompute recompute_of(const std::string& name) {
  if (name == "moe") return Recompute::kMoe;
  return name == "block" ? Recompute::kBlock : Recompute::kNone;
}

// What both commands work with.
struct TrainingSession {
  Machine machine;
  ThreadPool pool;
  Model model;
  Inputs in;
  Workplace place;
  TrainingRows rows;
  std::unique_ptr<TrainingActivations> acts;
  LossOptions losses;

  TrainingSession(const Program& program, const DebugTrainingOptions& o)
      : machine(choose_machine(o.common)),
        pool(o.common.threads),
        model(load_model(resolve_model(o.common.model, program), pool, make_log(o.common))),
        in(read_inputs(o.inputs, model.config)),
        place(machine, pool, choose_isa(o.common)) {
    const Config& c = model.config;
    place.ctx.cancel = program.cancel;
    const PackedInputs packed(c, in);
    if (packed.trained == 0) fail(ErrorCode::kInvalidArgument, "loss_mask leaves nothing to predict");
    const TrainingBatch& batch = rows.set(place.ctx, c, packed.view(in), 1 / packed.trained);
    const TrainingSizes sizes{batch.rows(), batch.loss_rows.rows(), batch.images(),
                              static_cast<std::int64_t>(packed.image_rows.size())};
    const DType dtype = engine_options(o.common, machine).dtype;
    acts = std::make_unique<TrainingActivations>(c, sizes, recompute_of(o.recompute), Place{machine.device, dtype});
    losses.accumulate = false;
    losses.balance = Balance::kHf;
    losses.balance_coefficient = o.aux_coefficient < 0 ? c.router_aux_loss_coef : o.aux_coefficient;
  }
};

void copy_all(Context& ctx, const ParameterSet& from, const ParameterSet& to) {
  for (std::size_t i = 0; i < from.entries().size(); ++i)
    copy_tensor(ctx, from.entries()[i].tensor, to.entries()[i].tensor);
  if (ctx.on_cuda()) synchronize(ctx.stream);
}

void put_number(Results& results, const std::string& name, double value) {
  const auto narrow = static_cast<float>(value);
  put_result<float>(results, name, Shape{1}, std::span(&narrow, 1));
}

// The root of the sum of squares of all gradients.
double norm_of(Context& ctx, const ParameterSet& gradients) {
  const Buffer memory(sizeof(double), ctx.device, "gradient norm");
  const Tensor sum(memory.data(), DType::kF64, {1}, "sum", ctx.device);
  fill_bytes(sum.data, ctx.device, 0, sizeof(double), ctx.stream);
  for (const ParameterSet::Entry& entry : gradients.entries()) ops::add_squares(ctx, entry.tensor, sum);
  double squares = 0;
  copy_bytes(&squares, DeviceKind::kCpu, sum.data, ctx.device, sizeof(double), ctx.stream);
  if (ctx.on_cuda()) synchronize(ctx.stream);
  return std::sqrt(squares);
}

}  // namespace

int run_debug_gradients(const Program& program, const DebugTrainingOptions& o) {
  TrainingSession s(program, o);
  Context& ctx = s.place.ctx;
  const EngineOptions options = engine_options(o.common, s.machine);
  const Model model = place_model(std::move(s.model), o.common, options, s.machine, s.pool);
  const ParameterSet gradients(model.config, ctx.device, "gradients");
  const TrainingLosses losses = loss_and_gradients(ctx, model, s.rows.batch(), s.losses, *s.acts, &gradients);
  Results results;
  put_number(results, "loss", losses.cross_entropy);
  put_number(results, "aux_loss", losses.balance);
  const ParameterSet host(model.config, DeviceKind::kCpu, "gradients");
  copy_all(ctx, gradients, host);
  for_each_stored(host, [&](const ParameterSpec& spec, std::span<const float> values) {
    put_result<float>(results, "grad." + spec.name, spec.shape, values);
  });
  write_results(o.output, results);
  return 0;
}

int run_debug_train_steps(const Program& program, const DebugTrainingOptions& o) {
  TrainingSession s(program, o);
  Context& ctx = s.place.ctx;
  const Config& c = s.model.config;
  ParameterSet masters(c, ctx.device, "weights"), gradients(c, ctx.device, "gradients");
  const ParameterSet first(c, ctx.device, "first moments"), second(c, ctx.device, "second moments");
  {
    const ParameterSet host(c, DeviceKind::kCpu, "weights");
    read_parameters(c, s.model.weights, host);
    copy_all(ctx, host, masters);
  }
  Weights weights;
  use_parameters(masters, weights);
  const Model model = make_model(masters.config(), std::move(weights), ctx.device, ctx.ordinal);
  std::vector<float> losses, norms;
  for (std::int64_t step = 1; step <= o.steps; ++step) {
    const TrainingLosses now = loss_and_gradients(ctx, model, s.rows.batch(), s.losses, *s.acts, &gradients);
    const double norm = norm_of(ctx, gradients), scale = std::fmin(1, o.clip / (norm + 1e-6));
    losses.push_back(static_cast<float>(now.cross_entropy));
    losses.push_back(static_cast<float>(now.balance));
    norms.push_back(static_cast<float>(norm));
    const auto narrow = [](double x) { return static_cast<float>(x); };
    const ops::AdamwArgs args{
        narrow(o.lr), narrow(o.beta1), narrow(o.beta2), narrow(o.eps), narrow(o.decay), narrow(scale), step};
    for (std::size_t i = 0; i < masters.entries().size(); ++i)
      ops::adamw(ctx, args, gradients.entries()[i].tensor, masters.entries()[i].tensor, first.entries()[i].tensor,
                 second.entries()[i].tensor, {});
  }
  Results results;
  put_result<float>(results, "train.losses", Shape{o.steps, 2}, losses);
  put_result<float>(results, "train.grad_norms", Shape{o.steps}, norms);
  write_results(o.output, results);
  return 0;
}

}  // namespace gov::cli
