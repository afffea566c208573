#include "cli/bench_limits.h"

#include <algorithm>
#include <cmath>

namespace gov::cli {
namespace {

double sum_bytes(std::initializer_list<const Tensor*> tensors) {
  double bytes = 0;
  for (const Tensor* tensor : tensors) {
    if (*tensor) bytes += static_cast<double>(tensor->bytes());
  }
  return bytes;
}

double projection_bytes(const ops::ExpertProjection& p) {
  return sum_bytes({&p.weight, &p.blocks, &p.scales, &p.bias});
}

struct LayerBytes {
  double attention = 0, router = 0, expert = 0;  // expert: of one
};

LayerBytes layer_bytes(const LayerWeights& w) {
  const AttentionWeights& a = w.attention;
  const MoeWeights& m = w.moe;
  LayerBytes bytes;
  bytes.attention = sum_bytes({&a.norm, &a.q, &a.q_bias, &a.k, &a.k_bias, &a.v, &a.v_bias, &a.o, &a.o_bias, &a.sinks});
  bytes.router = sum_bytes({&m.norm, &m.router, &m.router_bias});
  bytes.expert = (projection_bytes(m.gate_up) + projection_bytes(m.down)) / static_cast<double>(m.gate_up.experts());
  return bytes;
}

double experts_touched(const Config& c, double rows) {
  const auto experts = static_cast<double>(c.num_local_experts);
  return experts * (1 - std::pow(1 - static_cast<double>(c.num_experts_per_tok) / experts, rows));
}

// Weights that one step reads which touches that many experts of each layer: all but the embedding table, of which only
// a few rows are needed.
double weight_bytes(const Model& model, double touched) {
  double bytes = sum_bytes({&model.weights.norm, &model.weights.lm_head});
  for (const LayerWeights& layer : model.weights.layers) {
    const LayerBytes b = layer_bytes(layer);
    bytes += b.attention + b.router + touched * b.expert;
  }
  return bytes;
}

// What an int8 form with a scale for each row saves of the attention and head matrices.
double bytes_saved_by_int8(const Model& model) {
  double bytes = 0;
  const auto matrix = [&](const Tensor& t) {
    bytes += static_cast<double>(t.bytes()) - static_cast<double>(t.elements() + 4 * t.rows());
  };
  for (const LayerWeights& layer : model.weights.layers) {
    for (const Tensor* t : {&layer.attention.q, &layer.attention.k, &layer.attention.v, &layer.attention.o}) matrix(*t);
  }
  matrix(model.weights.lm_head);
  return bytes;
}

// Products of one row with the weights of all layers.
double row_flops(const Config& c) {
  const auto h = static_cast<double>(c.hidden_size), inner = static_cast<double>(c.intermediate_size);
  const auto q = static_cast<double>(c.q_size()), kv = static_cast<double>(c.kv_size());
  const double attention = h * (2 * q + 2 * kv);
  const double moe =
      h * static_cast<double>(c.num_local_experts) + static_cast<double>(c.num_experts_per_tok) * 3 * h * inner;
  return 2 * static_cast<double>(c.num_hidden_layers) * (attention + moe);
}

double head_flops(const Config& c) {
  return 2 * static_cast<double>(c.vocab_size) * static_cast<double>(c.hidden_size);
}

// Keys that layer `layer` reads for a query with `context` keys in all.
double visible_keys(const Config& c, std::int64_t layer, std::int64_t context) {
  return static_cast<double>(c.is_sliding(layer) ? std::min(context, c.sliding_window) : context);
}

// The same, summed over the queries 0 .. tokens-1 of a prompt.
double visible_keys_of_prompt(const Config& c, std::int64_t layer, std::int64_t tokens) {
  const auto n = static_cast<double>(tokens);
  if (!c.is_sliding(layer)) return n * (n + 1) / 2;
  const auto w = static_cast<double>(std::min(tokens, c.sliding_window));
  return w * (w + 1) / 2 + (n - w) * w;
}

}  // namespace

Cost decode_cost(const Model& model, std::int64_t batch, std::int64_t context, DType kv_dtype,
                 std::optional<double> touched, bool eight_bit) {
  const Config& c = model.config;
  const auto rows = static_cast<double>(batch);
  double keys = 0;
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) keys += visible_keys(c, i, context);
  Cost cost;
  cost.bytes = weight_bytes(model, touched.value_or(experts_touched(c, rows))) +
               rows * keys * 2 * static_cast<double>(c.kv_size()) * static_cast<double>(dtype_size(kv_dtype));
  if (eight_bit) cost.bytes -= bytes_saved_by_int8(model);
  cost.flops = rows * (row_flops(c) + head_flops(c) + 4 * static_cast<double>(c.q_size()) * keys);
  return cost;
}

Cost prefill_cost(const Model& model, std::int64_t batch, std::int64_t tokens) {
  const Config& c = model.config;
  const auto sequences = static_cast<double>(batch), n = static_cast<double>(tokens);
  double keys = 0;
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) keys += visible_keys_of_prompt(c, i, tokens);
  Cost cost;
  cost.bytes = weight_bytes(model, experts_touched(c, sequences * n));
  cost.flops = sequences * (n * row_flops(c) + head_flops(c) + 4 * static_cast<double>(c.q_size()) * keys);
  return cost;
}

Cost encode_cost(const Model& model) {
  const VisionConfig& v = model.config.vision;
  const auto d = static_cast<double>(v.embed_dim), inner = static_cast<double>(v.intermediate_size);
  const auto tokens = static_cast<double>(v.vit_tokens()), layers = static_cast<double>(v.num_layers);
  const auto patch = static_cast<double>(v.num_channels * v.patch_size * v.patch_size);
  Cost cost;
  cost.flops = layers * (2 * tokens * (4 * d * d + 2 * d * inner) + 4 * tokens * tokens * d) +
               2 * static_cast<double>(v.patches()) * patch * d +
               2 * static_cast<double>(v.tokens()) * d * static_cast<double>(model.config.hidden_size);
  const VisionWeights& w = model.weights.vision;
  cost.bytes =
      sum_bytes({&w.patch, &w.patch_bias, &w.class_token, &w.positions, &w.pre_norm, &w.pre_norm_bias, &w.post_norm,
                 &w.post_norm_bias, &w.pool_token, &w.norm, &w.norm_bias, &w.proj, &w.proj_bias});
  for (const VitLayerWeights& l : w.layers) {
    cost.bytes += sum_bytes({&l.norm1, &l.norm1_bias, &l.q, &l.q_bias, &l.k, &l.k_bias, &l.v, &l.v_bias, &l.o,
                             &l.o_bias, &l.norm2, &l.norm2_bias, &l.fc1, &l.fc1_bias, &l.fc2, &l.fc2_bias});
  }
  return cost;
}

double least_seconds(const Cost& cost, const ops::DeviceLimits& limits) {
  return std::max(cost.bytes / (limits.read_gbps * 1e9), cost.flops / (limits.fma_gflops * 1e9));
}

}  // namespace gov::cli
