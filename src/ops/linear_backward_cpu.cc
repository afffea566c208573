// Derivatives of products: linear, patch_embed, and the head with its loss.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ops/ops_list.h"
#include "ops/product_cpu.h"

namespace gov::ops::cpu {

void linear_backward(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& dout, const Tensor& dx,
                     const Tensor& dweight, const Tensor& dbias, bool accumulate) {
  const std::int64_t rows = dout.shape[0], out = weight.shape[0], in = weight.shape[1];
  const float* d = dout.as<float>();
  std::vector<Product> products;
  if (dx) products.push_back(input_product(d, rows, out, Factor::of(weight, in), in, dx.as<float>(), accumulate));
  if (dweight) products.push_back(weight_product(d, rows, out, x.as<float>(), in, dweight.as<float>()));
  run_products(ctx, products);
  if (!dbias) return;
  const ColumnSum sum{d, rows, out, dbias.as<float>()};
  add_column_sums(ctx, {&sum, 1});
}

void patch_embed_backward(Context& ctx, const Tensor& pixels, std::int64_t patch, const Tensor& dout,
                          const Tensor& dweight, const Tensor& dbias) {
  const std::int64_t rows = dout.shape[0] * dout.shape[1], width = dout.shape[2];
  if (dweight) {
    const std::int64_t in = pixels.shape[1] * patch * patch;
    const Product product =
        weight_product(dout.as<float>(), rows, width, patch_rows(ctx, pixels, patch), in, dweight.as<float>());
    run_products(ctx, {&product, 1});
  }
  if (!dbias) return;
  const ColumnSum sum{dout.as<float>(), rows, width, dbias.as<float>()};
  add_column_sums(ctx, {&sum, 1});
}

namespace {

// Turns a row of logits into row_weight (softmax - one-hot); returns the loss. A negative target: zeros.
float loss_of_row(const Kernels& table, float* logits, std::int64_t vocabulary, std::int32_t target, float row_weight,
                  bool gradient) {
  if (target < 0) {
    if (gradient) std::fill(logits, logits + vocabulary, 0.f);
    return 0;
  }
  float largest = -std::numeric_limits<float>::infinity();
  for (std::int64_t i = 0; i < vocabulary; ++i) largest = logits[i] > largest ? logits[i] : largest;
  const double chosen = static_cast<double>(logits[target]);
  const double sum = table.exp_sum(logits, vocabulary, largest, 1.f, gradient ? logits : nullptr);
  if (gradient) {
    const float factor = static_cast<float>(static_cast<double>(row_weight) / sum);
    for (std::int64_t i = 0; i < vocabulary; ++i) logits[i] *= factor;
    logits[target] -= row_weight;
  }
  return static_cast<float>(std::log(sum) + static_cast<double>(largest) - chosen);
}

}  // namespace

void linear_cross_entropy(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& targets,
                          const Tensor& row_weights, const Tensor& logits, const Tensor& losses, const Tensor& dx,
                          const Tensor& dweight) {
  const Kernels& table = kernels(ctx.isa);
  const std::int64_t rows = x.shape[0], hidden = x.shape[1], vocabulary = weight.shape[0];
  const std::int32_t* target = targets.as<std::int32_t>();
  for (std::int64_t t = 0; t < rows; ++t) {
    if (target[t] >= vocabulary)
      fail(ErrorCode::kInvalidArgument, "linear_cross_entropy: target {} at {} is outside the {} classes", target[t], t,
           vocabulary);
  }
  float* const l = logits.as<float>();
  for (std::int64_t begin = 0; begin < rows; begin += logits.shape[0]) {
    const std::int64_t count = std::min(logits.shape[0], rows - begin);
    const float* const chunk = x.as<float>() + begin * hidden;
    linear_all_rows(ctx, chunk, count, hidden, weight, vocabulary, {}, l, false);
    for_rows(ctx, count, vocabulary * 4, [&](std::int64_t t) {
      losses.as<float>()[begin + t] = loss_of_row(table, l + t * vocabulary, vocabulary, target[begin + t],
                                                  row_weights.as<float>()[begin + t], static_cast<bool>(dx));
    });
    std::vector<Product> products;
    if (dx)
      products.push_back(input_product(l, count, vocabulary, Factor::of(weight, hidden), hidden,
                                       dx.as<float>() + begin * hidden, false));
    if (dweight) products.push_back(weight_product(l, count, vocabulary, chunk, hidden, dweight.as<float>()));
    run_products(ctx, products);
    ctx.workspace.reset();
  }
}

}  // namespace gov::ops::cpu
