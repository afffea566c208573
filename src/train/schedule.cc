#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace gov::train {
namespace {

double part(double done, double all) { return all > 0 ? std::clamp(done / all, 0.0, 1.0) : 1.0; }

}  // namespace

double Schedule::lr(std::int64_t step) const {
  const auto s = static_cast<double>(step), warm = static_cast<double>(warmup), all = static_cast<double>(total);
  if (step < warmup) return peak * (s + 1) / warm;
  const double p = part(s - warm, all - warm);
  switch (kind) {
    case ScheduleKind::kConstant: return peak;
    case ScheduleKind::kLinear: return peak * (1 - (1 - minimum) * p);
    case ScheduleKind::kCosine: return peak * (minimum + (1 - minimum) * (1 + std::cos(std::numbers::pi * p)) / 2);
    case ScheduleKind::kWsd: break;
  }
  const double decay = std::round(decay_share * all);
  if (s < all - decay) return peak;
  return peak * (minimum + (1 - minimum) * (1 - std::sqrt(part(s - (all - decay), decay))));
}

}  // namespace gov::train
