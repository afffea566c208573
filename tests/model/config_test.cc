#include "model/config.h"

#include <gtest/gtest.h>

#include <cmath>

namespace gov {
namespace {

std::string error_of(const std::string& json) {
  try {
    parse_config(json);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Config, DefaultsOfAnEmptyObject) {
  const Config c = parse_config("{}");
  EXPECT_EQ(c.model_type, "gpt_oss_vision");
  EXPECT_EQ(c.vocab_size, 201088);
  EXPECT_EQ(c.num_hidden_layers, 24);
  EXPECT_EQ(c.layer_types.size(), 24u);
  EXPECT_TRUE(c.is_sliding(0));
  EXPECT_FALSE(c.is_sliding(1));
  EXPECT_TRUE(c.rope.yarn);
  EXPECT_FALSE(c.rope.truncate);
  EXPECT_FALSE(c.use_vision);
  EXPECT_EQ(c.image_token_id, -1);
  EXPECT_EQ(c.vision.intermediate_size, 4096);
}

TEST(Config, YarnFrequenciesOfTheReleasedModel) {
  // From the notes on the model; unrounded correction range.
  const double expected[32] = {1,
                               0.689044306,
                               0.474782055,
                               0.327145872,
                               0.225418,
                               0.155322989,
                               0.107024421,
                               0.0737445682,
                               0.0508132748,
                               0.0317056962,
                               0.0193350011,
                               0.0115920493,
                               0.00679495949,
                               0.00386035932,
                               0.00209379238,
                               0.0010526021,
                               0.000456483919,
                               0.000129318701,
                               3.83088124e-05,
                               2.6396469e-05,
                               1.81883367e-05,
                               1.25325698e-05,
                               8.63549588e-06,
                               5.95023926e-06,
                               4.09997848e-06,
                               2.82506683e-06,
                               1.94659621e-06,
                               1.34129104e-06,
                               9.2420895e-07,
                               6.36820915e-07,
                               4.38797825e-07,
                               3.02351143e-07};
  const Config c = preset("gpt_oss_20b");
  const auto inv_freq = rope_inv_freq(c);
  ASSERT_EQ(inv_freq.size(), 32u);
  for (std::size_t i = 0; i < 32; ++i) EXPECT_NEAR(inv_freq[i] / expected[i], 1.0, 1e-6) << i;
  EXPECT_FLOAT_EQ(rope_attention_factor(c), 1.3465735902799727f);
  Config rounded = c;
  rounded.rope.truncate = true;  // what ggml does; another model
  EXPECT_GT(std::fabs(rope_inv_freq(rounded)[12] / expected[12] - 1), 1e-3);
}

TEST(Config, RopeForms) {
  EXPECT_FALSE(parse_config(R"({"rope_scaling":null})").rope.yarn);
  EXPECT_FALSE(parse_config(R"({"rope_scaling":{"rope_type":"default"}})").rope.yarn);
  const Config old_form = parse_config(R"({"rope_scaling":{"type":"yarn","factor":8,"truncate":false}})");
  EXPECT_EQ(old_form.rope.factor, 8);
  EXPECT_EQ(old_form.rope.original_max_position_embeddings, 4096);
  EXPECT_TRUE(parse_config(R"({"rope_scaling":{"rope_type":"yarn"}})").rope.truncate);
  EXPECT_EQ(parse_config(R"({"initial_context_length":2048,"rope_scaling":{"rope_type":"yarn"}})")
                .rope.original_max_position_embeddings,
            2048);
  const Config both = parse_config(
      R"({"rope_theta":10,"rope_scaling":null,"rope_parameters":{"rope_type":"yarn","rope_theta":5000,"factor":4}})");
  EXPECT_TRUE(both.rope.yarn);
  EXPECT_EQ(both.rope.theta, 5000);
  EXPECT_EQ(both.rope.factor, 4);
  EXPECT_EQ(parse_config(R"({"rope_scaling_factor":16,"rope_ntk_alpha":2,"rope_ntk_beta":64})").rope.beta_fast, 64);
  EXPECT_NE(error_of(R"({"rope_scaling":{"rope_type":"llama3"}})"), "");
}

TEST(Config, NopeLayers) {
  const Config c = parse_config(R"({"use_nope":true,"nope_stride":4,"num_hidden_layers":8})");
  for (std::int64_t i = 0; i < 8; ++i) EXPECT_EQ(c.position_kind(i) == PositionKind::kNone, i == 3 || i == 7) << i;
  EXPECT_EQ(parse_config(R"({"use_nope":true,"nope_stride":0})").position_kind(3), PositionKind::kRope);
  EXPECT_EQ(parse_config(R"({"use_nope":true,"nope_attention_scaling":true})").position_kind(3),
            PositionKind::kScaleOnly);
}

TEST(Config, AliasesAgreeOrAreRefused) {
  EXPECT_EQ(parse_config(R"({"num_experts":64})").num_local_experts, 64);
  EXPECT_EQ(parse_config(R"({"num_experts":64,"num_local_experts":64})").num_local_experts, 64);
  EXPECT_NE(error_of(R"({"num_experts":64,"num_local_experts":32})").find("contradicts"), std::string::npos);
}

TEST(Config, UnknownKeysAreNamedOnce) {
  std::vector<std::string> notes;
  Log log{[&](LogLevel, std::string_view text) { notes.emplace_back(text); }};
  parse_config(R"({"frobnicate":1,"zap":[1,2],"use_cache":true,"transformers_version":"4"})", log);
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("frobnicate, zap"), std::string::npos);
  EXPECT_EQ(notes[0].find("use_cache"), std::string::npos);
}

TEST(Config, LiesAreRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"num_hidden_layers":0})", "num_hidden_layers"},
      {R"({"num_hidden_layers":1000000000000})", "num_hidden_layers"},
      {R"({"hidden_size":"big"})", "hidden_size"},
      {R"({"hidden_size":2880.5})", "hidden_size"},
      {R"({"num_attention_heads":0})", "num_attention_heads"},
      {R"({"num_attention_heads":60})", "num_attention_heads"},
      {R"({"num_experts_per_tok":33})", "num_experts_per_tok"},
      {R"({"head_dim":63})", "head_dim"},
      {R"({"head_dim":-64})", "head_dim"},
      {R"({"layer_types":["full_attention"]})", "layer_types"},
      {R"({"layer_types":["round_attention"],"num_hidden_layers":1})", "layer_types"},
      {R"({"layer_types":7})", "layer_types"},
      {R"({"rms_norm_eps":-1})", "rms_norm_eps"},
      {R"({"sliding_window":0})", "sliding_window"},
      {R"({"eos_token_id":"x"})", "eos_token_id"},
      {R"({"eos_token_id":[1,"x"]})", "eos_token_id"},
      {R"({"model_type":"llama"})", "model_type"},
      {R"({"model_type":"gpt_oss","use_vision":true})", "use_vision"},
      {R"({"use_vision":true,"vision_num_heads":7})", "vision_embed_dim"},
      {R"({"use_vision":true,"vision_patch_size":300})", "vision_patch_size"},
      {R"({"use_vision":true,"vision_hidden_act":"relu"})", "vision_hidden_act"},
      {R"({"image_token_id":201088})", "image_token_id"},
      {R"({"quantization_config":{"quant_method":"gptq"}})", "quant_method"},
      {R"({"quantization_config":{"quant_method":"mxfp4"},"hidden_size":2890})", "hidden_size"},
      {R"({"use_vision":1})", "use_vision"},
      {R"([1])", "JSON object"},
      {R"({"a":)", "JSON"},
      {"", "JSON"},
  };
  for (const auto& [json, word] : cases) {
    const std::string message = error_of(json);
    EXPECT_NE(message.find(word), std::string::npos) << json << " -> " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << json;
  }
}

// Every number key, mutated to values that no model has: an Error with a message or a valid configuration, never a
// crash.
TEST(Config, MutantsNeverCrash) {
  const char* keys[] = {"vocab_size",
                        "hidden_size",
                        "intermediate_size",
                        "num_hidden_layers",
                        "num_local_experts",
                        "num_experts_per_tok",
                        "head_dim",
                        "num_attention_heads",
                        "num_key_value_heads",
                        "sliding_window",
                        "max_position_embeddings",
                        "initial_context_length",
                        "rope_theta",
                        "rms_norm_eps",
                        "swiglu_alpha",
                        "swiglu_limit",
                        "vision_image_size",
                        "vision_patch_size",
                        "vision_embed_dim",
                        "vision_num_layers",
                        "vision_num_heads",
                        "vision_intermediate_size",
                        "vision_layer_norm_eps",
                        "nope_stride",
                        "image_token_id",
                        "eos_token_id",
                        "pad_token_id",
                        "initializer_range"};
  const char* values[] = {"0",
                          "-1",
                          "1e308",
                          "9223372036854775807",
                          "18446744073709551615",
                          "-9223372036854775808",
                          "1e-320",
                          "\"x\"",
                          "[]",
                          "{}",
                          "true",
                          "null",
                          "0.5"};
  int refused = 0;
  for (const char* key : keys) {
    for (const char* value : values) {
      refused += !error_of(fmt::format(R"({{"use_vision":true,"use_nope":true,"{}":{}}})", key, value)).empty();
    }
  }
  EXPECT_GT(refused, 250);
}

TEST(Config, JsonRoundTrip) {
  for (const std::string_view name : preset_names()) {
    const std::string text = config_json(preset(name));
    EXPECT_EQ(config_json(parse_config(text)), text) << name;
  }
  Config c = preset("gpt_oss_vision_20b");
  c.use_nope = true;
  c.nope_attention_scaling = true;
  c.rope.attention_factor = 1.25;
  c.vision.hidden_act = ops::Gelu::kQuick;
  c.vision.pre_layernorm = true;
  c.vision.final_layernorm = c.vision.class_token = c.vision.patch_bias = c.vision.pool_token = false;
  c.rms_norm_eps = 1e-6f;
  c.layer_types.assign(24, AttentionKind::kFull);
  EXPECT_EQ(config_json(parse_config(config_json(c))), config_json(c));
  c.rope.yarn = false;
  EXPECT_FALSE(parse_config(config_json(c)).rope.yarn);
  EXPECT_THROW(preset("gpt_oss_7b"), Error);
}

}  // namespace
}  // namespace gov
