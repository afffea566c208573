#pragma once
// TrainedModel: a model whose trainable parameters have a master in F32, a gradient and two moments. Frozen parameters
// stay as they were read and have none of these.

#include <set>

#include "model/parameter_set.h"
#include "train/groups.h"
#include "train/start_model.h"

namespace gov::train {

// The parameters of a dense model of this configuration and what becomes of them.
struct ParameterPlan {
  std::vector<ParameterSpec> specs;  // of the dense form
  std::vector<ParameterRule> rules;  // of each
  std::set<std::string> trained;     // names

  bool all_trained() const { return trained.size() == specs.size(); }
  ParameterSet::Wanted wanted() const;
  std::int64_t count(bool trained_ones) const;  // values
};
// Error of parameter_rules().
ParameterPlan plan_parameters(const TrainConfig& config, const Config& model);

class TrainedModel {
 public:
  // start: in the host's memory. Weights to compute with are BF16 copies of the masters where `precision` and the
  // device say so, else the masters themselves.
  TrainedModel(Context& ctx, Model start, const ParameterPlan& plan, const RunConfig& run, ThreadPool& pool);
  TrainedModel(const TrainedModel&) = delete;
  TrainedModel& operator=(const TrainedModel&) = delete;

  const Model& model() const { return model_; }
  const std::vector<ParameterRule>& rules() const { return rules_; }  // of each entry of the sets, in order
  const ParameterSet& masters() const { return masters_; }
  const ParameterSet& gradients() const { return gradients_; }
  const ParameterSet& first_moments() const { return first_; }
  const ParameterSet& second_moments() const { return second_; }

  // Squared norms of all gradients, in the order of the sets.
  std::vector<double> squared_gradients(Context& ctx) const;
  // One AdamW step of every tensor: lr times its rule's multiplier, gradients times `scale`; t counts from 1.
  void update(Context& ctx, const OptimizerConfig& optimizer, double lr, double scale, std::int64_t t);
  // After masters were written from outside: what is computed with follows.
  void masters_changed(Context& ctx);

  // From now on trained experts are computed with in MXFP4, rounded after every update; their gradients go to the
  // masters unchanged (straight-through). Error kUnsupported: a width that is no multiple of 32.
  void pack_experts(Context& ctx);
  bool packs_experts() const { return !packed_.empty(); }

  // All weights in F32 in the host's memory; those that are frozen are read from `start`, null where none is.
  ParameterSet values(Context& ctx, const Model* start) const;
  // SHA-256 of the frozen tensors, in hexadecimal; "" if there are none.
  std::string frozen_hash(Context& ctx, ThreadPool& pool) const;

 private:
  struct PackedExperts {
    Tensor master;  // [E, out, in]
    Buffer blocks_memory, scales_memory;
    Tensor blocks, scales;
    ops::ExpertProjection* place;  // in model_
  };
  void pack(Context& ctx);

  std::vector<ParameterRule> rules_;
  std::set<std::string> trained_;
  ParameterSet masters_, gradients_, first_, second_;
  std::unique_ptr<ParameterSet> copies_;  // BF16, or null
  Buffer sums_;                           // F64, a square of each gradient
  Model model_;
  std::vector<PackedExperts> packed_;
};

}  // namespace gov::train
