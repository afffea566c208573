#include "train/trainer.h"

#include <algorithm>
#include <cmath>

#include "tensor/device.h"

namespace gov::train {
namespace {

Balance balance_of(const LossConfig& losses) {
  if (losses.aux_coef == 0 || losses.aux == LossConfig::Aux::kNone) return Balance::kNone;
  return losses.aux == LossConfig::Aux::kHf ? Balance::kHf : Balance::kSwitch;
}

PackedRows view(const PackedBatch& b) {
  PackedRows rows{b.tokens, b.positions, b.modality, b.cu_seqlens, b.targets, b.row_weights, {}, {}};
  for (const SharedPixels& image : b.images) rows.pixels.emplace_back(*image);
  for (const ImageCopy& copy : b.image_copies) rows.fills.push_back({copy.rows, copy.sources});
  return rows;
}

}  // namespace

Trainer::Trainer(Context& ctx, RunPlan plan, const Log& log)
    : ctx_(ctx),
      plan_(std::move(plan)),
      log_(log),
      schedule_(plan_.config.schedule_for(plan_.steps)),
      store_(plan_.config.checkpoint.folder, plan_.config.checkpoint.keep) {
  require_fits(plan_.memory);
  const TrainConfig& config = plan_.config;
  model_ = std::make_unique<TrainedModel>(ctx, start_weights(config, plan_.files, *ctx.pool, log), plan_.parameters,
                                          config.run, *ctx.pool);
  acts_ = std::make_unique<TrainingActivations>(model_->model().config,
                                                training_sizes(plan_.files.config, config.data, plan_.place),
                                                recompute_of(config.run.recompute), plan_.place);
  gate_ = std::make_unique<GradientGate>(model_->gradients(), config.losses);
  state_.data = first_state(shapes_of(plan_.sources), static_cast<std::uint64_t>(config.run.seed), 1);
}

std::vector<NamedTensor> Trainer::tensors() const {
  std::vector<NamedTensor> all;
  for (const auto& [prefix, set] : {std::pair{"weight.", &model_->masters()},
                                    {"first_moment.", &model_->first_moments()},
                                    {"second_moment.", &model_->second_moments()}})
    for (const ParameterSet::Entry& entry : set->entries()) all.push_back({prefix + entry.spec.name, entry.tensor});
  return all;
}

void Trainer::resume() {
  const auto found = store_.latest_verified(log_);
  if (!found) fail(ErrorCode::kNotFound, "--resume: no checkpoint in '{}'", printable(plan_.config.checkpoint.folder));
  state_ = RunState::from_json(store_.state(*found));
  if (state_.step != found->step)
    fail(ErrorCode::kCorrupt, "{}: its state is of step {}", path_text(found->folder), state_.step);
  store_.load(*found, tensors());
  store_.discard_after(found->step);
  model_->masters_changed(ctx_);
  saved_step_ = found->step;
  loader_.reset();
}

PackedBatch Trainer::next_batch() {
  if (!loader_)
    loader_ = std::make_unique<Loader>(plan_.sources, plan_.rules, loader_options(plan_.config.data, 0), state_.data);
  std::optional<PackedBatch> batch = loader_->next();
  GOV_DCHECK(batch);  // the sequence of draws has no end
  return std::move(*batch);
}

const TrainingBatch& Trainer::place_batch(const PackedBatch& batch, double scale) {
  return rows_.set(ctx_, model_->model().config, view(batch), scale);
}

double Trainer::batch_flops(const PackedBatch& batch) const {
  return training_flops(plan_.files.config, plan_.parameters, batch.rows(), batch.trained,
                        static_cast<std::int64_t>(batch.images.size()));
}

// The losses of the routers are means over rows, so a micro-batch counts by its share of the step's.
LossOptions Trainer::loss_options(double share) const {
  const LossConfig& c = plan_.config.losses;
  LossOptions options;
  options.balance = balance_of(c);
  options.balance_coefficient = c.aux_coef * share;
  options.z_coefficient = c.z_coef * share;
  return options;
}

void Trainer::check_gates(const std::vector<double>& squares, const StepReport& report, bool with_images) {
  if (!gate_->done()) gate_->check(squares, with_images);
  const Balance balance = balance_of(plan_.config.losses);
  if (balance_checked_ || balance == Balance::kNone) return;
  const std::vector<double> slopes = router_losses(report.routing, balance).slopes;
  if (std::all_of(slopes.begin(), slopes.end(), [](double slope) { return slope == 0; }))
    fail(ErrorCode::kInvalidArgument, "losses.aux_coef is {}, but the loss has no gradient",
         plan_.config.losses.aux_coef);
  balance_checked_ = true;
}

StepReport Trainer::step() {
  const Timer timer;
  const TrainConfig& config = plan_.config;
  const QatConfig& qat = config.qat;
  if (qat.kind == QatConfig::Kind::kMxfp4 && static_cast<double>(state_.step) >= qat.start * double(plan_.steps))
    model_->pack_experts(ctx_);
  StepReport report;
  report.step = state_.step + 1;
  report.lr = schedule_.lr(state_.step);
  std::vector<PackedBatch> batches;
  double weight_sum = 0;
  for (std::int64_t i = 0; i < config.run.accumulation; ++i) {
    batches.push_back(next_batch());
    weight_sum += batches.back().weight_sum;
    report.rows += batches.back().rows();
    report.samples += batches.back().documents();
  }
  std::int64_t images = 0;
  for (const PackedBatch& batch : batches) {
    const double share = static_cast<double>(batch.rows()) / static_cast<double>(report.rows);
    LossOptions options = loss_options(share);
    options.accumulate = &batch != &batches.front();
    const TrainingLosses now = loss_and_gradients(ctx_, model_->model(), place_batch(batch, 1 / weight_sum), options,
                                                  *acts_, &model_->gradients());
    report.loss += now.cross_entropy;
    report.balance += now.balance * share;
    report.z += now.z * share;
    add_statistics(report.routing, now.routing);
    report.flops += batch_flops(batch);
    images += static_cast<std::int64_t>(batch.images.size());
  }
  const std::vector<double> squares = model_->squared_gradients(ctx_);
  double sum = 0;
  for (const double square : squares) sum += square;
  report.grad_norm = std::sqrt(sum);
  const bool finite = std::isfinite(report.loss + report.balance + report.z) && std::isfinite(report.grad_norm);
  report.taken = finite || !config.run.nan_guard;
  if (report.taken) {
    if (finite) check_gates(squares, report, images > 0);
    const double scale =
        config.optimizer.clip > 0 ? std::fmin(1, config.optimizer.clip / (report.grad_norm + 1e-6)) : 1;
    model_->update(ctx_, config.optimizer, report.lr, scale, ++state_.updates);
    if (ctx_.on_cuda()) synchronize(ctx_.stream);
  } else {
    ++state_.skipped;
  }
  state_.skipped_in_a_row = report.taken ? 0 : state_.skipped_in_a_row + 1;
  ++state_.step;
  state_.rows += report.rows;
  state_.samples += report.samples;
  state_.data = loader_->state();
  report.seconds = timer.seconds();
  state_.seconds += report.seconds;
  if (state_.skipped_in_a_row >= kMostSkipped) {
    store_.wait();  // what is good stays
    fail(ErrorCode::kCorrupt, "{} steps in a row, up to step {}, had a loss or a gradient that is not finite",
         kMostSkipped, state_.step);
  }
  return report;
}

EvalReport Trainer::evaluate() {
  const Timer timer;
  const TrainConfig& config = plan_.config;
  LoaderOptions options = loader_options(config.data, 0);
  const std::vector<SourceShape> shapes = shapes_of(plan_.eval_sources);
  options.end = 0;
  for (const SourceShape& shape : shapes) options.end += shape.size;
  Loader loader(plan_.eval_sources, plan_.rules, options,
                first_state(shapes, static_cast<std::uint64_t>(config.run.seed), 1));
  EvalReport report;
  double weights = 0;
  for (std::int64_t i = 0; config.eval.batches == 0 || i < config.eval.batches; ++i) {
    const std::optional<PackedBatch> batch = loader.next();
    if (!batch) break;
    report.loss += loss_and_gradients(ctx_, model_->model(), place_batch(*batch, 1), {}, *acts_, nullptr).cross_entropy;
    weights += batch->weight_sum;
    report.rows += batch->rows();
  }
  if (weights == 0) fail(ErrorCode::kInvalidArgument, "eval.source: nothing to predict");
  report.loss /= weights;
  report.seconds = timer.seconds();
  return report;
}

Trainer::Measured Trainer::measure() {
  const PackedBatch batch = next_batch();
  Measured best;
  best.rows = batch.rows();
  best.flops = batch_flops(batch);
  for (int pass = 0; pass < 2; ++pass) {
    const Timer timer;
    loss_and_gradients(ctx_, model_->model(), place_batch(batch, 1 / batch.weight_sum), loss_options(1), *acts_,
                       &model_->gradients());
    if (ctx_.on_cuda()) synchronize(ctx_.stream);
    best.seconds = pass == 0 ? timer.seconds() : std::min(best.seconds, timer.seconds());
  }
  return best;
}

}  // namespace gov::train
