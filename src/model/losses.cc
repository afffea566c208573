#include "model/losses.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace gov {

double text_loss(Context& ctx, const Tensor& logits, std::span<const std::int64_t> ids,
                 std::span<const std::uint8_t> loss_mask, std::int64_t image_rows) {
  const std::int64_t batch = logits.shape[0], rows = logits.shape[1], vocab = logits.shape[2], text = rows - image_rows;
  std::vector<std::int32_t> targets(static_cast<std::size_t>(batch * rows), -1);
  std::int64_t count = 0;
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t t = image_rows > 0 ? 0 : 1; t < text; ++t) {
      const auto at = static_cast<std::size_t>(b * text + t);
      if (!loss_mask.empty() && !loss_mask[at]) continue;
      targets[static_cast<std::size_t>(b * rows + image_rows - 1 + t)] = static_cast<std::int32_t>(ids[at]);
      ++count;
    }
  }
  std::vector<float> losses(targets.size());
  const Tensor out = Tensor::of(losses.data(), {batch * rows}, "losses");
  ops::cross_entropy(ctx, logits.view({batch * rows, vocab}), Tensor::of(targets.data(), {batch * rows}, "targets"),
                     out);
  return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(std::max<std::int64_t>(count, 1));
}

double load_balancing_loss(std::span<const float> router_logits, std::int64_t experts, std::int64_t experts_per_token) {
  const auto e = static_cast<std::size_t>(experts), k = static_cast<std::size_t>(experts_per_token);
  const std::size_t rows = router_logits.size() / e;
  std::vector<double> mean_p(e, 0.0), chosen(k * e, 0.0), p(e);
  std::vector<std::size_t> order(e);
  for (std::size_t r = 0; r < rows; ++r) {
    const float* row = router_logits.data() + r * e;
    const double largest = *std::max_element(row, row + e);
    double sum = 0;
    for (std::size_t i = 0; i < e; ++i) sum += p[i] = std::exp(row[i] - largest);
    for (std::size_t i = 0; i < e; ++i) mean_p[i] += p[i] / sum;
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k), order.end(),
                      [&](std::size_t a, std::size_t b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
    for (std::size_t i = 0; i < k; ++i) chosen[i * e + order[i]] += 1;
  }
  double loss = 0;
  for (std::size_t i = 0; i < k * e; ++i) loss += chosen[i] * mean_p[i % e];
  return static_cast<double>(experts) * loss / static_cast<double>(rows) / static_cast<double>(rows);
}

}  // namespace gov
