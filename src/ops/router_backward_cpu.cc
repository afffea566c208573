#include <cmath>
#include <limits>

#include "ops/ops_list.h"
#include "ops/product_cpu.h"

namespace gov::ops::cpu {
namespace {

// p = softmax(logits) over all experts; returns ln of the sum of their exponentials.
double softmax_row(const float* logits, std::int64_t experts, float* p) {
  float largest = -std::numeric_limits<float>::infinity();
  for (std::int64_t e = 0; e < experts; ++e) largest = std::fmax(largest, logits[e]);
  double sum = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    p[e] = std::exp(logits[e] - largest);
    sum += static_cast<double>(p[e]);
  }
  for (std::int64_t e = 0; e < experts; ++e) p[e] = static_cast<float>(static_cast<double>(p[e]) / sum);
  return std::log(sum) + static_cast<double>(largest);
}

// What a row's dlogits need besides its own values.
struct AuxSlopes {
  const float* slopes;  // [E] or null
  float z_slope;
};

void logits_gradient(const float* logits, std::int64_t experts, const std::int32_t* indices, const float* weights,
                     const float* dweights, std::int64_t count, const AuxSlopes& aux, float* dlogits) {
  std::fill(dlogits, dlogits + experts, 0.f);
  if (aux.slopes || aux.z_slope != 0.f) {
    float p[1024];
    const double log_sum = softmax_row(logits, experts, p);
    double mean = 0;
    for (std::int64_t e = 0; aux.slopes && e < experts; ++e)
      mean += static_cast<double>(p[e]) * static_cast<double>(aux.slopes[e]);
    const double z = 2 * static_cast<double>(aux.z_slope) * log_sum;
    for (std::int64_t e = 0; e < experts; ++e) {
      const double slope = aux.slopes ? static_cast<double>(aux.slopes[e]) - mean : 0;
      dlogits[e] = static_cast<float>(static_cast<double>(p[e]) * (slope + z));
    }
  }
  double mean = 0;
  for (std::int64_t k = 0; k < count; ++k) mean += static_cast<double>(weights[k]) * static_cast<double>(dweights[k]);
  for (std::int64_t k = 0; k < count; ++k)
    dlogits[indices[k]] +=
        static_cast<float>(static_cast<double>(weights[k]) * (static_cast<double>(dweights[k]) - mean));
}

void check_indices(const char* op, const Tensor& indices, std::int64_t experts) {
  const std::int32_t* index = indices.as<std::int32_t>();
  for (std::int64_t i = 0; i < indices.elements(); ++i) {
    if (index[i] < 0 || index[i] >= experts)
      fail(ErrorCode::kInvalidArgument, "{}: expert {} at {} is outside [0, {})", op, index[i], i, experts);
  }
}

}  // namespace

void router_load(Context& ctx, const Tensor& logits, const Tensor& indices, const Tensor& modality,
                 const Tensor& counts, const Tensor& probabilities, const Tensor& z) {
  const std::int64_t tokens = logits.shape[0], experts = logits.shape[1], count = indices.shape[1];
  check_indices("router_load", indices, experts);
  float* p = ctx.workspace.take<float>(tokens * experts);
  double* log_sums = ctx.workspace.take<double>(tokens);
  for_rows(ctx, tokens, experts * 8, [&](std::int64_t t) {
    log_sums[t] = softmax_row(logits.as<float>() + t * experts, experts, p + t * experts);
  });
  double* totals = ctx.workspace.take<double>(2 * experts);
  std::fill(totals, totals + 2 * experts, 0.0);
  double squares = 0;
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t kind = modality && modality.as<std::uint8_t>()[t] != 0 ? 1 : 0;
    for (std::int64_t e = 0; e < experts; ++e) totals[kind * experts + e] += static_cast<double>(p[t * experts + e]);
    for (std::int64_t k = 0; k < count; ++k)
      counts.as<float>()[kind * experts + indices.as<std::int32_t>()[t * count + k]] += 1.f;
    squares += log_sums[t] * log_sums[t];
  }
  for (std::int64_t i = 0; i < 2 * experts; ++i) probabilities.as<float>()[i] += static_cast<float>(totals[i]);
  z.as<float>()[0] += static_cast<float>(squares);
}

void router_backward(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& modality, const Tensor& logits,
                     const Tensor& indices, const Tensor& weights, const Tensor& dweights, const Tensor& slopes,
                     float z_slope, const RouterGradients& out) {
  const std::int64_t tokens = x.shape[0], hidden = x.shape[1], experts = weight.shape[0], count = indices.shape[1];
  check_indices("router_backward", indices, experts);
  float* const dl = out.dlogits.as<float>();
  const AuxSlopes aux{slopes ? slopes.as<float>() : nullptr, z_slope};
  for_rows(ctx, tokens, experts * 8, [&](std::int64_t t) {
    logits_gradient(logits.as<float>() + t * experts, experts, indices.as<std::int32_t>() + t * count,
                    weights.as<float>() + t * count, dweights.as<float>() + t * count, count, aux, dl + t * experts);
  });
  if (out.dx) {
    const Product product =
        input_product(dl, tokens, experts, Factor::of(weight, hidden), hidden, out.dx.as<float>(), true);
    run_products(ctx, {&product, 1});
  }
  if (out.dweight) {
    const Product product = weight_product(dl, tokens, experts, x.as<float>(), hidden, out.dweight.as<float>());
    run_products(ctx, {&product, 1});
  }
  if (out.dbias) {
    const ColumnSum sum{dl, tokens, experts, out.dbias.as<float>()};
    add_column_sums(ctx, {&sum, 1});
  }
  if (!out.dvision_bias || !modality) return;
  for (std::int64_t e = 0; e < experts; ++e) {
    float sum = 0;
    for (std::int64_t t = 0; t < tokens; ++t) sum += modality.as<std::uint8_t>()[t] != 0 ? dl[t * experts + e] : 0.f;
    out.dvision_bias.as<float>()[e] += sum;
  }
}

}  // namespace gov::ops::cpu
