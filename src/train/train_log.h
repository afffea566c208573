#pragma once
// What a run writes about itself: metrics.jsonl, an event file for TensorBoard, loss.svg; and its progress line.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/timer.h"
#include "train/config.h"
#include "train/loss_plot.h"
#include "train/tensorboard.h"

namespace gov::train {

struct Metric {
  std::string_view name;  // "loss", "lr", "grad_norm", "eval/loss"
  double value;
};

class TrainLog {
 public:
  // Makes the folder. A run that goes on at `first_step` continues metrics.jsonl: later records of a run that was cut
  // off are dropped, and the curves start with what is there. Errors kIo.
  TrainLog(const std::filesystem::path& folder, const LogConfig& config, std::int64_t first_step,
           std::int64_t total_steps, std::string title);
  ~TrainLog();
  TrainLog(const TrainLog&) = delete;
  TrainLog& operator=(const TrainLog&) = delete;

  // One line {"step": .., "time": .., name: value, ...}; a value that is not finite is null. "loss" and "eval/loss" are
  // also drawn. The plot is written every few seconds, and whenever eval/loss comes.
  void record(std::int64_t step, std::span<const Metric> metrics);
  // Everything reaches its file.
  void flush();

 private:
  void continue_metrics(std::int64_t first_step);
  void draw();

  std::filesystem::path folder_;
  LogConfig config_;
  std::int64_t total_steps_;
  std::string title_;
  FileDescriptor metrics_;
  std::uint64_t metrics_bytes_ = 0;
  std::optional<EventFile> events_;
  Curve loss_, eval_loss_;
  Timer since_draw_, since_flush_;
};

// "step 120/3742  loss 1.234  lr 1.2e-03  norm 0.87  12.3 K tok/s": for a progress bar.
std::string progress_text(std::int64_t step, std::int64_t total_steps, std::span<const Metric> metrics);

}  // namespace gov::train
