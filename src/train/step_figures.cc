#include "train/step_figures.h"

#include <algorithm>
#include <cmath>

namespace gov::train {
namespace {

bool needs_images(const std::string& name) {
  return name.starts_with("model.vision_adapter.") || name.ends_with(".vision_bias");
}

bool is_exempt(const ParameterSpec& spec, const Config& config, const LossConfig& losses) {
  if (spec.name.starts_with("model.vision_adapter.vit.") && spec.name.ends_with(".key.bias")) return true;
  const bool router_has_loss = (losses.aux != LossConfig::Aux::kNone && losses.aux_coef > 0) || losses.z_coef > 0;
  return spec.part == Part::kRouter && config.num_experts_per_tok == 1 && !router_has_loss;
}

}  // namespace

double training_flops(const Config& config, const ParameterPlan& plan, std::int64_t rows, std::int64_t loss_rows,
                      std::int64_t images) {
  double flops = 0;
  for (const ParameterSpec& spec : plan.specs) {
    if (spec.part == Part::kEmbedding && !config.tie_word_embeddings) continue;  // a look-up
    auto met = static_cast<double>(spec.shape.elements());
    if (spec.part == Part::kExperts)
      met *= static_cast<double>(config.num_experts_per_tok) / static_cast<double>(config.num_local_experts);
    double by = static_cast<double>(rows);
    if (spec.part == Part::kHead || spec.part == Part::kEmbedding) by = static_cast<double>(loss_rows);
    if (spec.part == Part::kVision) by = static_cast<double>(images * config.vision.vit_tokens());
    flops += (plan.trained.contains(spec.name) ? 6 : 4) * met * by;
  }
  return flops;
}

ExpertUse expert_use(const RouterStatistics& s, std::int64_t layer, bool image) {
  const auto first = s.counts.begin() + (layer * 2 + (image ? 1 : 0)) * s.experts;
  double sum = 0, largest = 0, entropy = 0;
  for (auto it = first; it != first + s.experts; ++it) {
    sum += *it;
    largest = std::max(largest, *it);
  }
  for (auto it = first; it != first + s.experts; ++it)
    if (*it > 0) entropy -= *it / sum * std::log(*it / sum);
  const double most = std::log(static_cast<double>(s.experts));
  if (sum == 0) return {std::nan(""), std::nan("")};
  return {s.experts > 1 ? entropy / most : 1, largest / sum};
}

void add_statistics(RouterStatistics& to, const RouterStatistics& s) {
  if (to.counts.empty()) {
    to = s;
    return;
  }
  to.rows += s.rows;
  for (auto [sums, more] : {std::pair{&to.counts, &s.counts}, {&to.probabilities, &s.probabilities}, {&to.z, &s.z}})
    std::transform(sums->begin(), sums->end(), more->begin(), sums->begin(), std::plus<>());
}

GradientGate::GradientGate(const ParameterSet& gradients, const LossConfig& losses) {
  for (const ParameterSet::Entry& entry : gradients.entries()) {
    if (!is_exempt(entry.spec, gradients.config(), losses)) waiting_.insert(names_.size());
    names_.push_back(entry.spec.name);
  }
}

void GradientGate::check(const std::vector<double>& squares, bool with_images) {
  constexpr std::size_t kShown = 8;
  std::vector<std::string> without;
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (squares[*it] != 0) {
      it = waiting_.erase(it);
      continue;
    }
    if (with_images || !needs_images(names_[*it])) without.push_back(names_[*it]);
    ++it;
  }
  if (without.empty()) return;
  const std::size_t count = without.size();
  without.resize(std::min(count, kShown));
  fail(ErrorCode::kInvalidArgument, "{} trained tensors receive no gradient: {}{}; freeze them with a [[group]]", count,
       fmt::join(without, ", "), count > kShown ? ", ..." : "");
}

}  // namespace gov::train
