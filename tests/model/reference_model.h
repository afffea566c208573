#pragma once
// The whole model of a training pass in the scalar templates of ops/reference: losses of packed documents for
// T = double, directional derivatives for T = std::complex<double>.

#include <map>
#include <string>

#include "model/config.h"
#include "ops/reference/math.h"

namespace gov::test {

using reference::Index;
using reference::Vec;

// Rows of one document: a text token, or row `image_row` of the encoded images.
struct ReferenceRow {
  std::int32_t token = -1;  // -1: an image row
  std::int32_t image_row = -1;
  std::int32_t target = -1;
  double weight = 0;
};

struct ReferenceLosses {
  double balance_coefficient = 0, z_coefficient = 0;
  bool per_layer = false;  // switch instead of hf
};

template <class T>
class ReferenceModel {
 public:
  // Parameters under their names, as they are used (experts [E, out, in]).
  ReferenceModel(const Config& config, std::map<std::string, Vec<T>> parameters)
      : c_(config), p_(std::move(parameters)) {}

  // sum of weights times cross-entropies, and the coefficients times the losses of the routers.
  T loss(const std::vector<std::vector<ReferenceRow>>& documents, const Vec<T>& pixels,
         const ReferenceLosses& options) {
    const Vec<T> images = encode(pixels);
    routing_.assign(Index(c_.num_hidden_layers), {});
    T total(0);
    for (const auto& rows : documents) total += document(rows, images);
    return total + routers(options);
  }

 private:
  const Vec<T>& get(const std::string& name) const {
    static const Vec<T> empty;
    const auto found = p_.find(name);
    return found == p_.end() ? empty : found->second;
  }
  static void add(Vec<T>& x, const Vec<T>& y) {
    for (Index i = 0; i < x.size(); ++i) x[i] += y[i];
  }
  Vec<T> linear(const Vec<T>& x, const std::string& name) const {
    const Vec<T>& weight = get(name + ".weight");
    const Vec<T>& bias = get(name + ".bias");
    return reference::linear(x, weight, bias, weight.size() / bias.size());
  }

  Vec<T> encode(const Vec<T>& pixels) const {
    if (pixels.empty()) return {};
    const VisionConfig& v = c_.vision;
    const Index side = Index(v.image_size), images = pixels.size() / (Index(v.num_channels) * side * side);
    const std::string adapter = "model.vision_adapter.", vit = adapter + "vit.";
    const reference::PatchShape shape{images, Index(v.num_channels), side,
                                      side,   Index(v.patch_size),   Index(v.embed_dim)};
    const std::string patch = vit + "embeddings.patch_embeddings.projection.";
    Vec<T> x =
        reference::prepend_token(get(vit + "embeddings.cls_token"),
                                 reference::patch_embed(pixels, get(patch + "weight"), get(patch + "bias"), shape),
                                 get(vit + "embeddings.position_embeddings"), images);
    const double eps = double(v.layer_norm_eps);
    const auto norm = [&](const Vec<T>& in, const std::string& name, double e) {
      return reference::layer_norm(in, get(name + ".weight"), get(name + ".bias"), e);
    };
    if (v.pre_layernorm) x = norm(x, vit + "pre_layernorm", eps);
    for (std::int64_t i = 0; i < v.num_layers; ++i) {
      const std::string layer = vit + "encoder.layer." + std::to_string(i) + ".", att = layer + "attention.attention.";
      const Vec<T> n = norm(x, layer + "layernorm_before", eps);
      add(x, linear(bidirectional(linear(n, att + "query"), linear(n, att + "key"), linear(n, att + "value"), images),
                    layer + "attention.output.dense"));
      const Vec<T> m = linear(norm(x, layer + "layernorm_after", eps), layer + "intermediate.dense");
      add(x, linear(reference::gelu(m, static_cast<reference::Gelu>(v.hidden_act)), layer + "output.dense"));
    }
    if (v.final_layernorm) x = norm(x, vit + "layernorm", eps);
    x = reference::prepend_token(get(adapter + "pool_token"), x, {}, images);
    return linear(norm(x, adapter + "norm", double(1e-5f)), adapter + "proj");
  }

  Vec<T> bidirectional(const Vec<T>& q, const Vec<T>& k, const Vec<T>& v, Index images) const {
    const Index heads = Index(c_.vision.num_heads), dim = Index(c_.vision.embed_dim) / heads, size = q.size() / images;
    const reference::AttentionShape shape{heads, heads, dim, double(1 / std::sqrt(float(dim))), false, 0};
    Vec<T> all;
    for (Index n = 0; n < images; ++n) {
      const Vec<T> out = reference::attention(reference::slice(q, n, size), reference::slice(k, n, size),
                                              reference::slice(v, n, size), {}, shape);
      all.insert(all.end(), out.begin(), out.end());
    }
    return all;
  }

  T document(const std::vector<ReferenceRow>& rows, const Vec<T>& images) {
    const Index hidden = Index(c_.hidden_size);
    Vec<T> x, wanted;
    Vec<std::int32_t> positions, targets;
    Vec<std::uint8_t> modality;
    for (const ReferenceRow& row : rows) {
      const Vec<T>& from = row.token >= 0 ? get("model.embed_tokens.weight") : images;
      const Vec<T> values = reference::slice(from, Index(row.token >= 0 ? row.token : row.image_row), hidden);
      x.insert(x.end(), values.begin(), values.end());
      positions.push_back(std::int32_t(positions.size()));
      modality.push_back(row.token >= 0 ? 0 : 1);
    }
    for (std::int64_t i = 0; i < c_.num_hidden_layers; ++i) layer(i, positions, modality, x);
    const Vec<T> normed = reference::rms_norm(x, get("model.norm.weight"), double(c_.rms_norm_eps));
    T total(0);
    const std::string head = c_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
    for (Index r = 0; r < rows.size(); ++r) {
      if (rows[r].target < 0) continue;
      const Vec<T> logits = reference::linear(reference::slice(normed, r, hidden), get(head), {}, hidden);
      total += rows[r].weight * reference::cross_entropy(logits, {rows[r].target})[0];
    }
    return total;
  }

  void layer(std::int64_t index, const Vec<std::int32_t>& positions, const Vec<std::uint8_t>& modality, Vec<T>& x) {
    const std::string prefix = "model.layers." + std::to_string(index) + ".", att = prefix + "self_attn.";
    const double eps = double(c_.rms_norm_eps);
    const Index heads = Index(c_.num_attention_heads), kv = Index(c_.num_key_value_heads), dim = Index(c_.head_dim);
    const Vec<T> n = reference::rms_norm(x, get(prefix + "input_layernorm.weight"), eps);
    Vec<T> q = linear(n, att + "q_proj"), k = linear(n, att + "k_proj");
    const PositionKind kind = c_.position_kind(index);
    if (kind != PositionKind::kNone) {
      Vec<double> frequencies;
      for (const float f : rope_inv_freq(c_)) frequencies.push_back(kind == PositionKind::kRope ? double(f) : 0);
      const auto table = reference::rope_table(positions, frequencies, double(rope_attention_factor(c_)));
      q = reference::rope(q, table.cos, table.sin, heads, dim);
      k = reference::rope(k, table.cos, table.sin, kv, dim);
    }
    const Index window = c_.is_sliding(index) ? Index(c_.sliding_window) : 0;
    const reference::AttentionShape shape{heads, kv, dim, double(1 / std::sqrt(float(dim))), true, window};
    add(x, linear(reference::attention(q, k, linear(n, att + "v_proj"), get(att + "sinks"), shape), att + "o_proj"));

    const std::string mlp = prefix + "mlp.";
    const Vec<T> m = reference::rms_norm(x, get(prefix + "post_attention_layernorm.weight"), eps);
    const auto routed =
        reference::router(m, get(mlp + "router.weight"), get(mlp + "router.bias"), get(mlp + "router.vision_bias"),
                          modality, Index(c_.hidden_size), Index(c_.num_experts_per_tok));
    const reference::Experts<T> experts{get(mlp + "experts.gate_up_proj"), get(mlp + "experts.gate_up_proj_bias"),
                                        get(mlp + "experts.down_proj"),    get(mlp + "experts.down_proj_bias"),
                                        Index(c_.num_local_experts),       Index(c_.hidden_size),
                                        Index(c_.intermediate_size)};
    add(x,
        reference::moe(m, routed.indices, routed.weights, experts, double(c_.swiglu_alpha), double(c_.swiglu_limit)));
    auto& all = routing_[Index(index)];
    all.logits.insert(all.logits.end(), routed.logits.begin(), routed.logits.end());
    all.indices.insert(all.indices.end(), routed.indices.begin(), routed.indices.end());
  }

  // The losses of the routers, from every row of every layer.
  T routers(const ReferenceLosses& o) const {
    const Index experts = Index(c_.num_local_experts), layers = routing_.size();
    const double rows = double(routing_[0].logits.size() / experts), count = double(c_.num_experts_per_tok);
    T balance(0), z(0);
    Vec<double> pooled_f(experts);
    Vec<T> pooled_p(experts, T(0));
    for (const auto& r : routing_) {
      Vec<double> f(experts);
      Vec<T> p(experts, T(0));
      for (const std::int32_t e : r.indices) f[Index(e)] += 1 / rows;
      for (Index row = 0; row < r.logits.size(); row += experts) {
        T sum(0);
        for (Index e = 0; e < experts; ++e) sum += std::exp(r.logits[row + e]);
        for (Index e = 0; e < experts; ++e) p[e] += std::exp(r.logits[row + e]) / sum / rows;
        z += std::log(sum) * std::log(sum) / rows / double(layers);
      }
      for (Index e = 0; e < experts; ++e) {
        if (o.per_layer) balance += double(experts) / count / double(layers) * f[e] * p[e];
        pooled_f[e] += f[e] / double(layers);
        pooled_p[e] += p[e] / double(layers);
      }
    }
    for (Index e = 0; e < experts && !o.per_layer; ++e) balance += double(experts) * pooled_f[e] * pooled_p[e];
    return o.balance_coefficient * balance + o.z_coefficient * z;
  }

  const Config& c_;
  std::map<std::string, Vec<T>> p_;
  std::vector<reference::Routing<T>> routing_;
};

}  // namespace gov::test
