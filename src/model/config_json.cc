// config.json <-> Config. Reading keeps count of the keys it used, so that unknown ones can be named.

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "base/json_writer.h"
#include "base/mxfp4.h"
#include "model/config.h"

namespace gov {
namespace {

namespace dom = simdjson::dom;

// Keys that real configs carry and that change nothing here.
constexpr std::array<std::string_view, 24> kIgnoredKeys{"architectures",
                                                        "attention_dropout",
                                                        "auto_map",
                                                        "hidden_act",
                                                        "use_cache",
                                                        "transformers_version",
                                                        "_name_or_path",
                                                        "_attn_implementation_autoset",
                                                        "sep_token_id",
                                                        "decoder_start_token_id",
                                                        "is_encoder_decoder",
                                                        "return_dict",
                                                        "output_attentions",
                                                        "output_hidden_states",
                                                        "chunk_size_feed_forward",
                                                        "id2label",
                                                        "label2id",
                                                        "problem_type",
                                                        "tie_encoder_decoder",
                                                        "cross_attention_hidden_size",
                                                        "add_cross_attention",
                                                        "is_decoder",
                                                        "pruned_heads",
                                                        "partial_rotary_factor"};

[[noreturn]] void wrong_type(std::string_view key, std::string_view wanted) {
  fail(ErrorCode::kInvalidArgument, "config: {} must be {}", printable(key), wanted);
}

// One JSON object of the file. Absent and null keys leave the value as it was.
class Section {
 public:
  Section(dom::object object, std::string prefix) : object_(object), prefix_(std::move(prefix)) {}

  std::optional<dom::element> find(std::string_view key) {
    used_.insert(std::string(key));
    dom::element element;
    if (object_.at_key(key).get(element) != simdjson::SUCCESS || element.is_null()) return std::nullopt;
    return element;
  }
  bool has_null(std::string_view key) {
    dom::element element;
    return object_.at_key(key).get(element) == simdjson::SUCCESS && element.is_null();
  }

  void read(std::string_view key, std::int64_t* out) {
    const auto element = find(key);
    if (!element) return;
    std::int64_t integer;
    double real;
    if (element->get(integer) == simdjson::SUCCESS) {
      *out = integer;
    } else if (element->get(real) == simdjson::SUCCESS && std::floor(real) == real && std::fabs(real) < 9e15) {
      *out = static_cast<std::int64_t>(real);  // 4096.0 is written by some tools
    } else {
      wrong_type(prefix_ + std::string(key), "an integer");
    }
  }
  void read(std::string_view key, double* out) {
    const auto element = find(key);
    if (element && element->get(*out) != simdjson::SUCCESS) wrong_type(prefix_ + std::string(key), "a number");
    *out += 0.0;  // -0, which would be written as an integer, becomes 0
  }
  void read(std::string_view key, float* out) {
    double value = *out;
    const bool there = find(key).has_value();
    read(key, &value);
    if (there) *out = static_cast<float>(value) + 0.f;  // -1e-99 is -0
  }
  void read(std::string_view key, bool* out) {
    const auto element = find(key);
    if (element && element->get(*out) != simdjson::SUCCESS) wrong_type(prefix_ + std::string(key), "true or false");
  }
  void read(std::string_view key, std::string* out) {
    const auto element = find(key);
    std::string_view text;
    if (!element) return;
    if (element->get(text) != simdjson::SUCCESS) wrong_type(prefix_ + std::string(key), "a string");
    *out = std::string(text);
  }
  // Two names for one value: when both are there they must agree.
  void read_alias(std::string_view key, std::string_view alias, std::int64_t* out) {
    const bool both = find(key).has_value() && find(alias).has_value();
    std::int64_t first = *out, second = *out;
    read(key, &first);
    read(alias, &second);
    if (both && first != second) {
      fail(ErrorCode::kInvalidArgument, "config: {} = {} contradicts {} = {}", key, first, alias, second);
    }
    *out = find(key) ? first : second;
  }

  std::vector<std::string> unused() const {
    std::vector<std::string> names;
    for (const auto field : object_) {
      if (!used_.contains(std::string(field.key))) names.emplace_back(field.key);
    }
    return names;
  }

 private:
  dom::object object_;
  std::string prefix_;
  std::set<std::string> used_;
};

void read_layer_types(Section& s, Config& c) {
  c.layer_types.clear();
  const auto element = s.find("layer_types");
  if (!element) {
    if (c.num_hidden_layers < 1 || c.num_hidden_layers > 1024) return;  // validate() names it
    for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
      c.layer_types.push_back(i % 2 == 0 ? AttentionKind::kSliding : AttentionKind::kFull);
    }
    return;
  }
  dom::array array;
  if (element->get(array) != simdjson::SUCCESS) wrong_type("layer_types", "an array");
  for (const dom::element item : array) {
    std::string_view kind;
    if (item.get(kind) != simdjson::SUCCESS) wrong_type("layer_types", "an array of strings");
    if (kind != "sliding_attention" && kind != "full_attention") {
      fail(ErrorCode::kInvalidArgument, "config: layer_types holds '{}', not sliding_attention or full_attention",
           printable(kind));
    }
    c.layer_types.push_back(kind == "sliding_attention" ? AttentionKind::kSliding : AttentionKind::kFull);
  }
}

void read_rope_block(dom::element element, std::string_view key, Config& c) {
  dom::object object;
  if (element.get(object) != simdjson::SUCCESS) wrong_type(key, "an object or null");
  Section s(object, std::string(key) + ".");
  std::string type = "default", alias;
  s.read("type", &alias);
  if (!alias.empty()) type = alias;
  s.read("rope_type", &type);
  s.read("rope_theta", &c.rope.theta);
  if (s.find("full_attention") || s.find("sliding_attention")) {
    fail(ErrorCode::kUnsupported, "config: {} with one block per attention kind is not a form gpt-oss uses", key);
  }
  if (type == "default") {
    c.rope.yarn = false;
    return;
  }
  if (type != "yarn")
    fail(ErrorCode::kUnsupported, "config: {} of type '{}'; known: yarn, default", key, printable(type));
  c.rope.yarn = true;
  c.rope.truncate = true;  // transformers' default when the block leaves it out; the released configs say false
  c.rope.original_max_position_embeddings = c.initial_context_length;
  s.read("factor", &c.rope.factor);
  s.read("beta_fast", &c.rope.beta_fast);
  s.read("beta_slow", &c.rope.beta_slow);
  s.read("truncate", &c.rope.truncate);
  s.read("original_max_position_embeddings", &c.rope.original_max_position_embeddings);
  s.read("attention_factor", &c.rope.attention_factor);
}

void read_rope(Section& s, Config& c) {
  s.read("rope_theta", &c.rope.theta);
  c.rope.original_max_position_embeddings = c.initial_context_length;
  c.rope.yarn = !s.has_null("rope_scaling");
  if (const auto block = s.find("rope_scaling")) read_rope_block(*block, "rope_scaling", c);
  if (const auto block = s.find("rope_parameters"))
    read_rope_block(*block, "rope_parameters", c);  // the newer form wins
  // openai's original config: flat keys, never truncated.
  s.read("rope_scaling_factor", &c.rope.factor);
  s.read("rope_ntk_alpha", &c.rope.beta_slow);
  s.read("rope_ntk_beta", &c.rope.beta_fast);
}

void read_vision(Section& s, Config& c) {
  VisionConfig& v = c.vision;
  s.read("use_vision", &c.use_vision);
  s.read("vision_image_size", &v.image_size);
  s.read("vision_patch_size", &v.patch_size);
  s.read("vision_num_channels", &v.num_channels);
  s.read("vision_embed_dim", &v.embed_dim);
  s.read("vision_num_layers", &v.num_layers);
  s.read("vision_num_heads", &v.num_heads);
  // Absent or null: four times the width, but no less than 1024 (out-of-range widths are named by validate()).
  const std::int64_t width = std::clamp<std::int64_t>(v.embed_dim, 0, 1 << 20);
  v.intermediate_size = std::max<std::int64_t>(4 * width, 1024);
  s.read("vision_intermediate_size", &v.intermediate_size);
  s.read("vision_layer_norm_eps", &v.layer_norm_eps);
  s.read("vision_pool_token", &v.pool_token);
  s.read("vision_pre_layernorm", &v.pre_layernorm);
  s.read("vision_final_layernorm", &v.final_layernorm);
  s.read("vision_class_token", &v.class_token);
  s.read("vision_patch_bias", &v.patch_bias);
  std::string act = "gelu";
  s.read("vision_hidden_act", &act);
  if (act == "gelu") v.hidden_act = ops::Gelu::kErf;
  else if (act == "gelu_pytorch_tanh" || act == "gelu_new") v.hidden_act = ops::Gelu::kTanh;
  else if (act == "quick_gelu") v.hidden_act = ops::Gelu::kQuick;
  else
    fail(ErrorCode::kUnsupported, "config: vision_hidden_act '{}'; known: gelu, gelu_pytorch_tanh, quick_gelu",
         printable(act));
  s.read("use_nope", &c.use_nope);
  s.read("nope_stride", &c.nope_stride);
  s.read("nope_attention_scaling", &c.nope_attention_scaling);
  s.read("image_token_id", &c.image_token_id);
}

void read_eos(Section& s, Config& c) {
  const auto element = s.find("eos_token_id");
  if (!element) return;
  c.eos_token_ids.clear();
  dom::array array;
  std::int64_t id;
  if (element->get(id) == simdjson::SUCCESS) {
    c.eos_token_ids.push_back(id);
  } else if (element->get(array) == simdjson::SUCCESS) {
    for (const dom::element item : array) {
      if (item.get(id) != simdjson::SUCCESS) wrong_type("eos_token_id", "an integer or a list of integers");
      c.eos_token_ids.push_back(id);
    }
  } else {
    wrong_type("eos_token_id", "an integer or a list of integers");
  }
}

void read_quantization(Section& s, Config& c) {
  const auto element = s.find("quantization_config");
  if (!element) return;
  dom::object object;
  if (element->get(object) != simdjson::SUCCESS) wrong_type("quantization_config", "an object or null");
  std::string method;
  Section block(object, "quantization_config.");
  block.read("quant_method", &method);
  if (method != "mxfp4") fail(ErrorCode::kUnsupported, "config: quant_method '{}'; known: mxfp4", printable(method));
  c.mxfp4_experts = true;
}

void note_unknown(const Section& s, const Log& log) {
  std::vector<std::string> names;
  for (const std::string& name : s.unused()) {
    if (std::find(kIgnoredKeys.begin(), kIgnoredKeys.end(), name) == kIgnoredKeys.end())
      names.push_back(printable(name, 60));
  }
  constexpr std::size_t kShown = 16;
  if (names.empty()) return;
  const std::size_t more = names.size() > kShown ? names.size() - kShown : 0;
  names.resize(std::min(names.size(), kShown));
  log.warn("config: unknown keys ignored: {}{}", fmt::join(names, ", "), more ? fmt::format(" and {} more", more) : "");
}

}  // namespace

Config parse_config(std::string_view json, const Log& log) {
  if (json.size() > (std::size_t{16} << 20)) fail(ErrorCode::kCorrupt, "config: larger than 16 MiB");
  dom::parser parser;
  dom::element root;
  const simdjson::padded_string padded(json);
  if (const auto error = parser.parse(padded).get(root)) {
    fail(ErrorCode::kCorrupt, "config: not valid JSON ({})", simdjson::error_message(error));
  }
  dom::object object;
  if (root.get(object) != simdjson::SUCCESS) fail(ErrorCode::kCorrupt, "config: the file is not a JSON object");

  Config c;
  Section s(object, "");
  s.read("model_type", &c.model_type);
  if (c.model_type != "gpt_oss" && c.model_type != "gpt_oss_vision") {
    fail(ErrorCode::kUnsupported, "config: model_type '{}'; known: gpt_oss, gpt_oss_vision", printable(c.model_type));
  }
  s.read("vocab_size", &c.vocab_size);
  s.read("hidden_size", &c.hidden_size);
  s.read("intermediate_size", &c.intermediate_size);
  s.read("num_hidden_layers", &c.num_hidden_layers);
  s.read_alias("num_local_experts", "num_experts", &c.num_local_experts);
  s.read_alias("num_experts_per_tok", "experts_per_token", &c.num_experts_per_tok);
  s.read("head_dim", &c.head_dim);
  s.read("num_attention_heads", &c.num_attention_heads);
  s.read("num_key_value_heads", &c.num_key_value_heads);
  s.read("sliding_window", &c.sliding_window);
  s.read("max_position_embeddings", &c.max_position_embeddings);
  s.read("initial_context_length", &c.initial_context_length);
  s.read("rms_norm_eps", &c.rms_norm_eps);
  s.read("attention_bias", &c.attention_bias);
  s.read("swiglu_alpha", &c.swiglu_alpha);
  s.read("swiglu_limit", &c.swiglu_limit);
  s.read("tie_word_embeddings", &c.tie_word_embeddings);
  s.read("router_aux_loss_coef", &c.router_aux_loss_coef);
  s.read("output_router_logits", &c.output_router_logits);
  s.read("pad_token_id", &c.pad_token_id);
  s.read("bos_token_id", &c.bos_token_id);
  s.read("initializer_range", &c.initializer_range);
  s.read("dtype", &c.dtype);
  s.read("torch_dtype", &c.dtype);
  read_layer_types(s, c);
  read_rope(s, c);
  read_vision(s, c);
  read_eos(s, c);
  read_quantization(s, c);
  validate(c);
  note_unknown(s, log);
  return c;
}

std::string config_json(const Config& c) {
  JsonWriter w;
  w.begin_object();
  w.field("model_type", c.model_type);
  w.key("architectures")
      .begin_array()
      .value(c.use_vision ? "GPTOSSVisionForCausalLM" : "GptOssForCausalLM")
      .end_array();
  w.field("vocab_size", c.vocab_size)
      .field("hidden_size", c.hidden_size)
      .field("intermediate_size", c.intermediate_size);
  w.field("num_hidden_layers", c.num_hidden_layers).field("num_local_experts", c.num_local_experts);
  w.field("num_experts_per_tok", c.num_experts_per_tok).field("head_dim", c.head_dim);
  w.field("num_attention_heads", c.num_attention_heads).field("num_key_value_heads", c.num_key_value_heads);
  w.key("layer_types").begin_array();
  for (const AttentionKind kind : c.layer_types) {
    w.value(kind == AttentionKind::kSliding ? "sliding_attention" : "full_attention");
  }
  w.end_array();
  w.field("sliding_window", c.sliding_window).field("max_position_embeddings", c.max_position_embeddings);
  w.field("initial_context_length", c.initial_context_length).field("rope_theta", c.rope.theta);
  w.key("rope_scaling");
  if (c.rope.yarn) {
    w.begin_object().field("rope_type", "yarn").field("factor", c.rope.factor).field("beta_fast", c.rope.beta_fast);
    w.field("beta_slow", c.rope.beta_slow).field("truncate", c.rope.truncate);
    w.field("original_max_position_embeddings", c.rope.original_max_position_embeddings);
    if (c.rope.attention_factor > 0) w.field("attention_factor", c.rope.attention_factor);
    w.end_object();
  } else {
    w.null();
  }
  const auto real = [](float x) { return fmt::format("{}", x); };  // the shortest text of the float, not of its double
  w.key("rms_norm_eps").raw(real(c.rms_norm_eps)).field("attention_bias", c.attention_bias);
  w.key("swiglu_alpha").raw(real(c.swiglu_alpha)).key("swiglu_limit").raw(real(c.swiglu_limit));
  w.field("tie_word_embeddings", c.tie_word_embeddings).field("hidden_act", "silu");
  w.field("router_aux_loss_coef", c.router_aux_loss_coef).field("output_router_logits", c.output_router_logits);
  w.field("initializer_range", c.initializer_range).field("torch_dtype", c.dtype);
  w.key("eos_token_id").begin_array();
  for (const std::int64_t id : c.eos_token_ids) w.value(id);
  w.end_array();
  w.field("pad_token_id", c.pad_token_id);
  if (c.bos_token_id >= 0) w.field("bos_token_id", c.bos_token_id);
  w.field("use_nope", c.use_nope).field("nope_stride", c.nope_stride);
  w.field("nope_attention_scaling", c.nope_attention_scaling).field("use_vision", c.use_vision);
  if (c.image_token_id >= 0) w.field("image_token_id", c.image_token_id);
  if (c.use_vision) {
    const VisionConfig& v = c.vision;
    constexpr const char* kActs[] = {"gelu", "gelu_pytorch_tanh", "quick_gelu"};
    w.field("vision_image_size", v.image_size).field("vision_patch_size", v.patch_size);
    w.field("vision_num_channels", v.num_channels).field("vision_embed_dim", v.embed_dim);
    w.field("vision_num_layers", v.num_layers).field("vision_num_heads", v.num_heads);
    w.field("vision_intermediate_size", v.intermediate_size);
    w.key("vision_layer_norm_eps").raw(real(v.layer_norm_eps)).field("vision_pool_token", v.pool_token);
    w.field("vision_hidden_act", kActs[static_cast<int>(v.hidden_act)]).field("vision_pre_layernorm", v.pre_layernorm);
    w.field("vision_final_layernorm", v.final_layernorm).field("vision_class_token", v.class_token);
    w.field("vision_patch_bias", v.patch_bias);
  }
  if (c.mxfp4_experts) {
    w.key("quantization_config").begin_object().field("quant_method", "mxfp4");
    w.key("modules_to_not_convert").begin_array();
    for (const char* module : {"model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens",
                               "model.vision_adapter", "lm_head"}) {
      w.value(module);
    }
    w.end_array().end_object();
  }
  w.end_object();
  return w.take();
}

}  // namespace gov
