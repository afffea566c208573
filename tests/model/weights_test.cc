#include "model/weights.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "io/safetensors.h"
#include "model/parameters.h"
#include "model/random.h"
#include "model/transformer.h"

namespace gov {
namespace {

Config tiny(bool vision, bool mxfp4) {
  Config c;
  c.model_type = vision ? "gpt_oss_vision" : "gpt_oss";
  c.vocab_size = 50;
  c.hidden_size = 64;
  c.intermediate_size = 32;
  c.num_hidden_layers = 2;
  c.num_local_experts = 3;
  c.num_experts_per_tok = 2;
  c.head_dim = 8;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.layer_types = {AttentionKind::kSliding, AttentionKind::kFull};
  c.eos_token_ids = {0};
  c.mxfp4_experts = mxfp4;
  c.use_vision = vision;
  c.vision.image_size = 8;
  c.vision.patch_size = 4;
  c.vision.embed_dim = 16;
  c.vision.num_layers = 1;
  c.vision.num_heads = 2;
  c.vision.intermediate_size = 24;
  c.dtype = "float32";
  return c;
}

struct File {
  std::string name;
  DType dtype;
  Shape shape;
  std::vector<std::byte> bytes;
};

// A checkpoint of random weights under `folder`, after `change` has had its way with the tensors.
class Fixture {
 public:
  explicit Fixture(const Config& config) : config_(config) {
    std::string name = (std::filesystem::temp_directory_path() / "gov-weights-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
    folder_ = name;
    for (const ParameterSpec& spec : parameter_table(config)) {
      const DType dtype = spec.storage == Storage::kU8 ? DType::kU8 : DType::kF32;
      File file{spec.name, dtype, spec.shape,
                std::vector<std::byte>(static_cast<std::size_t>(spec.shape.elements()) * dtype_size(dtype))};
      fill_random(spec, config, 1, dtype, 0, spec.shape.elements(), file.bytes.data());
      files.push_back(std::move(file));
    }
  }
  ~Fixture() { std::filesystem::remove_all(folder_); }

  File& at(const std::string& name) {
    for (File& file : files) {
      if (file.name == name) return file;
    }
    throw std::runtime_error(name);
  }
  void drop(const std::function<bool(const std::string&)>& which) {
    std::erase_if(files, [&](const File& file) { return which(file.name); });
  }
  Weights load(Config* changed = nullptr) {
    std::vector<TensorSpec> specs;
    for (const File& file : files) specs.push_back({file.name, file.dtype, file.shape});
    SafetensorsWriter writer(folder_ / "model.safetensors", specs, {});
    for (const File& file : files) writer.write(file.bytes);
    writer.finish();
    Config config = config_;
    Log log{[&](LogLevel, std::string_view text) { notes += std::string(text) + "\n"; }};
    Weights weights = load_weights(std::make_shared<const Checkpoint>(Checkpoint::open(folder_)), config, pool, log);
    if (changed) *changed = config;
    return weights;
  }
  std::string error() {
    try {
      load();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  std::vector<File> files;
  std::string notes;
  ThreadPool pool{2};

 private:
  Config config_;
  std::filesystem::path folder_;
};

TEST(Weights, FileAndMemoryHoldTheSameRandomValues) {
  for (const bool mxfp4 : {false, true}) {
    const Config c = tiny(true, mxfp4);
    Fixture fixture(c);
    const Weights from_file = fixture.load();
    const Weights in_memory = random_weights(c, 1, fixture.pool);
    EXPECT_EQ(fixture.notes, "");
    const auto& l0 = from_file.layers[0];
    const auto& m0 = in_memory.layers[0];
    const std::pair<Tensor, Tensor> pairs[] = {{from_file.embed, in_memory.embed},
                                               {from_file.lm_head, in_memory.lm_head},
                                               {l0.attention.q, m0.attention.q},
                                               {l0.attention.sinks, m0.attention.sinks},
                                               {l0.moe.gate_up.weight, m0.moe.gate_up.weight},
                                               {l0.moe.gate_up.blocks, m0.moe.gate_up.blocks},
                                               {l0.moe.down.scales, m0.moe.down.scales},
                                               {from_file.vision.patch, in_memory.vision.patch},
                                               {from_file.vision.layers[0].fc2, in_memory.vision.layers[0].fc2}};
    for (const auto& [x, y] : pairs) {
      ASSERT_EQ(x.shape, y.shape);
      if (x.data) {
        EXPECT_EQ(std::memcmp(x.data, y.data, x.bytes()), 0) << x.name;
      }
    }
  }
}

TEST(Weights, UnquantisedExpertsAreTransposed) {
  const Config c = tiny(false, false);
  Fixture fixture(c);
  const Weights weights = fixture.load();
  const auto& stored = fixture.at("model.layers.1.mlp.experts.gate_up_proj");  // [E, H, 2I]
  const auto* in = reinterpret_cast<const float*>(stored.bytes.data());
  const Tensor& used = weights.layers[1].moe.gate_up.weight;  // [E, 2I, H]
  ASSERT_EQ(used.shape, (Shape{3, 64, 64}));
  for (std::int64_t e = 0; e < 3; ++e) {
    for (std::int64_t h = 0; h < 64; ++h) {
      for (std::int64_t o = 0; o < 64; ++o)
        ASSERT_EQ(used.as<float>()[(e * 64 + o) * 64 + h], in[(e * 64 + h) * 64 + o]);
    }
  }
}

TEST(Weights, NewerVitNamesAreAccepted) {
  Fixture fixture(tiny(true, true));
  const std::pair<const char*, const char*> renames[] = {{"attention.attention.query", "attention.q_proj"},
                                                         {"attention.attention.key", "attention.k_proj"},
                                                         {"attention.attention.value", "attention.v_proj"},
                                                         {"attention.output.dense", "attention.o_proj"},
                                                         {"intermediate.dense", "mlp.fc1"}};
  for (File& file : fixture.files) {
    const auto at = file.name.find("vit.encoder.layer.0.");
    if (at == std::string::npos) continue;
    std::string rest = file.name.substr(at + 20);
    if (rest.starts_with("output.dense")) rest = "mlp.fc2" + rest.substr(12);
    for (const auto& [old_name, new_name] : renames) {
      if (rest.starts_with(old_name)) rest = new_name + rest.substr(std::strlen(old_name));
    }
    file.name = file.name.substr(0, at) + "vit.layers.0." + rest;
  }
  EXPECT_EQ(fixture.error(), "");
}

TEST(Weights, MissingTensorsAreNamed) {
  Fixture fixture(tiny(false, true));
  fixture.drop(
      [](const std::string& name) { return name == "model.norm.weight" || name.ends_with("1.self_attn.sinks"); });
  const std::string error = fixture.error();
  EXPECT_NE(error.find("lacks 2 tensors"), std::string::npos) << error;
  EXPECT_NE(error.find("model.layers.1.self_attn.sinks"), std::string::npos) << error;
  EXPECT_NE(error.find("model.norm.weight"), std::string::npos) << error;
}

TEST(Weights, MisshapenTensorsAreNamedWithBothShapes) {
  Fixture fixture(tiny(false, true));
  fixture.at("model.layers.0.self_attn.q_proj.weight").shape = Shape{64, 32};
  const std::string error = fixture.error();
  EXPECT_NE(error.find("model.layers.0.self_attn.q_proj.weight is f32 [64, 32], expected f32, bf16 or f16 [32, 64]"),
            std::string::npos)
      << error;
}

TEST(Weights, WrongElementTypesAreNamed) {
  Fixture fixture(tiny(false, true));
  File& norm = fixture.at("model.norm.weight");
  norm.dtype = DType::kI32;
  EXPECT_NE(fixture.error().find("model.norm.weight is i32"), std::string::npos);
}

TEST(Weights, ExtraTensorsAreNotedAndPoolersAreNot) {
  Fixture fixture(tiny(true, true));
  fixture.files.push_back({"model.surprise", DType::kF32, Shape{1}, std::vector<std::byte>(4)});
  fixture.files.push_back(
      {"model.vision_adapter.vit.pooler.dense.weight", DType::kF32, Shape{1}, std::vector<std::byte>(4)});
  EXPECT_EQ(fixture.error(), "");
  EXPECT_NE(fixture.notes.find("model.surprise"), std::string::npos);
  EXPECT_EQ(fixture.notes.find("pooler"), std::string::npos);
}

TEST(Weights, TextCheckpointOpenedAsVisionModel) {
  Fixture fixture(tiny(true, true));
  fixture.drop([](const std::string& name) {
    return name.starts_with("model.vision_adapter.") || name.ends_with("vision_bias");
  });
  Config config;
  const Weights weights = fixture.load(&config);
  EXPECT_FALSE(config.use_vision);
  EXPECT_FALSE(weights.layers[0].moe.vision_bias);
  EXPECT_NE(fixture.notes.find("no image encoder"), std::string::npos);
}

TEST(Weights, MissingVisionBiasIsZeroWithANote) {
  Fixture fixture(tiny(true, true));
  fixture.drop([](const std::string& name) { return name.ends_with("0.mlp.router.vision_bias"); });
  const Weights weights = fixture.load();
  ASSERT_TRUE(weights.layers[0].moe.vision_bias);
  EXPECT_EQ(weights.layers[0].moe.vision_bias.as<float>()[2], 0.f);
  EXPECT_NE(fixture.notes.find("model.layers.0.mlp.router.vision_bias"), std::string::npos);
}

TEST(Weights, BadScalesAreRefused) {
  for (const int scale : {255, 254, 253}) {
    Fixture fixture(tiny(false, true));
    fixture.at("model.layers.1.mlp.experts.down_proj_scales").bytes[5] = static_cast<std::byte>(scale);
    fixture.at("model.layers.1.mlp.experts.down_proj_blocks").bytes[5 * 16 + 3] = std::byte{0x07};  // the value 6
    const std::string error = fixture.error();
    EXPECT_NE(error.find("down_proj_scales"), std::string::npos) << scale << ": " << error;
    EXPECT_NE(error.find("position 5"), std::string::npos) << error;
  }
  Fixture fixture(tiny(false, true));  // 254 is fine where no value overflows
  fixture.at("model.layers.1.mlp.experts.down_proj_scales").bytes[5] = std::byte{254};
  std::fill_n(fixture.at("model.layers.1.mlp.experts.down_proj_blocks").bytes.begin() + 5 * 16, 16, std::byte{0x11});
  EXPECT_EQ(fixture.error(), "");
}

TEST(Weights, ContradictingExpertFormsSayWhy) {
  Fixture dense(tiny(false, false));
  Config says_mxfp4 = tiny(false, true);
  Fixture packed(says_mxfp4);
  std::swap(dense.files, packed.files);
  EXPECT_NE(packed.error().find("not quantised"), std::string::npos) << packed.error();
  EXPECT_NE(dense.error().find("no quantization_config"), std::string::npos) << dense.error();
}

TEST(Weights, RandomValuesDoNotDependOnOrderOrThreads) {
  const Config c = tiny(false, false);
  const ParameterSpec spec = parameter_table(c)[0];
  std::vector<float> whole(200), parts(200);
  fill_random(spec, c, 7, DType::kF32, 0, 200, whole.data());
  for (std::int64_t at = 199; at >= 0; --at) fill_random(spec, c, 7, DType::kF32, at, 1, parts.data() + at);
  EXPECT_EQ(whole, parts);
  double sum = 0, squares = 0;
  std::vector<float> many(100000);
  fill_random(spec, c, 7, DType::kF32, 0, 100000, many.data());
  for (const float x : many) sum += x, squares += x * x;
  EXPECT_NEAR(sum / 1e5, 0, 4 * 0.02 / std::sqrt(1e5));
  EXPECT_NEAR(std::sqrt(squares / 1e5), 0.02, 0.0004);
}

}  // namespace
}  // namespace gov
