#include "model/router_losses.h"

namespace gov {

RouterLosses router_losses(const RouterStatistics& s, Balance balance) {
  RouterLosses losses;
  const double all = s.rows * static_cast<double>(s.layers), experts = static_cast<double>(s.experts);
  losses.slopes.assign(static_cast<std::size_t>(s.layers * s.experts), 0.0);
  if (all == 0) return losses;
  for (const double z : s.z) losses.z += z / all;
  losses.z_slope = 1 / all;
  const auto slope = [&](std::int64_t layer, std::int64_t e) -> double& {
    return losses.slopes[static_cast<std::size_t>(layer * s.experts + e)];
  };
  if (balance == Balance::kHf) {
    for (std::int64_t e = 0; e < s.experts; ++e) {
      double chosen = 0, probability = 0;
      for (std::int64_t layer = 0; layer < s.layers; ++layer) {
        chosen += s.count(layer, e) / all;
        probability += s.probability(layer, e) / all;
      }
      losses.balance += experts * chosen * probability;
      for (std::int64_t layer = 0; layer < s.layers; ++layer) slope(layer, e) = experts * chosen / all;
    }
  }
  if (balance == Balance::kSwitch) {
    const double share = experts / static_cast<double>(s.per_token * s.layers) / s.rows / s.rows;
    for (std::int64_t layer = 0; layer < s.layers; ++layer)
      for (std::int64_t e = 0; e < s.experts; ++e) {
        slope(layer, e) = share * s.count(layer, e);
        losses.balance += slope(layer, e) * s.probability(layer, e);
      }
  }
  return losses;
}

}  // namespace gov
