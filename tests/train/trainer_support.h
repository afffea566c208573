#pragma once
// Short runs of the shapes model (data/shapes) for the tests of the trainer.

#include <cstring>

#include "base/thread_pool.h"
#include "tests/train/train_support.h"
#include "train/trainer.h"

namespace gov::train::test {

inline const std::filesystem::path kShapes = std::filesystem::path(GOV_SOURCE_DIR) / "tests/train/data/shapes";

// The shapes' training file with its checkpoints in `folder` and small batches.
inline TrainConfig shapes_config(const std::filesystem::path& folder, std::vector<std::string> overrides = {}) {
  std::vector<std::string> all = {"checkpoint.folder=" + folder.string(), "data.tokens_per_batch=256", "run.steps=6",
                                  "log.tensorboard=false", "eval.every=0"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  return load_train_config(kShapes / "train.toml", all);
}

struct TestRun {
  ThreadPool pool{2};
  Context ctx;
  std::unique_ptr<Trainer> trainer;

  explicit TestRun(const TrainConfig& config) {
    ctx.pool = &pool;
    trainer = std::make_unique<Trainer>(ctx, make_run_plan(config, DeviceKind::kCpu, {}), Log{});
  }
  Trainer& operator*() { return *trainer; }
  Trainer* operator->() { return trainer.get(); }
};

inline std::vector<float> values(const ParameterSet& set) {
  std::vector<float> all;
  for (const ParameterSet::Entry& entry : set.entries()) {
    const float* from = entry.tensor.as<float>();
    all.insert(all.end(), from, from + entry.tensor.elements());
  }
  return all;
}

inline const Tensor& tensor_of(const ParameterSet& set, std::string_view name) {
  for (const ParameterSet::Entry& entry : set.entries())
    if (entry.spec.name == name) return entry.tensor;
  throw std::runtime_error(std::string(name));
}

// Equal bit for bit.
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline double norm(const std::vector<float>& x) {
  double sum = 0;
  for (const float value : x) sum += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(sum);
}

}  // namespace gov::train::test
