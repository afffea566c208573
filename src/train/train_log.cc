#include "train/train_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>

#include "base/json.h"
#include "io/mapped_file.h"

namespace gov::train {
namespace {

constexpr double kDrawSeconds = 5, kFlushSeconds = 2;
constexpr std::uint64_t kMaxMetricsBytes = std::uint64_t{1} << 32;
constexpr const char* kLoss = "loss";
constexpr const char* kEvalLoss = "eval/loss";

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail(ErrorCode::kIo, "cannot make {}: {}", path_text(folder), error.message());
}

}  // namespace

TrainLog::TrainLog(const std::filesystem::path& folder, const LogConfig& config, std::int64_t first_step,
                   std::int64_t total_steps, std::string title)
    : folder_(folder), config_(config), total_steps_(total_steps), title_(std::move(title)) {
  make_folder(folder);
  if (config.jsonl) continue_metrics(first_step);
  if (config.tensorboard) events_.emplace(folder, wall_time());
}

TrainLog::~TrainLog() {
  try {
    flush();
  } catch (const Error&) {  // a full disk at the end of a run: the records before stay
  }
}

// Keeps the records of steps before first_step; a last line that was cut off by a crash goes, too.
void TrainLog::continue_metrics(std::int64_t first_step) {
  const std::filesystem::path path = folder_ / "metrics.jsonl";
  std::string kept;
  if (std::filesystem::exists(path)) {
    const std::string old = read_text_file(path, kMaxMetricsBytes);
    for (std::size_t begin = 0, end; (end = old.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const std::string_view line = std::string_view(old).substr(begin, end - begin);
      Json record;
      try {
        record = Json::parse(line);
      } catch (const Error&) {
        continue;
      }
      const Json* step = record.find("step");
      if (!step || !step->is_integer() || step->integer() >= first_step) continue;
      kept.append(line).append("\n");
      for (auto& [name, curve] : {std::pair{kLoss, &loss_}, std::pair{kEvalLoss, &eval_loss_}})
        if (const Json* value = record.find(name); value && value->is_number())
          curve->add(step->integer(), value->number());
    }
  }
  write_file_atomic(path, std::as_bytes(std::span(kept)));
  metrics_bytes_ = kept.size();
  metrics_ = FileDescriptor(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!metrics_) fail_errno("open", path, errno);
}

void TrainLog::record(std::int64_t step, std::span<const Metric> metrics) {
  const double now = wall_time();
  JsonWriter json;
  json.begin_object().field("step", step).field("time", std::round(now * 1000) / 1000);
  bool evaluated = false;
  for (const Metric& metric : metrics) {
    json.field(metric.name, metric.value);
    if (events_) events_->add(now, step, metric.name, static_cast<float>(metric.value));
    if (metric.name == kLoss) loss_.add(step, metric.value);
    if (metric.name == kEvalLoss) eval_loss_.add(step, metric.value);
    evaluated = evaluated || metric.name == kEvalLoss;
  }
  const std::string line = json.end_object().take() + "\n";
  if (metrics_) write_exactly(metrics_, metrics_bytes_, std::as_bytes(std::span(line)), folder_ / "metrics.jsonl");
  metrics_bytes_ += line.size();
  if (events_ && since_flush_.seconds() > kFlushSeconds) {
    events_->flush();
    since_flush_ = Timer();
  }
  if (evaluated || since_draw_.seconds() > kDrawSeconds) draw();
}

void TrainLog::draw() {
  since_draw_ = Timer();
  if (!config_.plot) return;
  const std::string svg = plot_svg(title_, total_steps_, {{"loss", &loss_, true}, {"evaluation", &eval_loss_}});
  write_file_atomic(folder_ / "loss.svg", std::as_bytes(std::span(svg)));
}

void TrainLog::flush() {
  if (events_) events_->flush();
  draw();
}

std::string progress_text(std::int64_t step, std::int64_t total_steps, std::span<const Metric> metrics) {
  std::string out = fmt::format("step {}/{}", step, total_steps);
  for (const Metric& metric : metrics) {
    if (metric.name == "loss") out += fmt::format("  loss {:.4f}", metric.value);
    if (metric.name == "lr") out += fmt::format("  lr {:.2e}", metric.value);
    if (metric.name == "grad_norm") out += fmt::format("  norm {:.2f}", metric.value);
    if (metric.name == "tokens_per_second") out += fmt::format("  {:.1f} K tok/s", metric.value / 1000);
    if (metric.name == "mfu") out += fmt::format("  MFU {:.0f} %", metric.value * 100);
  }
  return out;
}

}  // namespace gov::train
