#include "model/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "base/mxfp4.h"

namespace gov {
namespace {

constexpr std::array<std::string_view, 5> kPresetNames{"gpt_oss_20b", "gpt_oss_120b", "gpt_oss_vision_20b",
                                                       "gpt_oss_vision_120b", "mini"};

std::vector<AttentionKind> alternating_layers(std::int64_t layers) {
  std::vector<AttentionKind> kinds(static_cast<std::size_t>(layers));
  for (std::size_t i = 0; i < kinds.size(); ++i) kinds[i] = i % 2 == 0 ? AttentionKind::kSliding : AttentionKind::kFull;
  return kinds;
}

void in_range(std::string_view key, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value < low || value > high) {
    fail(ErrorCode::kInvalidArgument, "config: {} = {} is outside {}..{}", key, value, low, high);
  }
}

void in_range(std::string_view key, double value, double low, double high) {
  if (!(value >= low && value <= high)) {
    fail(ErrorCode::kInvalidArgument, "config: {} = {} is outside {}..{}", key, value, low, high);
  }
}

void require(bool ok, std::string_view message) {
  if (!ok) fail(ErrorCode::kInvalidArgument, "config: {}", message);
}

void validate_vision(const VisionConfig& v) {
  in_range("vision_image_size", v.image_size, 1, 4096);
  in_range("vision_patch_size", v.patch_size, 1, 1024);
  in_range("vision_num_channels", v.num_channels, 3, 3);
  in_range("vision_embed_dim", v.embed_dim, 1, 1 << 16);
  in_range("vision_num_layers", v.num_layers, 0, 1024);
  in_range("vision_num_heads", v.num_heads, 1, 1024);
  in_range("vision_intermediate_size", v.intermediate_size, 1, 1 << 20);
  in_range("vision_layer_norm_eps", v.layer_norm_eps, 0.0, 1.0);
  require(v.patch_size <= v.image_size, "vision_patch_size is larger than vision_image_size");
  require(v.embed_dim % v.num_heads == 0, "vision_embed_dim is not a multiple of vision_num_heads");
  in_range("vision_embed_dim / vision_num_heads", v.embed_dim / v.num_heads, 2, 256);
  require(v.embed_dim / v.num_heads % 2 == 0,
          "the vision head size (vision_embed_dim / vision_num_heads) must be even");
  in_range("vision patches (image_size / patch_size squared)", v.patches(), 1, 65536);
}

void validate_rope(const RopeConfig& r) {
  in_range("rope_theta", r.theta, 1.0 + 1e-6, 1e12);
  if (!r.yarn) return;
  in_range("rope factor", r.factor, 1.0, 1e6);
  in_range("rope beta_fast", r.beta_fast, 1e-6, 1e6);
  in_range("rope beta_slow", r.beta_slow, 1e-6, 1e6);
  require(r.beta_fast >= r.beta_slow, "rope beta_fast is smaller than beta_slow");
  in_range("rope original_max_position_embeddings", r.original_max_position_embeddings, 1, 1 << 28);
  in_range("rope attention_factor", r.attention_factor, 0.0, 1e3);
}

}  // namespace

PositionKind Config::position_kind(std::int64_t layer) const {
  if (!use_nope || nope_stride <= 0 || (layer + 1) % nope_stride != 0) return PositionKind::kRope;
  return nope_attention_scaling ? PositionKind::kScaleOnly : PositionKind::kNone;
}

void validate(const Config& c) {
  in_range("vocab_size", c.vocab_size, 1, 1 << 24);
  in_range("hidden_size", c.hidden_size, 1, 1 << 16);
  in_range("intermediate_size", c.intermediate_size, 1, 1 << 18);
  in_range("num_hidden_layers", c.num_hidden_layers, 1, 1024);
  in_range("num_local_experts", c.num_local_experts, 1, 1024);
  in_range("num_experts_per_tok", c.num_experts_per_tok, 1, 64);
  require(c.num_experts_per_tok <= c.num_local_experts, "num_experts_per_tok is larger than num_local_experts");
  in_range("head_dim", c.head_dim, 2, 256);
  require(c.head_dim % 2 == 0, "head_dim must be even");
  in_range("num_attention_heads", c.num_attention_heads, 1, 4096);
  in_range("num_key_value_heads", c.num_key_value_heads, 1, 4096);
  require(c.num_attention_heads % c.num_key_value_heads == 0,
          "num_attention_heads is not a multiple of num_key_value_heads");
  require(c.layer_types.size() == static_cast<std::size_t>(c.num_hidden_layers),
          "layer_types does not have num_hidden_layers entries");
  in_range("sliding_window", c.sliding_window, 1, 1 << 24);
  in_range("max_position_embeddings", c.max_position_embeddings, 1, 1 << 24);
  in_range("initial_context_length", c.initial_context_length, 1, 1 << 24);
  in_range("rms_norm_eps", c.rms_norm_eps, 0.0, 1.0);
  in_range("swiglu_alpha", c.swiglu_alpha, 0.0, 100.0);
  in_range("swiglu_limit", c.swiglu_limit, 1e-3, 1e6);
  in_range("initializer_range", c.initializer_range, 0.0, 10.0);
  in_range("router_aux_loss_coef", c.router_aux_loss_coef, 0.0, 1e6);
  in_range("nope_stride", c.nope_stride, -1024, 1 << 20);
  in_range("image_token_id", c.image_token_id, -1, c.vocab_size - 1);
  in_range("pad_token_id", c.pad_token_id, -1, 1 << 24);
  require(c.eos_token_ids.size() <= 64, "eos_token_id has more than 64 entries");
  for (const std::int64_t id : c.eos_token_ids) in_range("eos_token_id", id, 0, 1 << 24);
  validate_rope(c.rope);
  if (c.use_vision) validate_vision(c.vision);
  require(!(c.use_vision && c.model_type == "gpt_oss"), "use_vision is true but model_type is gpt_oss (text only)");
  if (c.mxfp4_experts) {
    require(c.hidden_size % kMxfp4Block == 0, "hidden_size must be a multiple of 32 with mxfp4 experts");
    require(c.intermediate_size % kMxfp4Block == 0, "intermediate_size must be a multiple of 32 with mxfp4 experts");
  }
}

std::span<const std::string_view> preset_names() { return kPresetNames; }

Config preset(std::string_view name) {
  if (std::find(kPresetNames.begin(), kPresetNames.end(), name) == kPresetNames.end()) {
    fail(ErrorCode::kNotFound, "no preset named '{}'; known: {}", printable(name), fmt::join(kPresetNames, ", "));
  }
  Config c;
  const bool vision = name.find("vision") != std::string_view::npos;
  c.model_type = vision ? "gpt_oss_vision" : "gpt_oss";
  c.use_vision = vision;
  if (vision) c.image_token_id = 200014;
  if (name.ends_with("120b")) {
    c.num_hidden_layers = 36;
    c.num_local_experts = 128;
  }
  if (name == "mini") {
    c.num_hidden_layers = 4;
    c.num_local_experts = 8;
    c.vocab_size = 32768;
    c.eos_token_ids = {32767};
    c.pad_token_id = 32766;
  } else {
    c.eos_token_ids = {200002, 199999, 200012};
  }
  c.layer_types = alternating_layers(c.num_hidden_layers);
  c.rope.yarn = true;
  c.mxfp4_experts = true;
  validate(c);
  return c;
}

std::vector<float> rope_inv_freq(const Config& c) {
  const RopeConfig& r = c.rope;
  const double dim = static_cast<double>(c.head_dim);
  const auto half = static_cast<std::size_t>(c.head_dim / 2);
  // The (fractional) dimension whose wavelength makes `rotations` turns over the original context.
  const auto correction_dim = [&](double rotations) {
    return dim *
           std::log(static_cast<double>(r.original_max_position_embeddings) / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(r.theta));
  };
  double low = correction_dim(r.beta_fast), high = correction_dim(r.beta_slow);
  if (r.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;  // as transformers does, to keep the ramp finite
  std::vector<float> inv_freq(half);
  for (std::size_t i = 0; i < half; ++i) {
    const double frequency = std::pow(r.theta, -2.0 * static_cast<double>(i) / dim);
    if (!r.yarn) {
      inv_freq[i] = static_cast<float>(frequency);
      continue;
    }
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inv_freq[i] = static_cast<float>(ramp * frequency / r.factor + (1 - ramp) * frequency);
  }
  return inv_freq;
}

float rope_attention_factor(const Config& c) {
  if (!c.rope.yarn) return 1.f;
  if (c.rope.attention_factor > 0) return static_cast<float>(c.rope.attention_factor);
  return c.rope.factor <= 1 ? 1.f : static_cast<float>(0.1 * std::log(c.rope.factor) + 1.0);
}

}  // namespace gov
