#pragma once
// Losses of a forward pass, from its logits.

#include <cstdint>
#include <span>
#include <vector>

#include "ops/ops.h"

namespace gov {

// Mean cross-entropy over the masked text targets of a batch (model.md section 9): with n image rows in front and T
// text tokens, logits row n-1+t predicts text token t; without images (n = 0) token 0 has no prediction and is skipped.
// logits F32 [B, n + T, V]; ids [B * T]; loss_mask [B * T] weights target t (empty = all ones).
double text_loss(Context& ctx, const Tensor& logits, std::span<const std::int64_t> ids,
                 std::span<const std::uint8_t> loss_mask, std::int64_t image_rows);

// Load-balancing loss, variant `hf` (Switch Transformer, arXiv 2101.03961, eq. 4, pooled over layers as transformers
// does): over all rows of all layers p = softmax(logits), m[k] = one-hot of the k-th choice; E * sum_k sum_e
// mean(m[k,e]) mean(p[e]). router_logits [layers * rows * E], row-major; equals K when perfectly balanced.
double load_balancing_loss(std::span<const float> router_logits, std::int64_t experts, std::int64_t experts_per_token);

}  // namespace gov
