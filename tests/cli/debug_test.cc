// The debug commands. What `debug forward` computes is compared with the golden cases in tests/golden; here: its form.

#include <fmt/format.h>

#include <cmath>
#include <numeric>

#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "tests/cli/run_program.h"

namespace gov::test {
namespace {

void write_inputs(const std::string& path, std::int64_t batch, std::int64_t text, std::int64_t first_id,
                  const std::vector<float>& pixels = {}, std::int64_t side = 0) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(batch * text));
  std::iota(ids.begin(), ids.end(), first_id);
  std::vector<TensorSpec> specs = {{"input_ids", DType::kI64, Shape{batch, text}}};
  if (!pixels.empty()) specs.push_back({"pixel_values", DType::kF32, Shape{batch, 3, side, side}});
  SafetensorsWriter writer(path, specs);
  writer.write(std::as_bytes(std::span(ids)));
  writer.write(std::as_bytes(std::span(pixels)));
  writer.finish();
}

TEST(DebugForward, WritesEveryTensorOfTheFormat) {
  const TempFolder folder;
  std::vector<float> pixels(static_cast<std::size_t>(2 * 3 * 224 * 224));
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = std::sin(static_cast<float>(i) * 0.01f);
  write_inputs(folder / "in.safetensors", 2, 16, 100, pixels, 224);
  const Ran ran = run({"debug", "forward", "--model", nano(), "--inputs", folder / "in.safetensors", "--output",
                       folder / "out.safetensors", "--generate", "3"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out + ran.err, "");
  const SafetensorsFile out = SafetensorsFile::open(folder / "out.safetensors");
  const auto shape = [&](const std::string& name) {
    const SafetensorsEntry* entry = out.find(name);
    return entry == nullptr ? std::string("absent") : std::string(entry->stored_dtype) + entry->shape.str();
  };
  constexpr int kRows = 258 + 16;
  EXPECT_EQ(shape("logits"), fmt::format("F32[2, {}, 4096]", kRows));
  EXPECT_EQ(shape("vision_embeds"), "F32[2, 258, 256]");
  EXPECT_EQ(shape("inv_freq"), "F32[32]");
  EXPECT_EQ(shape("loss"), "F32[1]");
  EXPECT_EQ(shape("aux_loss"), "F32[1]");
  EXPECT_EQ(shape("generated_ids"), "I64[2, 15]");
  for (int layer = 0; layer < 6; ++layer) {
    EXPECT_EQ(shape(fmt::format("hidden.{}", layer)), fmt::format("F32[2, {}, 256]", kRows));
    EXPECT_EQ(shape(fmt::format("router_logits.{}", layer)), fmt::format("F32[2, {}, 8]", kRows));
    EXPECT_EQ(shape(fmt::format("router_indices.{}", layer)), fmt::format("I64[2, {}, 4]", kRows));
    EXPECT_EQ(shape(fmt::format("router_weights.{}", layer)), fmt::format("F32[2, {}, 4]", kRows));
  }
  EXPECT_EQ(out.entries().size(), 6u * 4 + 6);
  // The weights of a row add up to one and fall; the generated ids start with the prompt.
  const Tensor weights = out.tensor(*out.find("router_weights.5"));
  for (std::int64_t row = 0; row < 2 * kRows; ++row) {
    const float* w = weights.as<float>() + row * 4;
    EXPECT_NEAR(w[0] + w[1] + w[2] + w[3], 1.f, 1e-5f);
    EXPECT_TRUE(w[0] >= w[1] && w[1] >= w[2] && w[2] >= w[3]);
  }
  const auto* generated = out.tensor(*out.find("generated_ids")).as<std::int64_t>();
  EXPECT_EQ(generated[0], 100);
  EXPECT_EQ(generated[15 + 11], 100 + 16 + 11);
}

TEST(DebugForward, TextOnlyAndShortRows) {
  const TempFolder folder;
  write_inputs(folder / "in.safetensors", 1, 5, 7);
  const Ran ran = run({"debug", "forward", "--model", nano(), "--inputs", folder / "in.safetensors", "--output",
                       folder / "out.safetensors", "--generate-prompt", "9"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  const SafetensorsFile out = SafetensorsFile::open(folder / "out.safetensors");
  EXPECT_EQ(out.find("vision_embeds"), nullptr);
  EXPECT_EQ(out.find("generated_ids")->shape, (Shape{1, 45}));
  // The first generated token is the likeliest after the last row.
  const Tensor logits = out.tensor(*out.find("logits"));
  const float* last = logits.as<float>() + 4 * 4096;
  const auto* generated = out.tensor(*out.find("generated_ids")).as<std::int64_t>();
  const auto best = std::max_element(last, last + 4095) - last;  // id 4095 is the picture's placeholder, never drawn
  EXPECT_EQ(generated[5], best);
}

TEST(DebugForward, Refusals) {
  const TempFolder folder;
  write_inputs(folder / "ids.safetensors", 1, 5, 4094);
  write_inputs(folder / "pixels.safetensors", 1, 5, 0, std::vector<float>(3 * 10 * 10), 10);
  write_file(folder / "junk.safetensors", "junk");
  {
    SafetensorsWriter writer(folder / "names.safetensors", {{"other", DType::kF32, Shape{1}}});
    const float value = 1.f;
    writer.write(std::as_bytes(std::span(&value, 1)));
    writer.finish();
  }
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"ids", "input_ids"}, {"pixels", "pixel_values"}, {"junk", "junk"}, {"names", "input_ids"}, {"absent", "absent"}};
  for (const auto& [name, part] : cases) {
    const Ran ran = run({"debug", "forward", "--model", nano(), "--inputs", folder / (name + ".safetensors"),
                         "--output", folder / "out.safetensors"});
    EXPECT_EQ(ran.status, 1) << name;
    EXPECT_TRUE(ran.failed_cleanly()) << ran.err;
    EXPECT_NE(ran.err.find(part), std::string::npos) << ran.err;
    EXPECT_FALSE(std::filesystem::exists(folder / "out.safetensors"));
  }
}

TEST(DebugTokenize, JsonLines) {
  RunOptions lines;
  lines.input = "{\"text\": \"What is this?\"}\n{\"text\": \"<|start|>\\u00e9\"}\n";
  const Ran ran = run({"debug", "tokenize", "--tokenizer", nano()}, lines);
  ASSERT_EQ(ran.status, 0) << ran.err;
  const auto answers = lines_of(ran.out);
  ASSERT_EQ(answers.size(), 2u);
  const std::string first = lines_of(run({"tokenize", "--json", "What is this?"}).out).at(0);
  EXPECT_EQ(answers[0], first);
  const Ran special = run({"debug", "tokenize", "--special"}, lines);
  EXPECT_LT(lines_of(special.out).at(1).size(), answers[1].size());
  lines.input = "{\"text\": 5}\n";
  const Ran bad = run({"debug", "tokenize"}, lines);
  EXPECT_EQ(bad.status, 1);
  EXPECT_TRUE(bad.failed_cleanly()) << bad.err;
}

TEST(DebugPreprocess, SummaryAndFile) {
  const Ran summary = run({"debug", "preprocess", dog_picture()});
  ASSERT_EQ(summary.status, 0) << summary.err;
  const Json json(summary.out);
  EXPECT_EQ(json.integer("/shape/1"), 224);
  EXPECT_LT(json.number("/channels/0/min"), json.number("/channels/0/max"));
  const TempFolder folder;
  ASSERT_EQ(run({"debug", "preprocess", dog_picture(), "--output", folder / "p.safetensors"}).status, 0);
  const SafetensorsFile file = SafetensorsFile::open(folder / "p.safetensors");
  const Tensor pixels = file.tensor(*file.find("pixel_values"));
  EXPECT_EQ(pixels.shape, (Shape{1, 3, 224, 224}));
  double sum = 0;
  for (int i = 0; i < 224 * 224; ++i) sum += static_cast<double>(pixels.as<float>()[i]);
  EXPECT_NEAR(sum / (224 * 224), json.number("/channels/0/mean"), 1e-9);
}

// The numbers are compared in tests/golden; here: names, shapes, and what steps do.
TEST(DebugTraining, GradientsOfEveryTensor) {
  const TempFolder folder;
  write_inputs(folder / "in.safetensors", 1, 12, 100);
  const Ran ran = run({"debug", "gradients", "--model", nano(), "--inputs", folder / "in.safetensors", "--output",
                       folder / "out.safetensors", "--aux-coefficient", "0.001"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out + ran.err, "");
  const SafetensorsFile out = SafetensorsFile::open(folder / "out.safetensors");
  const Checkpoint model = Checkpoint::open(nano());
  for (const std::string_view stored : model.names()) {
    std::string name(stored);
    if (name.ends_with("_scales")) continue;
    const bool packed = name.ends_with("_blocks");
    if (packed) name.resize(name.size() - 7);
    const SafetensorsEntry* gradient = out.find("grad." + name);
    ASSERT_NE(gradient, nullptr) << name;
    if (!packed) {
      EXPECT_EQ(gradient->shape, model.find(stored)->shape) << name;
    }
  }
  const Tensor loss = out.tensor(*out.find("loss"));
  EXPECT_GT(loss.as<float>()[0], 0.f);
  // Without pictures the encoder has no gradient; the embedding has one for the tokens that were there.
  const Tensor projection = out.tensor(*out.find("grad.model.vision_adapter.proj.weight"));
  for (std::int64_t i = 0; i < projection.elements(); ++i) ASSERT_EQ(projection.as<float>()[i], 0.f);
}

TEST(DebugTraining, StepsLowerTheLoss) {
  const TempFolder folder;
  write_inputs(folder / "in.safetensors", 2, 10, 500);
  const Ran ran = run({"debug", "train-steps", "--model", nano(), "--inputs", folder / "in.safetensors", "--output",
                       folder / "out.safetensors", "--steps", "3", "--lr", "0.001"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  const SafetensorsFile out = SafetensorsFile::open(folder / "out.safetensors");
  const Tensor losses = out.tensor(*out.find("train.losses"));
  EXPECT_EQ(losses.shape, (Shape{3, 2}));
  EXPECT_EQ(out.find("train.grad_norms")->shape, (Shape{3}));
  EXPECT_LT(losses.as<float>()[4], losses.as<float>()[0]);
}

TEST(DebugTraining, Refusals) {
  const TempFolder folder;
  write_inputs(folder / "one.safetensors", 1, 1, 5);  // one token predicts nothing
  const Ran nothing = run({"debug", "gradients", "--model", nano(), "--inputs", folder / "one.safetensors", "--output",
                           folder / "out.safetensors"});
  EXPECT_EQ(nothing.status, 1);
  EXPECT_TRUE(nothing.failed_cleanly());
  EXPECT_NE(nothing.err.find("nothing to predict"), std::string::npos) << nothing.err;
  EXPECT_EQ(run({"debug", "gradients", "--recompute", "some"}).status, 2);
  EXPECT_EQ(run({"debug", "train-steps", "--steps", "0"}).status, 2);
}

}  // namespace
}  // namespace gov::test
