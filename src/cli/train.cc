// gpt-oss-vision train: a model from a training file.

#include <csignal>

#include "base/json_writer.h"
#include "cli/common.h"
#include "cli/format.h"
#include "ops/device_limits.h"
#include "train/trainer.h"

namespace gov::cli {
namespace {

using namespace gov::train;

constexpr const char* kExamples =
    "Examples:\n"
    "  gpt-oss-vision train run.toml --dry-run                     plan, memory and time\n"
    "  gpt-oss-vision train run.toml\n"
    "  gpt-oss-vision train run.toml --resume                      after an interruption\n"
    "  gpt-oss-vision train run.toml --set optimizer.lr=3e-4 --set run.steps=2000 --set data.source.0.path=my.jsonl\n"
    "  gpt-oss-vision train run.toml --print-config > all_keys.toml\n"
    "  gpt-oss-vision generate --model checkpoints/step-00002000/model --prompt \"What is this?\"\n"
    "\n"
    "SIGINT, SIGTERM and SIGUSR1 finish the step, save a checkpoint and end with status 0; a second SIGINT ends at "
    "once.";

struct TrainCommandOptions {
  CommonOptions common;
  std::string file;
  std::vector<std::string> overrides;
  bool resume = false, dry_run = false, print_config = false;
};

// What stops a job on a cluster is heard as the interrupt from the keyboard is.
void hear_termination() {
  struct sigaction action {};
  sigaction(SIGINT, nullptr, &action);
  for (const int signal : {SIGTERM, SIGUSR1}) sigaction(signal, &action, nullptr);
}

std::string duration(double seconds) {
  if (seconds < 120) return fmt::format("{:.0f} s", seconds);
  if (seconds < 7200) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

// The state of a run: a bar on a terminal, lines in a file, JSON for programs.
class TrainOutput {
 public:
  TrainOutput(const CommonOptions& o, std::int64_t first, std::int64_t total)
      : json_(o.json),
        bar_(!o.json && !o.quiet && stderr_is_terminal()),
        quiet_(o.quiet),
        first_(first),
        total_(total) {}
  ~TrainOutput() { clear(); }
  TrainOutput(const TrainOutput&) = delete;
  TrainOutput& operator=(const TrainOutput&) = delete;

  void record(const StepReport& report, std::span<const Metric> metrics) {
    if (json_) {
      JsonWriter json;
      json.begin_object().field("step", report.step).field("steps", total_);
      for (const Metric& metric : metrics) json.field(metric.name, metric.value);
      put(json.end_object().take() + "\n");
      return;
    }
    const double done = static_cast<double>(report.step - first_), left = static_cast<double>(total_ - report.step);
    const std::string text =
        progress_text(report.step, total_, metrics) + "  " + duration(timer_.seconds() / done * left) + " left";
    if (bar_) {
      constexpr std::int64_t kWidth = 20;
      const auto filled = static_cast<std::size_t>(report.step * kWidth / total_);
      fmt::print(stderr, "\r[{}{}] {}\033[K", std::string(filled, '#'), std::string(kWidth - filled, ' '), text);
      visible_ = true;
    } else if (!quiet_ && (shown_ < 0 || timer_.seconds() - shown_ > kSecondsBetweenLines || report.step == total_)) {
      put(text + "\n");
      shown_ = timer_.seconds();
    }
  }

  void evaluation(std::int64_t step, const EvalReport& report) {
    clear();
    if (json_) {
      JsonWriter json;
      json.begin_object().field("step", step).field("eval/loss", report.loss).field("eval/seconds", report.seconds);
      put(json.end_object().take() + "\n");
    } else if (!quiet_) {
      put(fmt::format("step {}: evaluation loss {:.4f} ({:.1f} s)\n", step, report.loss, report.seconds));
    }
  }

  void clear() {
    if (visible_) std::fputs("\r\033[K", stderr);
    visible_ = false;
  }

 private:
  static constexpr double kSecondsBetweenLines = 10;
  bool json_, bar_, quiet_;
  std::int64_t first_, total_;
  Timer timer_;
  double shown_ = -1;
  bool visible_ = false;
};

struct TimeEstimate {
  double seconds = 0;
  double rows_per_step = 0, flops_per_second = 0;
};

void print_plan(const RunPlan& plan, const TimeEstimate& time, double limit, const CommonOptions& o) {
  const std::int64_t trained = plan.parameters.count(true), frozen = plan.parameters.count(false);
  if (o.json) {
    JsonWriter json;
    json.begin_object().field("trained", trained).field("frozen", frozen).field("steps", plan.steps);
    json.field("rows_per_step", time.rows_per_step).field("seconds", time.seconds);
    json.field("flops_per_second", time.flops_per_second).field("limit_flops_per_second", limit).key("memory");
    json.begin_object();
    for (const auto& [purpose, bytes] : plan.memory.rows) json.field(purpose, bytes);
    json.end_object().field("memory_total", plan.memory.total()).field("memory_free", plan.memory.limit);
    put(json.field("host_data", plan.memory.data).end_object().take() + "\n");
    return;
  }
  Table memory({"memory", "bytes"});
  const auto row = [&](const std::string& what, std::uint64_t bytes) {
    memory.add({what, human_bytes(static_cast<double>(bytes))});
  };
  for (const auto& [purpose, bytes] : plan.memory.rows) row(purpose, bytes);
  row("total", plan.memory.total());
  row("free", plan.memory.limit);
  put(fmt::format("parameters   {} trained, {} frozen\n", with_commas(trained), with_commas(frozen)));
  for (const Source& source : plan.sources) put(fmt::format("data         {}: {} samples\n", source.name, source.size));
  put(fmt::format("steps        {}, each {} x {} rows at most, {:.0f} measured\n", with_commas(plan.steps),
                  plan.config.run.accumulation, plan.config.data.tokens_per_batch, time.rows_per_step));
  put(fmt::format("time         {} ({:.3f} TFLOP/s, {:.0f} % of the device's measured {:.3f})\n\n",
                  duration(time.seconds), time.flops_per_second / 1e12, 100 * time.flops_per_second / limit,
                  limit / 1e12));
  put(memory.str());
}

double measure_limit(Context& ctx, ThreadPool& pool) {
  const ops::DeviceLimits limits =
      ctx.on_cuda() ? ops::measure_cuda_limits(ctx) : ops::measure_device_limits(pool, ctx.isa);
  return limits.fma_gflops * 1e9;
}

void print_end(const RunResult& result, const Trainer& trainer, const CommonOptions& o) {
  const std::string folder = trainer.plan().config.checkpoint.folder;
  if (o.json) {
    JsonWriter json;
    json.begin_object().field("done", result.steps == trainer.plan().steps).field("steps", result.steps);
    json.field("loss", result.loss).field("skipped", result.skipped).field("early", result.early);
    json.field("interrupted", result.stopped).field("bad_samples", result.data.bad).field("folder", folder);
    put(json.end_object().take() + "\n");
    return;
  }
  const Log log = make_log(o);
  for (const std::string& reason : result.data.reasons) log.warn("sample left out: {}", reason);
  if (o.quiet) return;
  const char* why = result.early ? "stopped early" : result.stopped ? "interrupted and saved" : "done";
  put(fmt::format("{}: {} steps, loss {:.4f}, in {}\n", why, result.steps, result.loss, folder));
}

int run_train(const Program& program, const TrainCommandOptions& o) {
  const TrainConfig config = load_train_config(o.file, o.overrides);
  if (o.print_config) {
    put(train_config_toml(config));
    return 0;
  }
  hear_termination();
  const Machine machine = choose_machine(o.common);
  ThreadPool pool(o.common.threads);
  Workplace place(machine, pool, choose_isa(o.common));
  const Log log = make_log(o.common);
  RunPlan plan = make_run_plan(config, machine.device, log);
  const double limit = measure_limit(place.ctx, pool);
  if (o.dry_run) {
    place.ctx.cancel = program.cancel;
    // The plan first where the run does not fit: it says why.
    if (plan.memory.total() > plan.memory.limit) print_plan(plan, {}, limit, o.common);
    Trainer trainer(place.ctx, plan, log);
    const Trainer::Measured one = trainer.measure();
    const auto batches = static_cast<double>(config.run.accumulation);
    print_plan(plan,
               {one.seconds * batches * static_cast<double>(plan.steps), static_cast<double>(one.rows) * batches,
                one.flops / one.seconds},
               limit, o.common);
    return 0;
  }
  Trainer trainer(place.ctx, std::move(plan), log);
  if (o.resume) trainer.resume();
  TrainOutput output(o.common, trainer.state().step, trainer.plan().steps);
  RunHooks hooks;
  hooks.stop = program.cancel;
  hooks.limit_flops = limit;
  hooks.on_record = [&](const StepReport& report, std::span<const Metric> metrics) { output.record(report, metrics); };
  hooks.on_eval = [&](std::int64_t step, const EvalReport& report) { output.evaluation(step, report); };
  const RunResult result = trainer.run(hooks);
  output.clear();
  print_end(result, trainer, o.common);
  return 0;
}

}  // namespace

void add_train(CLI::App& root, Program& program) {
  const auto o = std::make_shared<TrainCommandOptions>();
  CLI::App& app = *root.add_subcommand("train", "Train a model as a training file says (docs/training.md)");
  app.add_option("file", o->file, "Training file (TOML)")->required()->type_name("FILE");
  add_repeatable(app, "--set", o->overrides, "section.key=value instead of the file's, repeatable")
      ->type_name("KEY=VALUE");
  app.add_flag("--resume", o->resume, "Go on from the newest checkpoint of checkpoint.folder");
  app.add_flag("--dry-run", o->dry_run, "Print the plan: parameters, memory, steps and time; train nothing");
  app.add_flag("--print-config", o->print_config, "Print the training file with every key and its meaning");
  add_machine_options(app, o->common);
  add_output_options(app, o->common);
  app.footer(kExamples);
  app.callback([&program, o] { program.action = [&program, o] { return run_train(program, *o); }; });
}

}  // namespace gov::cli
