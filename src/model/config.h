#pragma once
// The model's configuration: every key of a Hugging Face config.json for gpt_oss and gpt_oss_vision, validated, with
// what follows from it per layer. Every shape of the program comes from here; no code depends on a preset.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "ops/ops.h"

namespace gov {

enum class AttentionKind { kSliding, kFull };

// How a layer encodes position.
enum class PositionKind {
  kRope,       // rotate q and k, scaled by YaRN's attention factor
  kNone,       // NoPE: q and k as they are
  kScaleOnly,  // NoPE with nope_attention_scaling: multiply by the attention factor, do not rotate
};

struct RopeConfig {
  bool yarn = false;  // false: plain RoPE, factor 1
  double theta = 150000.0;
  double factor = 32.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = false;  // round the correction range to whole dimensions
  std::int64_t original_max_position_embeddings = 4096;
  double attention_factor = 0.0;  // 0: 0.1 ln(factor) + 1
};

struct VisionConfig {
  std::int64_t image_size = 224;
  std::int64_t patch_size = 14;
  std::int64_t num_channels = 3;
  std::int64_t embed_dim = 1024;
  std::int64_t num_layers = 24;
  std::int64_t num_heads = 16;
  std::int64_t intermediate_size = 4096;
  float layer_norm_eps = 1e-12f;
  bool pool_token = true;
  ops::Gelu hidden_act = ops::Gelu::kErf;
  bool pre_layernorm = false;   // CLIP
  bool final_layernorm = true;  // false: CLIP's identity
  bool class_token = true;      // false: SigLIP
  bool patch_bias = true;

  std::int64_t patches() const { return (image_size / patch_size) * (image_size / patch_size); }
  std::int64_t vit_tokens() const { return patches() + (class_token ? 1 : 0); }
  std::int64_t tokens() const { return vit_tokens() + (pool_token ? 1 : 0); }  // rows an image takes in the sequence
};

struct Config {
  std::string model_type = "gpt_oss_vision";
  std::int64_t vocab_size = 201088;
  std::int64_t hidden_size = 2880;
  std::int64_t intermediate_size = 2880;
  std::int64_t num_hidden_layers = 24;
  std::int64_t num_local_experts = 32;
  std::int64_t num_experts_per_tok = 4;
  std::int64_t head_dim = 64;
  std::int64_t num_attention_heads = 64;
  std::int64_t num_key_value_heads = 8;
  std::vector<AttentionKind> layer_types;  // [num_hidden_layers]
  std::int64_t sliding_window = 128;       // visible keys including self
  std::int64_t max_position_embeddings = 131072;
  std::int64_t initial_context_length = 4096;
  RopeConfig rope;
  float rms_norm_eps = 1e-5f;
  bool attention_bias = true;
  float swiglu_alpha = 1.702f;
  float swiglu_limit = 7.0f;
  bool tie_word_embeddings = false;
  double router_aux_loss_coef = 0.9;
  bool output_router_logits = false;
  bool use_vision = false;
  VisionConfig vision;  // meaningful only with use_vision
  bool use_nope = false;
  std::int64_t nope_stride = 4;
  bool nope_attention_scaling = false;
  std::int64_t image_token_id = -1;  // -1 = null
  std::vector<std::int64_t> eos_token_ids{200002};
  std::int64_t pad_token_id = 199999;
  std::int64_t bos_token_id = -1;
  std::string dtype = "bfloat16";  // of the unquantised tensors when written
  double initializer_range = 0.02;
  bool mxfp4_experts = false;  // quantization_config.quant_method == "mxfp4"

  PositionKind position_kind(std::int64_t layer) const;
  bool is_sliding(std::int64_t layer) const {
    return layer_types[static_cast<std::size_t>(layer)] == AttentionKind::kSliding;
  }
  std::int64_t q_size() const { return num_attention_heads * head_dim; }
  std::int64_t kv_size() const { return num_key_value_heads * head_dim; }
};

// Reads config.json text (Hugging Face form, or openai's original keys). Missing keys take their defaults; unknown keys
// are named once in one note; values out of range or contradicting each other throw Error kInvalidArgument naming the
// key.
Config parse_config(std::string_view json, const Log& log = {});

// Throws Error kInvalidArgument when a value is out of range or two contradict each other; parse_config calls it.
void validate(const Config& config);

// The same configuration as Hugging Face JSON; parse_config(config_json(c)) equals c.
std::string config_json(const Config& config);

// "gpt_oss_20b", "gpt_oss_120b", "gpt_oss_vision_20b", "gpt_oss_vision_120b", "mini" (4 layers, 8 experts at 20b
// widths, vocabulary 32,768). Throws Error kNotFound listing the names.
Config preset(std::string_view name);
std::span<const std::string_view> preset_names();

// inv_freq [head_dim/2] of the rotary embedding (YaRN, arXiv 2309.00071, section 3.2, with the correction range
// unrounded unless rope.truncate) in F32, computed in double.
std::vector<float> rope_inv_freq(const Config& config);
// Factor on cos and sin: YaRN's attention factor, 1 for plain RoPE.
float rope_attention_factor(const Config& config);

}  // namespace gov
