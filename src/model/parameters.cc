#include "model/parameters.h"

#include <fmt/format.h>

#include "base/mxfp4.h"

namespace gov {
namespace {

using Visit = std::function<void(const ParameterSpec&, Tensor&)>;

// Collects what the rows of one module have in common, so that each row of the table reads as one line.
class Table {
 public:
  Table(const Config& config, const Visit& visit) : config_(config), visit_(visit) {}

  void module(std::string prefix, Part part, std::int64_t layer = -1) {
    prefix_ = std::move(prefix);
    part_ = part;
    layer_ = layer;
  }
  void matrix(const char* name, Shape shape, Tensor& out) { emit(name, shape, out, Init::kNormal, true); }
  void vector(const char* name, std::int64_t size, Tensor& out, Init init = Init::kZero) {
    emit(name, Shape{size}, out, init, false);
  }
  void norm(const char* name, std::int64_t size, Tensor& out) { emit(name, Shape{size}, out, Init::kOne, false); }
  // A token or position row: initialised like an embedding, without decay.
  void token(const char* name, Shape shape, Tensor& out) { emit(name, shape, out, Init::kNormal, false); }

  void optional_vector(const char* name, std::int64_t size, Tensor& out) {
    ParameterSpec spec = make(name, Shape{size}, Init::kZero, false);
    spec.optional = true;
    visit_(spec, out);
  }

  // One projection of all experts; out features first when used, input first when stored unquantised.
  void experts(const char* name, std::int64_t in, std::int64_t out, ops::ExpertProjection& p) {
    const std::int64_t e = config_.num_local_experts;
    if (config_.mxfp4_experts) {
      ParameterSpec blocks = make(fmt::format("{}_blocks", name), Shape{e, out, in / kMxfp4Block, kMxfp4BlockBytes},
                                  Init::kMxfp4Blocks, true);
      blocks.storage = Storage::kU8;
      visit_(blocks, p.blocks);
      ParameterSpec scales =
          make(fmt::format("{}_scales", name), Shape{e, out, in / kMxfp4Block}, Init::kMxfp4Scales, true);
      scales.storage = Storage::kU8;
      visit_(scales, p.scales);
    } else {
      ParameterSpec dense = make(name, Shape{e, in, out}, Init::kNormal, true);
      dense.storage = Storage::kExpertMatrix;
      visit_(dense, p.weight);
    }
    visit_(make(fmt::format("{}_bias", name), Shape{e, out}, Init::kZero, false), p.bias);
  }

  // `name` under the prefix, also accepted as `alias` under the alias prefix.
  void alias(std::string prefix) { alias_prefix_ = std::move(prefix); }
  void aliased(const char* name, const char* alias, Shape shape, Tensor& out, Init init, bool decay) {
    ParameterSpec spec = make(name, shape, init, decay);
    spec.alias = alias_prefix_ + alias;
    visit_(spec, out);
  }

 private:
  ParameterSpec make(std::string_view name, Shape shape, Init init, bool decay) const {
    ParameterSpec spec;
    spec.name = prefix_ + std::string(name);
    spec.shape = shape;
    spec.part = part_;
    spec.layer = layer_;
    spec.init = init;
    spec.decay = decay;
    return spec;
  }
  void emit(const char* name, Shape shape, Tensor& out, Init init, bool decay) {
    visit_(make(name, shape, init, decay), out);
  }

  const Config& config_;
  const Visit& visit_;
  std::string prefix_, alias_prefix_;
  Part part_ = Part::kNorm;
  std::int64_t layer_ = -1;
};

void text_layer(Table& t, const Config& c, std::int64_t index, LayerWeights& w) {
  const std::string layer = fmt::format("model.layers.{}.", index);
  const std::int64_t h = c.hidden_size, inner = c.intermediate_size, q = c.q_size(), kv = c.kv_size();
  t.module(layer, Part::kNorm, index);
  t.norm("input_layernorm.weight", h, w.attention.norm);
  t.module(layer + "self_attn.", Part::kAttention, index);
  const auto projection = [&](const char* weight, const char* bias, std::int64_t out, std::int64_t in, Tensor& w_out,
                              Tensor& b_out) {
    t.matrix(weight, Shape{out, in}, w_out);
    if (c.attention_bias) t.vector(bias, out, b_out);
  };
  projection("q_proj.weight", "q_proj.bias", q, h, w.attention.q, w.attention.q_bias);
  projection("k_proj.weight", "k_proj.bias", kv, h, w.attention.k, w.attention.k_bias);
  projection("v_proj.weight", "v_proj.bias", kv, h, w.attention.v, w.attention.v_bias);
  projection("o_proj.weight", "o_proj.bias", h, q, w.attention.o, w.attention.o_bias);
  t.vector("sinks", c.num_attention_heads, w.attention.sinks, Init::kNormal);
  t.module(layer, Part::kNorm, index);
  t.norm("post_attention_layernorm.weight", h, w.moe.norm);
  t.module(layer + "mlp.router.", Part::kRouter, index);
  t.matrix("weight", Shape{c.num_local_experts, h}, w.moe.router);
  t.vector("bias", c.num_local_experts, w.moe.router_bias, Init::kNormal);
  if (c.use_vision) t.optional_vector("vision_bias", c.num_local_experts, w.moe.vision_bias);
  t.module(layer + "mlp.experts.", Part::kExperts, index);
  t.experts("gate_up_proj", h, 2 * inner, w.moe.gate_up);
  t.experts("down_proj", inner, h, w.moe.down);
}

void vit_layer(Table& t, const VisionConfig& v, std::int64_t index, VitLayerWeights& w) {
  const std::string vit = "model.vision_adapter.vit.";
  t.module(fmt::format("{}encoder.layer.{}.", vit, index), Part::kVision);
  t.alias(fmt::format("{}layers.{}.", vit, index));  // the names of transformers 5
  const std::int64_t d = v.embed_dim, inner = v.intermediate_size;
  const auto matrix = [&](const char* name, const char* other, std::int64_t out, std::int64_t in, Tensor& tensor) {
    t.aliased(name, other, Shape{out, in}, tensor, Init::kNormal, true);
  };
  const auto bias = [&](const char* name, const char* other, std::int64_t size, Tensor& tensor) {
    t.aliased(name, other, Shape{size}, tensor, Init::kZero, false);
  };
  t.aliased("layernorm_before.weight", "layernorm_before.weight", Shape{d}, w.norm1, Init::kOne, false);
  bias("layernorm_before.bias", "layernorm_before.bias", d, w.norm1_bias);
  matrix("attention.attention.query.weight", "attention.q_proj.weight", d, d, w.q);
  bias("attention.attention.query.bias", "attention.q_proj.bias", d, w.q_bias);
  matrix("attention.attention.key.weight", "attention.k_proj.weight", d, d, w.k);
  bias("attention.attention.key.bias", "attention.k_proj.bias", d, w.k_bias);
  matrix("attention.attention.value.weight", "attention.v_proj.weight", d, d, w.v);
  bias("attention.attention.value.bias", "attention.v_proj.bias", d, w.v_bias);
  matrix("attention.output.dense.weight", "attention.o_proj.weight", d, d, w.o);
  bias("attention.output.dense.bias", "attention.o_proj.bias", d, w.o_bias);
  t.aliased("layernorm_after.weight", "layernorm_after.weight", Shape{d}, w.norm2, Init::kOne, false);
  bias("layernorm_after.bias", "layernorm_after.bias", d, w.norm2_bias);
  matrix("intermediate.dense.weight", "mlp.fc1.weight", inner, d, w.fc1);
  bias("intermediate.dense.bias", "mlp.fc1.bias", inner, w.fc1_bias);
  matrix("output.dense.weight", "mlp.fc2.weight", d, inner, w.fc2);
  bias("output.dense.bias", "mlp.fc2.bias", d, w.fc2_bias);
}

void vision_adapter(Table& t, const Config& c, VisionWeights& w) {
  const VisionConfig& v = c.vision;
  const std::int64_t d = v.embed_dim;
  t.module("model.vision_adapter.", Part::kVision);
  if (v.pool_token) t.token("pool_token", Shape{1, 1, d}, w.pool_token);
  t.module("model.vision_adapter.vit.embeddings.", Part::kVision);
  if (v.class_token) t.token("cls_token", Shape{1, 1, d}, w.class_token);
  t.token("position_embeddings", Shape{1, v.vit_tokens(), d}, w.positions);
  t.matrix("patch_embeddings.projection.weight", Shape{d, v.num_channels, v.patch_size, v.patch_size}, w.patch);
  if (v.patch_bias) t.vector("patch_embeddings.projection.bias", d, w.patch_bias);
  t.module("model.vision_adapter.vit.", Part::kVision);
  if (v.pre_layernorm) {
    t.norm("pre_layernorm.weight", d, w.pre_norm);
    t.vector("pre_layernorm.bias", d, w.pre_norm_bias);
  }
  w.layers.resize(static_cast<std::size_t>(v.num_layers));
  for (std::int64_t i = 0; i < v.num_layers; ++i) vit_layer(t, v, i, w.layers[static_cast<std::size_t>(i)]);
  t.module("model.vision_adapter.", Part::kVision);
  if (v.final_layernorm) {
    t.norm("vit.layernorm.weight", d, w.post_norm);
    t.vector("vit.layernorm.bias", d, w.post_norm_bias);
  }
  t.norm("norm.weight", d, w.norm);
  t.vector("norm.bias", d, w.norm_bias);
  t.matrix("proj.weight", Shape{c.hidden_size, d}, w.proj);
  t.vector("proj.bias", c.hidden_size, w.proj_bias);
}

}  // namespace

const char* part_name(Part part) {
  switch (part) {
    case Part::kEmbedding: return "embedding";
    case Part::kAttention: return "attention";
    case Part::kRouter: return "router";
    case Part::kExperts: return "experts";
    case Part::kNorm: return "norms";
    case Part::kHead: return "head";
    case Part::kVision: return "vision";
  }
  return "unknown";
}

std::int64_t ParameterSpec::values() const {
  if (init == Init::kMxfp4Blocks) return shape.elements() * 2;
  return init == Init::kMxfp4Scales ? 0 : shape.elements();
}

void for_each_parameter(const Config& config, Weights& weights, const Visit& visit) {
  Table t(config, visit);
  t.module("", Part::kEmbedding);
  t.matrix("model.embed_tokens.weight", Shape{config.vocab_size, config.hidden_size}, weights.embed);
  weights.layers.resize(static_cast<std::size_t>(config.num_hidden_layers));
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    text_layer(t, config, i, weights.layers[static_cast<std::size_t>(i)]);
  }
  t.module("", Part::kNorm);
  t.norm("model.norm.weight", config.hidden_size, weights.norm);
  if (config.use_vision) vision_adapter(t, config, weights.vision);
  t.module("", Part::kHead);
  if (!config.tie_word_embeddings) {
    t.matrix("lm_head.weight", Shape{config.vocab_size, config.hidden_size}, weights.lm_head);
  }
}

std::vector<ParameterSpec> parameter_table(const Config& config) {
  std::vector<ParameterSpec> table;
  Weights unused;
  for_each_parameter(config, unused, [&](const ParameterSpec& spec, Tensor&) { table.push_back(spec); });
  return table;
}

ParameterCount count_parameters(const Config& config) {
  ParameterCount count;
  for (const ParameterSpec& spec : parameter_table(config)) {
    const std::int64_t values = spec.values();
    count.total += values;
    count.by_part[static_cast<int>(spec.part)] += values;
    if (spec.part == Part::kExperts) count.active += values / config.num_local_experts * config.num_experts_per_tok;
    else if (spec.part != Part::kVision && spec.part != Part::kEmbedding) count.active += values;
  }
  // A tied table is read as the head of every token.
  if (config.tie_word_embeddings) count.active += count.by_part[static_cast<int>(Part::kEmbedding)];
  // vision_bias belongs to the router in the table, but a text token does not use it.
  if (config.use_vision) count.active -= config.num_hidden_layers * config.num_local_experts;
  return count;
}

}  // namespace gov
