// The embedded model against the implementation that trained it: image embeddings, logits, greedy continuations, and
// the answers about the forty test pictures.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <sstream>

#include "engine/engine.h"
#include "engine/model_package.h"
#include "image/image.h"
#include "io/safetensors.h"
#include "model/device_weights.h"
#include "tests/test_device.h"

namespace gov {
namespace {

const std::filesystem::path kSource = GOV_SOURCE_DIR;

struct Nano {
  explicit Nano(bool on_device = false) {
    if (on_device) package.model = to_device(std::move(package.model), {test::test_ordinal(), false, {}}, pool);
  }
  ThreadPool pool{2};
  ModelPackage package = load_package(kSource / "models/nano", pool);
  SafetensorsFile parity =
      SafetensorsFile::open(std::filesystem::path(GOV_UNPACKED_DIR) / "tests/golden/data/nano_parity.safetensors");

  Tensor tensor(int picture, const char* name) const {
    const SafetensorsEntry* entry = parity.find(std::to_string(picture) + "." + name);
    if (entry == nullptr) throw std::runtime_error(name);
    return parity.tensor(*entry);
  }
  std::vector<float> pixel_values(int picture) const {
    const Tensor bytes = tensor(picture, "pixels_u8");  // [1, 3, 224, 224]
    Image image{224, 224, std::vector<std::uint8_t>(static_cast<std::size_t>(bytes.elements()))};
    const auto* planes = static_cast<const std::uint8_t*>(bytes.data);
    constexpr std::size_t kPlane = 224 * 224;
    for (std::size_t i = 0; i < kPlane; ++i) {
      for (std::size_t c = 0; c < 3; ++c) image.pixels[i * 3 + c] = planes[c * kPlane + i];
    }
    std::vector<float> values(3 * kPlane);
    package.preprocessor.apply(image, values.data());
    return values;
  }
  std::vector<std::int32_t> ids(int picture, const char* name) const {
    const Tensor t = tensor(picture, name);
    return {t.as<std::int64_t>(), t.as<std::int64_t>() + t.elements()};
  }
};

void expect_close(const Tensor& want, const float* got, double max_abs) {
  double error = 0, norm = 0, largest = 0;
  for (std::int64_t i = 0; i < want.elements(); ++i) {
    const double e = want.as<float>()[i], d = std::fabs(e - got[i]);
    error += d * d;
    norm += e * e;
    if (!(d <= largest)) largest = d;
  }
  EXPECT_LE(std::sqrt(error / norm), 1e-5);
  EXPECT_LE(largest, max_abs);
}

// All logits [n + T, V] of one picture in front of `ids`, and the image's embeddings.
struct Pass {
  std::vector<float> embeds, logits;
};

// Host values where the context computes, and back.
Buffer to_place(const Context& ctx, const std::vector<float>& values) {
  Buffer out(values.size() * sizeof(float), ctx.device, "a test");
  copy_bytes(out.data(), ctx.device, values.data(), DeviceKind::kCpu, out.bytes(), ctx.stream);
  return out;
}
std::vector<float> to_host(const Context& ctx, const void* data, std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  copy_bytes(values.data(), DeviceKind::kCpu, data, ctx.device, values.size() * sizeof(float), ctx.stream);
  if (ctx.on_cuda()) synchronize(ctx.stream);
  return values;
}

Pass run_forward(Nano& nano, const std::vector<float>& pixels, const std::vector<std::int32_t>& ids) {
  const Model& model = nano.package.model;
  const Config& c = model.config;
  const bool gpu = model.device == DeviceKind::kCuda;
  const Stream stream = gpu ? Stream::create() : Stream();
  Context ctx = gpu ? Context(model.ordinal, stream.get()) : Context();
  ctx.pool = &nano.pool;
  Pass pass;
  const std::int64_t n = c.vision.tokens(), rows = n + static_cast<std::int64_t>(ids.size());
  const Buffer embeds(static_cast<std::size_t>(n * c.hidden_size) * sizeof(float), model.device, "a test");
  VisionActivations vision(c, 1, {model.device, DType::kF32});
  const Buffer picture = to_place(ctx, pixels);
  encode_images(ctx, model, Tensor(picture.data(), DType::kF32, {1, 3, 224, 224}, "pixels", model.device), vision,
                Tensor(embeds.data(), DType::kF32, {n, c.hidden_size}, "embeds", model.device));
  pass.embeds = to_host(ctx, embeds.data(), n * c.hidden_size);

  KvCacheSpec spec;
  spec.full_blocks = spec.sliding_blocks = full_blocks_needed(spec, rows);
  const KvCache cache(c, spec, model.device);
  std::vector<std::int32_t> table(static_cast<std::size_t>(spec.full_blocks));
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>(i);
  BatchBuilder builder;
  builder.clear(spec.full_blocks);
  builder.begin_sequence(static_cast<std::int32_t>(rows), table, table);
  for (std::int64_t r = 0; r < rows; ++r) {
    const ImageRow image_row = r < n ? ImageRow{static_cast<const float*>(embeds.data()), r} : ImageRow{};
    const std::int32_t token = r < n ? 0 : ids[static_cast<std::size_t>(r - n)];
    builder.add_row(token, static_cast<std::int32_t>(r), r, r, image_row);
    builder.want_logits();
  }
  Activations acts(c, rows, rows, {model.device, DType::kF32});
  std::optional<BatchUploader> uploader;
  if (gpu) uploader.emplace(rows, 1, spec.full_blocks, c.hidden_size);
  forward(ctx, model, gpu ? uploader->upload(builder, ctx.stream) : builder.view(c.hidden_size), cache, acts);
  pass.logits = to_host(ctx, acts.logits.data, rows * c.vocab_size);
  return pass;
}

void check_embeddings_and_logits(Nano& nano) {
  for (int picture = 0; picture < 4; ++picture) {
    SCOPED_TRACE(picture);
    const Pass pass = run_forward(nano, nano.pixel_values(picture), nano.ids(picture, "input_ids"));
    expect_close(nano.tensor(picture, "vision_embeds"), pass.embeds.data(), 1e-3);
    const std::int64_t offset = nano.tensor(picture, "logits_offset").as<std::int64_t>()[0];
    expect_close(nano.tensor(picture, "logits"), pass.logits.data() + offset * 4096, 2e-4);
    if (picture > 0) continue;
    const Tensor sampled = nano.tensor(0, "logits_sampled");  // rows 0, 30, 60, ... of all positions
    for (std::int64_t i = 0; i < sampled.shape[1]; ++i) {
      SCOPED_TRACE(i);
      expect_close(sampled.view({sampled.shape[1], 4096}).slice(i, 1), pass.logits.data() + i * 30 * 4096, 2e-4);
    }
  }
}

TEST(NanoParity, EmbeddingsAndLogits) {
  Nano nano;
  check_embeddings_and_logits(nano);
}
TEST(NanoParity, EmbeddingsAndLogitsOnDevice) {
  GOV_NEEDS_TEST_DEVICE();
  Nano nano(true);
  check_embeddings_and_logits(nano);
}

void check_continuations(Nano& nano) {
  EngineOptions options;
  options.context = 512;
  Engine engine(nano.package.model, &nano.package.tokenizer, nano.package.stop_ids, options, nano.pool);
  for (int picture = 0; picture < 4; ++picture) {
    SCOPED_TRACE(picture);
    Request request;
    request.prompt = nano.ids(picture, "input_ids");
    request.images.push_back(nano.pixel_values(picture));
    request.options.sampling.temperature = 0;
    const RequestResult result = std::move(generate(engine, {std::move(request)}).front());
    std::vector<std::int32_t> tokens = result.choices.front().tokens;
    if (result.choices.front().stop_token >= 0) tokens.push_back(result.choices.front().stop_token);
    EXPECT_EQ(tokens, nano.ids(picture, "greedy_ids"));
  }
}

TEST(NanoParity, GreedyContinuations) {
  Nano nano;
  check_continuations(nano);
}
TEST(NanoParity, GreedyContinuationsOnDevice) {
  GOV_NEEDS_TEST_DEVICE();
  Nano nano(true);
  check_continuations(nano);
}

struct PictureAnswer {
  std::string file, label, ok, what_is_this, describe;
};

std::vector<PictureAnswer> picture_answers() {
  std::vector<PictureAnswer> answers;
  std::ifstream in(kSource / "tests/golden/data/nano_pictures.tsv");
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    PictureAnswer a;
    for (std::string* field : {&a.file, &a.label, &a.ok, &a.what_is_this, &a.describe})
      std::getline(fields, *field, '\t');
    answers.push_back(a);
  }
  return answers;
}

// The trainer's answers were drawn in bf16. In f32 this picture's fourth token is a tie within bf16's rounding (" grow"
// and " be", 0.08 apart); both answers are wrong.
constexpr std::string_view kTiedPicture = "crab.jpg";
constexpr float kTie = 0.1f;

// The smallest distance between the token drawn and the next likeliest one.
float smallest_gap(const Completion& completion) {
  float gap = 1e9f;
  for (const auto& top : completion.top_logprobs) gap = std::min(gap, top[0].logprob - top[1].logprob);
  return gap;
}

// The forty pictures in one batch, two questions each, as their trainer answered them.
void check_answers(Nano& nano) {
  const auto answers = picture_answers();
  ASSERT_EQ(answers.size(), 40u);
  EngineOptions options;
  options.context = 384;
  options.max_sequences = 16;
  Engine engine(nano.package.model, &nano.package.tokenizer, nano.package.stop_ids, options, nano.pool);
  std::vector<Request> requests;
  for (const PictureAnswer& a : answers) {
    const Image image =
        load_image(kSource / "models/nano/test_pictures" / a.file, nano.package.preprocessor.decode_options());
    std::vector<float> pixels(3 * 224 * 224);
    nano.package.preprocessor.apply(image, pixels.data());
    for (const char* question : {"What is this?", "Describe this picture."}) {
      const ChatMessage message{"user", {{ContentPart::Kind::kImage, ""}, {ContentPart::Kind::kText, question}}};
      ChatOptions chat;
      chat.format = nano.package.chat_format;
      Request request;
      request.prompt = render_chat(nano.package.tokenizer, std::span(&message, 1), chat);
      request.images.push_back(pixels);
      request.options.sampling.temperature = 0;
      request.options.logprobs = 2;
      requests.push_back(std::move(request));
    }
  }
  const auto results = generate(engine, std::move(requests));
  int right = 0;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    SCOPED_TRACE(answers[i].file);
    const std::string text = results[2 * i].choices.front().text;
    if (text != answers[i].what_is_this && answers[i].file == kTiedPicture) {
      EXPECT_LE(smallest_gap(results[2 * i].choices.front()), kTie);
    } else {
      EXPECT_EQ(text, answers[i].what_is_this);
    }
    EXPECT_EQ(results[2 * i + 1].choices.front().text, answers[i].describe);
    const bool names_it = text.find(" " + answers[i].label + ".") != std::string::npos;
    EXPECT_EQ(names_it, answers[i].ok == "1");
    right += names_it;
  }
  EXPECT_EQ(right, 27);
}

TEST(NanoPictures, FortyAnswers) {
  Nano nano;
  check_answers(nano);
}
TEST(NanoPictures, FortyAnswersOnDevice) {
  GOV_NEEDS_TEST_DEVICE();
  Nano nano(true);
  check_answers(nano);
}

}  // namespace
}  // namespace gov
