#pragma once
// TrainConfig: everything that a training run can be told, read from one TOML file and from overrides. Defaults are the
// values here; config_fields.h names every key once, with its range and what it means.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "train/schedule.h"

namespace gov::train {

struct ModelConfig {
  std::string base;       // checkpoint folder to start from
  std::string config;     // config.json of a model that starts from random weights
  std::string tokenizer;  // file or folder; empty: beside the base or the config
};

// How nano's data (nano_source.h) becomes questions.
struct NanoConfig {
  enum class Layout { kSeparate, kTurns };
  std::string split = "train";
  std::int64_t questions = 4;
  Layout layout = Layout::kSeparate;
  double compositions = 0.25;
  double chats = 0.08;
  double glosses = 0.07;
  double languages = 0.3;
  bool augment = true;
};

struct SourceConfig {
  enum class Kind { kChat, kLlava, kText, kShard, kNano };
  Kind kind = Kind::kChat;
  std::string path;
  double weight = 0;
  std::string image_root;
  std::int64_t limit = 0;
  NanoConfig nano;
};

enum class OnLong { kTruncate, kSkip };
enum class OnBad { kSkip, kFail };
enum class TrainOn { kAssistant, kAll };
enum class ImagePosition { kAuto, kPrefix, kInline };
enum class DataFormat { kAuto, kPlain, kHarmony };

struct DataConfig {
  std::int64_t tokens_per_batch = 8192;
  std::int64_t max_length = 4096;
  OnLong on_long = OnLong::kTruncate;
  OnBad on_bad = OnBad::kSkip;
  TrainOn train_on = TrainOn::kAssistant;
  DataFormat chat_format = DataFormat::kAuto;
  ImagePosition image_position = ImagePosition::kAuto;
  std::string reasoning = "medium";
  std::string date;
  std::int64_t workers = 0;
  std::int64_t prefetch = 0;
  std::vector<SourceConfig> sources;
};

struct RunConfig {
  enum class Precision { kF32, kBf16 };
  enum class Recompute { kNone, kMoe, kBlock };
  std::int64_t steps = 0;
  double epochs = 0;
  std::int64_t accumulation = 1;
  std::int64_t seed = 0;
  Precision precision = Precision::kBf16;
  Recompute recompute = Recompute::kNone;
  bool nan_guard = true;
};

struct OptimizerConfig {
  enum class Kind { kAdamw, kAdamw8bit };
  Kind kind = Kind::kAdamw;
  double lr = 1e-4;
  double beta1 = 0.9, beta2 = 0.95;
  double eps = 1e-8;
  double decay = 0.01;
  double clip = 1.0;
};

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::kCosine;
  std::int64_t warmup = 0;
  double warmup_share = 0.03;
  double minimum = 0.1;
  double decay_share = 0.2;
};

struct LossConfig {
  enum class Aux { kNone, kHf, kSwitch };
  Aux aux = Aux::kSwitch;
  double aux_coef = 1e-3;
  double z_coef = 0;
  double bias_rate = 0;
};

// Parameters whose name matches one of the patterns ('*' any text, '?' one character). Later groups win.
struct GroupConfig {
  std::vector<std::string> match;
  double lr = 1;      // multiplier
  double decay = -1;  // -1: as without this group
  bool frozen = false;
};

struct EvalConfig {
  std::int64_t every = 0;
  std::int64_t batches = 0;
  std::int64_t patience = 0;
  double min_delta = 0;
  std::vector<SourceConfig> sources;
};

struct CheckpointConfig {
  std::string folder = "checkpoints";
  std::int64_t every = 500;
  std::int64_t keep = 3;
  double ema = 0;
};

struct LogConfig {
  std::string folder;
  std::int64_t every = 1;
  bool jsonl = true;
  bool tensorboard = true;
  bool plot = true;
};

struct LoraConfig {
  std::int64_t rank = 0;
  double alpha = 16;
  bool dora = false;
  std::vector<std::string> targets = {"*.self_attn.*_proj.weight", "*.mlp.router.weight", "*.mlp.experts.*"};
};

struct QatConfig {
  enum class Kind { kNone, kMxfp4 };
  Kind kind = Kind::kNone;
  double start = 0.6;
};

struct TrainConfig {
  ModelConfig model;
  DataConfig data;
  RunConfig run;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  LossConfig losses;
  EvalConfig eval;
  CheckpointConfig checkpoint;
  LogConfig log;
  LoraConfig lora;
  QatConfig qat;
  std::vector<GroupConfig> groups;

  Schedule schedule_for(std::int64_t total_steps) const;
};

// `overrides` are "section.key=value" with a TOML value (a bare word is a text); an element of a list by its number,
// "data.source.0.path=x". Error kInvalidArgument in one line with the file's name and the line: bad TOML, an unknown
// key, a wrong type, a value outside of its range, settings that contradict each other.
TrainConfig parse_train_config(std::string_view toml, std::span<const std::string> overrides = {},
                               std::string_view file_name = "train.toml");
// Relative paths in the file are relative to its folder.
TrainConfig load_train_config(const std::filesystem::path& file, std::span<const std::string> overrides = {});
// As TOML with every key, its value and its meaning; reads back equal.
std::string train_config_toml(const TrainConfig& config);

}  // namespace gov::train
