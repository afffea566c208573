// Exported folders, opened as any model: the same logits, bit for bit.

#include "train/export_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/json.h"
#include "base/mxfp4.h"
#include "io/mapped_file.h"
#include "model/transformer.h"
#include "tests/io/temp_folder.h"
#include "tests/train/train_support.h"

namespace gov::train::test {
namespace {

namespace fs = std::filesystem;
using gov::test::expect_error;
using gov::test::get_file;
using gov::test::put_file;
using gov::test::TempFolder;

Config tiny(bool tied) {
  Config c;
  c.vocab_size = 50;
  c.hidden_size = 64;
  c.intermediate_size = 32;
  c.num_hidden_layers = 3;
  c.num_local_experts = 3;
  c.num_experts_per_tok = 2;
  c.head_dim = 8;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.layer_types = {AttentionKind::kSliding, AttentionKind::kFull, AttentionKind::kFull};
  c.use_nope = true;
  c.nope_stride = 2;
  c.eos_token_ids = {0};
  c.pad_token_id = 1;
  c.initializer_range = 0.25;
  c.tie_word_embeddings = tied;
  c.dtype = "float32";
  c.use_vision = true;
  c.vision.image_size = 8;
  c.vision.patch_size = 4;
  c.vision.embed_dim = 16;
  c.vision.num_layers = 1;
  c.vision.num_heads = 2;
  c.vision.intermediate_size = 24;
  return c;
}

ParameterSet masters_of(const Config& config, ThreadPool& pool) {
  const Model model = random_model(config, 7, pool);
  ParameterSet masters(config, DeviceKind::kCpu, "masters");
  read_parameters(model.config, model.weights, masters);
  // Biases and norms are not left at zero and one.
  for (const ParameterSet::Entry& entry : masters.entries())
    for (std::int64_t i = 0; i < entry.tensor.elements(); ++i)
      entry.tensor.as<float>()[i] += 0.01f * std::sin(static_cast<float>(i + 1));
  return masters;
}

Model model_of(const ParameterSet& masters) {
  Weights weights;
  use_parameters(masters, weights);
  return make_model(masters.config(), std::move(weights));
}

// A picture and some tokens behind it.
std::vector<float> logits_of(const Model& model, ThreadPool& pool) {
  const Config& c = model.config;
  Context ctx;
  ctx.pool = &pool;
  constexpr std::int64_t kTokens = 9;
  const std::int64_t n = c.vision.tokens(), rows = n + kTokens;
  std::vector<float> pixels(3 * 8 * 8), embeds(static_cast<std::size_t>(n * c.hidden_size));
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = std::cos(static_cast<float>(i));
  VisionActivations vision(c, 1, {});
  encode_images(ctx, model, Tensor::of(pixels.data(), {1, 3, 8, 8}), vision,
                Tensor::of(embeds.data(), {n, c.hidden_size}));
  KvCacheSpec spec;
  spec.full_blocks = spec.sliding_blocks = full_blocks_needed(spec, rows);
  const KvCache cache(c, spec);
  std::vector<std::int32_t> table(static_cast<std::size_t>(spec.full_blocks));
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>(i);
  BatchBuilder builder;
  builder.clear(spec.full_blocks);
  builder.begin_sequence(static_cast<std::int32_t>(rows), table, table);
  for (std::int64_t r = 0; r < rows; ++r) {
    const ImageRow image_row = r < n ? ImageRow{embeds.data(), r} : ImageRow{};
    builder.add_row(r < n ? 0 : static_cast<std::int32_t>(3 * r % c.vocab_size), static_cast<std::int32_t>(r), r, r,
                    image_row);
    builder.want_logits();
  }
  Activations acts(c, rows, rows, {});
  forward(ctx, model, builder.view(c.hidden_size), cache, acts);
  const float* logits = acts.logits.as<float>();
  return {logits, logits + rows * c.vocab_size};
}

// What the form keeps of the masters, by its definition.
void round_to(ParameterSet& masters, ExportForm form) {
  for (const ParameterSet::Entry& entry : masters.entries()) {
    float* values = entry.tensor.as<float>();
    if (form == ExportForm::kMxfp4 && entry.spec.storage == Storage::kExpertMatrix) {
      for (std::int64_t i = 0; i < entry.tensor.elements(); i += kMxfp4Block) {
        std::uint8_t packed[kMxfp4BlockBytes], scale;
        mxfp4_encode_block(values + i, packed, &scale);
        mxfp4_decode_block(packed, scale, values + i);
      }
    } else if (form != ExportForm::kF32) {
      for (std::int64_t i = 0; i < entry.tensor.elements(); ++i) values[i] = to_f32(to_bf16(values[i]));
    }
  }
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

class Exported : public testing::TestWithParam<std::tuple<ExportForm, bool>> {};

TEST_P(Exported, GivesTheLogitsOfTheRoundedWeights) {
  const auto [form, tied] = GetParam();
  const TempFolder folder;
  ThreadPool pool(2);
  ParameterSet masters = masters_of(tiny(tied), pool);
  export_model(folder / "model", tiny(tied), masters, form, {}, 20'000);
  EXPECT_TRUE(fs::exists(folder / "model/model.safetensors.index.json"));
  std::vector<std::string> notes;
  const Model loaded =
      load_model(folder / "model", pool, {[&](LogLevel, std::string_view note) { notes.emplace_back(note); }});
  EXPECT_TRUE(notes.empty()) << notes.front();
  round_to(masters, form);
  ParameterSet read(tiny(tied), DeviceKind::kCpu, "read");
  read_parameters(loaded.config, loaded.weights, read);
  for (std::size_t i = 0; i < read.entries().size(); ++i) {
    const Tensor &a = read.entries()[i].tensor, &b = masters.entries()[i].tensor;
    EXPECT_EQ(std::memcmp(a.data, b.data, a.bytes()), 0) << read.entries()[i].spec.name;
  }
  // The kernels of packed experts sum in an order of their own.
  const std::vector<float> expected = logits_of(model_of(masters), pool), got = logits_of(loaded, pool);
  if (form != ExportForm::kMxfp4) {
    EXPECT_TRUE(same_bits(got, expected));
  } else {
    double largest = 0, difference = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      largest = std::max<double>(largest, std::fabs(expected[i]));
      difference = std::max<double>(difference, std::fabs(got[i] - expected[i]));
    }
    EXPECT_LT(difference, 1e-5 * largest);
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, Exported,
                         testing::Combine(testing::Values(ExportForm::kF32, ExportForm::kBf16, ExportForm::kMxfp4),
                                          testing::Bool()));

// Weights that are in the form already lose nothing, and their export has the same bytes again.
TEST(ExportModel, ASecondExportIsTheSame) {
  const TempFolder folder;
  ThreadPool pool(1);
  const Config config = tiny(false);
  const ParameterSet masters = masters_of(config, pool);
  export_model(folder / "a", config, masters, ExportForm::kMxfp4, {});
  const Model loaded = load_model(folder / "a", pool);
  ParameterSet again(config, DeviceKind::kCpu, "again");
  read_parameters(loaded.config, loaded.weights, again);
  export_model(folder / "b", loaded.config, again, ExportForm::kMxfp4, {});
  EXPECT_EQ(get_file(folder / "a/model.safetensors"), get_file(folder / "b/model.safetensors"));
  EXPECT_EQ(get_file(folder / "a/config.json"), get_file(folder / "b/config.json"));
}

// The layout that other readers of gpt-oss expect: names, types, shapes, values of a model that another program packed.
TEST(ExportModel, NanoPackedAsItWasPacked) {
  const TempFolder folder;
  ThreadPool pool(0);
  const Model nano = load_model(kNano, pool);
  ParameterSet masters(nano.config, DeviceKind::kCpu, "masters");
  read_parameters(nano.config, nano.weights, masters);
  export_model(folder / "nano", nano.config, masters, ExportForm::kMxfp4, kNano);
  const Checkpoint ours = Checkpoint::open(folder / "nano"), theirs = Checkpoint::open(kNano);
  EXPECT_EQ(ours.names(), theirs.names());
  for (const std::string_view name : theirs.names()) {
    const Tensor a = *ours.find(name), b = *theirs.find(name);
    EXPECT_EQ(a.dtype, b.dtype) << name;
    EXPECT_EQ(a.shape, b.shape) << name;
    if (!name.ends_with("_blocks") && !name.ends_with("_scales")) {
      EXPECT_EQ(std::memcmp(a.data, b.data, a.bytes()), 0) << name;
    }
  }
  const Model packed = load_model(folder / "nano", pool);
  ParameterSet again(nano.config, DeviceKind::kCpu, "again");
  read_parameters(packed.config, packed.weights, again);
  for (std::size_t i = 0; i < again.entries().size(); ++i) {
    const Tensor &a = again.entries()[i].tensor, &b = masters.entries()[i].tensor;
    std::int64_t different = 0;
    for (std::int64_t j = 0; j < a.elements(); ++j) different += a.as<float>()[j] != b.as<float>()[j];
    EXPECT_EQ(different, 0) << again.entries()[i].spec.name;
  }
  const Json config = Json::parse(get_file(folder / "nano/config.json"));
  EXPECT_EQ(config.find("quantization_config")->find("quant_method")->string(), "mxfp4");
  EXPECT_EQ(config.find("torch_dtype")->string(), "bfloat16");
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
                           "generation_config.json", "preprocessor_config.json"})
    EXPECT_EQ(get_file(folder / "nano" / name), get_file(kNano / name)) << name;
}

TEST(ExportModel, RefusalsLeaveNothing) {
  const TempFolder folder;
  ThreadPool pool(1);
  const Config config = tiny(false);
  const ParameterSet part(config, DeviceKind::kCpu, "part",
                          [](const ParameterSpec& spec) { return spec.part != Part::kHead; });
  const auto write = [&](const ParameterSet& masters, ExportForm form) {
    export_model(folder / "model", config, masters, form, {});
  };
  expect_error(ErrorCode::kInvalidArgument, "the weights to export lack lm_head.weight",
               [&] { write(part, ExportForm::kF32); });
  const ParameterSet masters = masters_of(config, pool);
  float& last = masters.views().layers[2].moe.down.weight.as<float>()[5];
  for (const auto& [value, form] : {std::pair(INFINITY, ExportForm::kF32), std::pair(NAN, ExportForm::kMxfp4),
                                    std::pair(3.4e38f, ExportForm::kBf16)}) {
    last = value;
    expect_error(ErrorCode::kInvalidArgument, "model.layers.2.mlp.experts.down_proj holds a value that is not finite",
                 [&] { write(masters, form); });
  }
  last = 0;
  EXPECT_TRUE(fs::is_empty(folder.path()));
  fs::create_directory(folder / "model");
  put_file(folder / "model/mine", "");
  expect_error(ErrorCode::kInvalidArgument, "exists and is not empty", [&] { write(masters, ExportForm::kF32); });
}

}  // namespace
}  // namespace gov::train::test
