#pragma once
// The losses that keep experts evenly loaded, from what router_load() counts.

#include <cstdint>
#include <vector>

namespace gov {

enum class Balance {
  kNone,
  kHf,      // transformers': pooled over layers before the product; K when balanced
  kSwitch,  // per layer, averaged over layers; 1 when balanced
};

// How the routers of all layers were used. Text and image rows apart.
struct RouterStatistics {
  std::int64_t layers = 0, experts = 0, per_token = 0;
  double rows = 0;                    // of the batch, in every layer
  std::vector<double> counts;         // [L, 2, E], rows that chose the expert; text first
  std::vector<double> probabilities;  // [L, 2, E], sums of softmax over all experts
  std::vector<double> z;              // [L], sums of logsumexp(logits)^2

  double count(std::int64_t layer, std::int64_t expert) const { return both(counts, layer, expert); }
  double probability(std::int64_t layer, std::int64_t expert) const { return both(probabilities, layer, expert); }

 private:
  double both(const std::vector<double>& sums, std::int64_t layer, std::int64_t expert) const {
    const auto at = static_cast<std::size_t>(layer * 2 * experts + expert);
    return sums[at] + sums[at + static_cast<std::size_t>(experts)];
  }
};

// Values before their coefficients, and their derivatives by the sums of probabilities.
struct RouterLosses {
  double balance = 0, z = 0;
  std::vector<double> slopes;  // [L, E] of balance
  double z_slope = 0;          // of z, by the sums in z
};
// hf:     E sum_e f_e P_e, f and P means over the rows of all layers (f: of the choices, sums to K).
// switch: E / K sum_e f_e P_e of each layer, averaged over layers.
// z:      mean over all rows and layers of logsumexp^2.
RouterLosses router_losses(const RouterStatistics& s, Balance balance);

}  // namespace gov
