#include "train/run_plan.h"

#include <algorithm>
#include <cmath>

#include "base/mxfp4.h"

namespace gov::train {
namespace {

constexpr std::int64_t kProbe = 1024;  // samples that are looked at to turn epochs into steps

void refuse_unsupported(const TrainConfig& c) {
  const auto refuse = [](bool given, const char* key) {
    if (given) fail(ErrorCode::kUnsupported, "{} is not supported yet", key);
  };
  refuse(c.lora.rank > 0, "lora.rank");
  refuse(c.optimizer.kind == OptimizerConfig::Kind::kAdamw8bit, "optimizer.kind adamw8bit");
  refuse(c.losses.bias_rate > 0, "losses.bias_rate");
  refuse(c.checkpoint.ema > 0, "checkpoint.ema");
}

void check_model(const TrainConfig& config, const Config& model) {
  if (config.qat.kind == QatConfig::Kind::kMxfp4 &&
      (model.hidden_size % kMxfp4Block != 0 || model.intermediate_size % kMxfp4Block != 0))
    fail(ErrorCode::kUnsupported, "qat.kind mxfp4: widths {} and {}, multiples of {} are needed", model.hidden_size,
         model.intermediate_size, kMxfp4Block);
  if (config.data.max_length > model.max_position_embeddings)
    fail(ErrorCode::kInvalidArgument, "data.max_length {} is above the model's {} positions", config.data.max_length,
         model.max_position_embeddings);
}

// Of so many epochs: how many batches the first samples fill, extended to all.
std::int64_t steps_of(const RunPlan& plan) {
  const RunConfig& run = plan.config.run;
  if (run.steps > 0) return run.steps;
  double all = 0;
  for (const Source& source : plan.sources) all += static_cast<double>(source.size);
  const double draws = std::ceil(run.epochs * all);
  LoaderOptions options = loader_options(plan.config.data, 0);
  options.end = static_cast<std::int64_t>(std::min(draws, static_cast<double>(kProbe)));
  const std::vector<SourceShape> shapes = shapes_of(plan.sources);
  Loader loader(plan.sources, plan.rules, options, first_state(shapes, static_cast<std::uint64_t>(run.seed), 1));
  std::int64_t batches = 0;
  while (loader.next()) ++batches;
  const double share = draws / static_cast<double>(options.end);
  const double steps = std::ceil(static_cast<double>(batches) * share / static_cast<double>(run.accumulation));
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(steps));
}

}  // namespace

RunPlan make_run_plan(const TrainConfig& config, DeviceKind device, const Log& log) {
  refuse_unsupported(config);
  RunPlan plan;
  plan.config = config;
  plan.files = start_files(config, log);
  check_model(config, plan.files.config);
  plan.parameters = plan_parameters(config, plan.files.config);
  const bool bf16_activations = config.run.precision == RunConfig::Precision::kBf16;
  if (bf16_activations && device == DeviceKind::kCpu) log.info("run.precision: activations are f32 on the CPU");
  plan.place = {device, bf16_activations && device != DeviceKind::kCpu ? DType::kBF16 : DType::kF32};
  plan.rules = rules_of(plan.files, config.data);
  const auto seed = static_cast<std::uint64_t>(config.run.seed);
  plan.sources = open_sources(config.data.sources, plan.rules, seed);
  if (config.eval.every > 0) plan.eval_sources = open_sources(config.eval.sources, plan.rules, seed);
  plan.memory = memory_table(config, plan.files, plan.parameters, plan.place);
  plan.steps = steps_of(plan);
  return plan;
}

}  // namespace gov::train
