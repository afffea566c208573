#pragma once
// Trainer: the steps of a run, with its evaluations, checkpoints and logs. One device.

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "model/training.h"
#include "train/checkpoint_store.h"
#include "train/run_plan.h"
#include "train/run_state.h"
#include "train/step_figures.h"
#include "train/train_log.h"

namespace gov::train {

struct StepReport {
  std::int64_t step = 0;         // of the run, from 1
  double loss = 0;               // cross-entropy, mean by weight over all micro-batches
  double balance = 0, z = 0;     // before their coefficients, means by rows over the micro-batches
  double lr = 0, grad_norm = 0;  // the norm before clipping
  bool taken = true;             // false: loss or norm were not finite
  std::int64_t rows = 0, samples = 0;
  double seconds = 0, flops = 0;  // training_flops()
  RouterStatistics routing;
};

struct EvalReport {
  double loss = 0;  // mean by weight
  std::int64_t rows = 0;
  double seconds = 0;
};

struct RunHooks {
  const std::atomic<bool>* stop = nullptr;  // when true: the step is finished, a checkpoint saved, run() returns
  std::function<void(const StepReport&, std::span<const Metric>)> on_record;  // every log.every steps
  std::function<void(std::int64_t step, const EvalReport&)> on_eval;
  double limit_flops = 0;  // a second, of the device; 0: unknown
};

struct RunResult {
  std::int64_t steps = 0, skipped = 0;
  double loss = 0;  // of the last step
  std::optional<double> eval_loss;
  bool stopped = false, early = false;  // by the hook, by eval.patience
  LoaderReport data;                    // since the start or the resume
};

class Trainer {
 public:
  // Error kOutOfMemory when plan.memory does not fit, and those of opening the model.
  Trainer(Context& ctx, RunPlan plan, const Log& log);

  // Goes on from the newest checkpoint that is whole. Error kNotFound: there is none.
  void resume();

  // One optimizer step. Error kInvalidArgument by the gates (GradientGate; a balance loss without effect), kCorrupt
  // when kMostSkipped steps in a row were not finite.
  StepReport step();
  static constexpr std::int64_t kMostSkipped = 10;
  // Over the evaluation sources from their beginning: all of them once, or eval.batches batches.
  EvalReport evaluate();
  // A checkpoint of now, with the model in Hugging Face form in its folder "model"; written in the background.
  void save();
  void wait() { store_.wait(); }

  // All steps that are left. Error kInvalidArgument: the folder has checkpoints of another run; kCorrupt: frozen
  // weights changed.
  RunResult run(const RunHooks& hooks);

  // Forward and backward of one micro-batch, without an update: seconds and rows of the faster of two passes. Takes a
  // batch: for plans, not between steps.
  struct Measured {
    double seconds = 0;
    std::int64_t rows = 0;
    double flops = 0;
  };
  Measured measure();

  const RunPlan& plan() const { return plan_; }
  const RunState& state() const { return state_; }
  const TrainedModel& model() const { return *model_; }

 private:
  LossOptions loss_options(double share) const;
  const TrainingBatch& place_batch(const PackedBatch& batch, double scale);
  PackedBatch next_batch();
  double batch_flops(const PackedBatch& batch) const;
  void check_gates(const std::vector<double>& squares, const StepReport& report, bool with_images);
  bool after_step(const RunHooks& hooks, TrainLog& log, const StepReport& report);
  bool evaluate_now(const RunHooks& hooks, TrainLog& log);
  void record(const RunHooks& hooks, TrainLog& log, const StepReport& report);
  std::vector<NamedTensor> tensors() const;

  Context& ctx_;
  RunPlan plan_;
  Log log_;
  Schedule schedule_;
  std::unique_ptr<TrainedModel> model_;
  std::unique_ptr<TrainingActivations> acts_;
  std::unique_ptr<GradientGate> gate_;
  std::unique_ptr<Loader> loader_;
  TrainingRows rows_;
  CheckpointStore store_;
  RunState state_;
  std::int64_t saved_step_ = -1;
  bool balance_checked_ = false;
  std::optional<double> eval_loss_;
  // Since the last record.
  double window_seconds_ = 0, window_flops_ = 0;
  std::int64_t window_rows_ = 0, window_samples_ = 0;
};

}  // namespace gov::train
