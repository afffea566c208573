// Trainer::run(): what happens between the steps: records, evaluations, checkpoints.

#include <algorithm>
#include <deque>

#include "train/export_model.h"
#include "train/trainer.h"

namespace gov::train {
namespace {

// The metrics of a record; texts of names that are made here stay valid as long as it.
struct Record {
  std::deque<std::string> names;
  std::vector<Metric> metrics;

  void add(std::string_view name, double value) { metrics.push_back({name, value}); }
  void add_made(std::string name, double value) { add(names.emplace_back(std::move(name)), value); }
};

void add_expert_use(Record& record, const RouterStatistics& routing, bool with_images) {
  for (const bool image : {false, true}) {
    if (image && !with_images) continue;
    for (std::int64_t layer = 0; layer < routing.layers; ++layer) {
      const ExpertUse use = expert_use(routing, layer, image);
      const std::string prefix = fmt::format("experts/{}/{}", image ? "image" : "text", layer);
      record.add_made(prefix + "/entropy", use.entropy);
      record.add_made(prefix + "/largest", use.largest);
    }
  }
}

// Packed experts lose nothing only where they were trained packed or not at all.
ExportForm export_form(const RunPlan& plan) {
  const bool trains_experts =
      std::any_of(plan.parameters.specs.begin(), plan.parameters.specs.end(), [&](const ParameterSpec& spec) {
        return spec.storage == Storage::kExpertMatrix && plan.parameters.trained.contains(spec.name);
      });
  if (plan.config.qat.kind == QatConfig::Kind::kMxfp4) return ExportForm::kMxfp4;
  if (plan.files.config.mxfp4_experts && !trains_experts) return ExportForm::kMxfp4;
  return plan.files.config.dtype == "float32" ? ExportForm::kF32 : ExportForm::kBf16;
}

}  // namespace

void Trainer::save() {
  if (saved_step_ == state_.step) return;
  std::optional<Model> start;
  if (!plan_.parameters.all_trained()) start = start_weights(plan_.config, plan_.files, *ctx_.pool, {});
  const auto values = std::make_shared<const ParameterSet>(model_->values(ctx_, start ? &*start : nullptr));
  store_.save(state_.step, tensors(), state_.json(),
              [values, files = plan_.files, form = export_form(plan_)](const std::filesystem::path& into) {
                export_model(into / "model", files.config, *values, form, {files.folder, files.tokenizer});
              });
  saved_step_ = state_.step;
}

void Trainer::record(const RunHooks& hooks, TrainLog& log, const StepReport& report) {
  window_seconds_ += report.seconds;
  window_flops_ += report.flops;
  window_rows_ += report.rows;
  window_samples_ += report.samples;
  if (report.step % plan_.config.log.every != 0 && report.step != plan_.steps && report.taken) return;
  Record record;
  record.add("loss", report.loss);
  if (plan_.config.losses.aux != LossConfig::Aux::kNone) record.add("aux_loss", report.balance);
  record.add("z_loss", report.z);
  record.add("lr", report.lr);
  record.add("grad_norm", report.grad_norm);
  record.add("tokens_per_second", static_cast<double>(window_rows_) / window_seconds_);
  record.add("samples_per_second", static_cast<double>(window_samples_) / window_seconds_);
  record.add("tflops", window_flops_ / window_seconds_ / 1e12);
  if (hooks.limit_flops > 0) record.add("mfu", window_flops_ / window_seconds_ / hooks.limit_flops);
  record.add("skipped_steps", static_cast<double>(state_.skipped));
  record.add("bad_samples", static_cast<double>(loader_->report().bad));
  add_expert_use(record, report.routing, plan_.files.config.use_vision);
  log.record(report.step, record.metrics);
  if (hooks.on_record) hooks.on_record(report, record.metrics);
  window_seconds_ = window_flops_ = 0;
  window_rows_ = window_samples_ = 0;
}

// Whether to stop early.
bool Trainer::evaluate_now(const RunHooks& hooks, TrainLog& log) {
  const EvalReport report = evaluate();
  eval_loss_ = report.loss;
  const Metric metrics[] = {{"eval/loss", report.loss}, {"eval/seconds", report.seconds}};
  log.record(state_.step, metrics);
  if (hooks.on_eval) hooks.on_eval(state_.step, report);
  if (!state_.best_eval || report.loss < *state_.best_eval - plan_.config.eval.min_delta) {
    state_.best_eval = report.loss;
    state_.stale_evals = 0;
  } else {
    ++state_.stale_evals;
  }
  const std::int64_t patience = plan_.config.eval.patience;
  return patience > 0 && state_.stale_evals >= patience;
}

// Whether to stop early.
bool Trainer::after_step(const RunHooks& hooks, TrainLog& log, const StepReport& report) {
  const TrainConfig& config = plan_.config;
  record(hooks, log, report);
  if (!report.taken)
    log_.warn("step {}: no update, the loss is {} and the gradient's norm {}", report.step, report.loss,
              report.grad_norm);
  const bool last = state_.step == plan_.steps;
  bool early = false;
  if (config.eval.every > 0 && (state_.step % config.eval.every == 0 || last)) early = evaluate_now(hooks, log);
  const bool due = config.checkpoint.every > 0 && state_.step % config.checkpoint.every == 0;
  if (due && state_.skipped_in_a_row == 0) save();
  return early;
}

RunResult Trainer::run(const RunHooks& hooks) {
  const TrainConfig& config = plan_.config;
  if (state_.step == 0 && store_.latest())
    fail(ErrorCode::kInvalidArgument, "'{}' holds checkpoints of another run: use --resume, or another folder",
         printable(config.checkpoint.folder));
  const std::string frozen = model_->frozen_hash(ctx_, *ctx_.pool);
  const std::string& folder = config.log.folder.empty() ? config.checkpoint.folder : config.log.folder;
  TrainLog log(folder, config.log, state_.step + 1, plan_.steps, "training");
  RunResult result;
  while (state_.step < plan_.steps && !result.stopped && !result.early) {
    const StepReport report = step();
    result.loss = report.loss;
    result.early = after_step(hooks, log, report);
    result.stopped = hooks.stop && hooks.stop->load();
  }
  if (model_->frozen_hash(ctx_, *ctx_.pool) != frozen) fail(ErrorCode::kCorrupt, "frozen weights changed");
  if (state_.skipped_in_a_row == 0) save();
  log.flush();
  store_.wait();
  result.steps = state_.step;
  result.skipped = state_.skipped;
  result.eval_loss = eval_loss_;
  if (loader_) result.data = loader_->report();
  return result;
}

}  // namespace gov::train
