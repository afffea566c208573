// The ways of decoding on a GPU beside each other, on the embedded model and the answers that it was
// taught to give about pictures: how far the fused
// step is from the composed ops in exact arithmetic, and what int8 attention and head weights cost.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "engine/model_package.h"
#include "image/image.h"
#include "model/decode.h"
#include "model/device_weights.h"
#include "tests/test_device.h"

namespace gov {
namespace {

const std::filesystem::path kSource = GOV_SOURCE_DIR;

// A question about a picture and the answer that the model is made to give, word by word.
struct Answer {
  std::vector<float> pixels;
  std::vector<std::int32_t> prompt, ids;  // text behind the picture; the answer with its end token
};

std::vector<Answer> answers(const ModelPackage& package) {
  std::vector<Answer> all;
  std::ifstream in(kSource / "tests/golden/data/nano_pictures.tsv");
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    std::string file, label, ok, what_is_this, describe;
    for (std::string* field : {&file, &label, &ok, &what_is_this, &describe}) std::getline(fields, *field, '\t');
    const Image image = load_image(kSource / "models/nano/test_pictures" / file, package.preprocessor.decode_options());
    std::vector<float> pixels(3 * 224 * 224);
    package.preprocessor.apply(image, pixels.data());
    const std::pair<const char*, std::string> turns[] = {{"What is this?", what_is_this},
                                                         {"Describe this picture.", describe}};
    for (const auto& [question, answer] : turns) {
      const ChatMessage message{"user", {{ContentPart::Kind::kImage, ""}, {ContentPart::Kind::kText, question}}};
      ChatOptions chat;
      chat.format = package.chat_format;
      Answer a{pixels, render_chat(package.tokenizer, std::span(&message, 1), chat), package.tokenizer.encode(answer)};
      a.ids.push_back(package.stop_ids.front());
      all.push_back(std::move(a));
    }
  }
  return all;
}

// A model with a cache for one conversation, and one way of decoding.
class Path {
 public:
  Path(const Model& model, DType dtype, std::string_view path)
      : model_(model),
        stream_(Stream::create()),
        ctx_(model.ordinal, stream_.get()),
        acts_(model.config, kRows, 1, {model.device, dtype}),
        vision_(model.config, 1, {model.device, dtype}),
        spec_{64, kRows / 64, kRows / 64, dtype},
        cache_(model.config, spec_, model.device),
        uploader_(kRows, 1, kRows / 64, model.config.hidden_size),
        runner_(model, cache_, acts_, 1, kRows / 64, path) {
    EXPECT_EQ(runner_.path(), path);
    for (std::int32_t i = 0; i < kRows / 64; ++i) table_.push_back(i);
  }

  // Natural logarithms of the probabilities of all tokens where each of answer.ids is due, [ids][V]. The picture and
  // the prompt but its last token run at once, that and the answer one decode step a token.
  std::vector<std::vector<double>> log_probabilities(const Answer& answer) {
    std::int64_t row = prefill(answer);
    std::vector<std::vector<double>> all;
    std::int32_t token = answer.prompt.back();
    for (const std::int32_t next : answer.ids) {
      const DecodeRow decode{token, static_cast<std::int32_t>(row), row, row, table_, table_};
      runner_.set(ctx_, std::span(&decode, 1));
      runner_.run(ctx_);
      all.push_back(log_softmax());
      token = next;
      ++row;
    }
    return all;
  }

 private:
  static constexpr std::int64_t kRows = 384;

  std::int64_t prefill(const Answer& answer) {
    const Config& c = model_.config;
    const std::int64_t n = c.vision.tokens(), rows = n + static_cast<std::int64_t>(answer.prompt.size()) - 1;
    const Buffer pixels(answer.pixels.size() * sizeof(float), model_.device, "a test");
    const Buffer embeds(static_cast<std::size_t>(n * c.hidden_size) * sizeof(float), model_.device, "a test");
    copy_bytes(pixels.data(), model_.device, answer.pixels.data(), DeviceKind::kCpu, pixels.bytes(), ctx_.stream);
    encode_images(ctx_, model_, Tensor(pixels.data(), DType::kF32, {1, 3, 224, 224}, "pixels", model_.device), vision_,
                  Tensor(embeds.data(), DType::kF32, {n, c.hidden_size}, "embeds", model_.device));
    BatchBuilder builder;
    builder.clear(spec_.full_blocks);
    builder.begin_sequence(static_cast<std::int32_t>(rows), table_, table_);
    for (std::int64_t r = 0; r < rows; ++r) {
      const ImageRow image_row = r < n ? ImageRow{static_cast<const float*>(embeds.data()), r} : ImageRow{};
      const std::int32_t token = r < n ? 0 : answer.prompt[static_cast<std::size_t>(r - n)];
      builder.add_row(token, static_cast<std::int32_t>(r), r, r, image_row);
    }
    builder.want_logits();
    forward(ctx_, model_, uploader_.upload(builder, ctx_.stream), cache_, acts_);
    synchronize(ctx_.stream);
    return rows;
  }

  std::vector<double> log_softmax() {
    std::vector<float> logits(static_cast<std::size_t>(model_.config.vocab_size));
    copy_bytes(logits.data(), DeviceKind::kCpu, acts_.logits.data, model_.device, logits.size() * sizeof(float),
               ctx_.stream);
    synchronize(ctx_.stream);
    double largest = -INFINITY, sum = 0;
    for (const float l : logits) largest = std::max(largest, static_cast<double>(l));
    for (const float l : logits) sum += std::exp(static_cast<double>(l) - largest);
    std::vector<double> logs;
    for (const float l : logits) logs.push_back(static_cast<double>(l) - largest - std::log(sum));
    return logs;
  }

  const Model& model_;
  Stream stream_;
  Context ctx_;
  Activations acts_;
  VisionActivations vision_;
  KvCacheSpec spec_;
  KvCache cache_;
  BatchUploader uploader_;
  DecodeRunner runner_;
  std::vector<std::int32_t> table_;
};

// Where each token of all answers is due, [tokens][V].
using Distributions = std::vector<std::vector<double>>;
Distributions distributions(const Model& model, const std::vector<Answer>& answers, DType dtype,
                            std::string_view name) {
  Path path(model, dtype, name);
  Distributions all;
  for (const Answer& answer : answers) {
    for (auto& logs : path.log_probabilities(answer)) all.push_back(std::move(logs));
  }
  return all;
}

struct Quality {
  double perplexity = 0;  // of the text
  double divergence = 0;  // mean Kullback-Leibler divergence from the first distribution, nats a token
  double agreement = 0;   // share of positions with the same likeliest token
};

Quality quality(const Distributions& base, const Distributions& other, const std::vector<std::int32_t>& ids) {
  Quality q;
  const auto count = static_cast<double>(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    q.perplexity -= other[i][static_cast<std::size_t>(ids[i])] / count;
    for (std::size_t v = 0; v < base[i].size(); ++v)
      q.divergence += std::exp(base[i][v]) * (base[i][v] - other[i][v]) / count;
    const auto best = [](const std::vector<double>& p) { return std::max_element(p.begin(), p.end()) - p.begin(); };
    q.agreement += (best(base[i]) == best(other[i])) / count;
  }
  q.perplexity = std::exp(q.perplexity);
  return q;
}

TEST(DecodePaths, QualityOnDevice) {
  GOV_NEEDS_TEST_DEVICE();
  ThreadPool pool(2);
  ModelPackage package = load_package(kSource / "models/nano", pool);
  const Model model = to_device(std::move(package.model), {test::test_ordinal(), false, {}}, pool);
  if (cuda_device_info(model.ordinal).capability != 90) GTEST_SKIP() << "the fused step needs compute capability 9.0";
  const std::vector<Answer> said = answers(package);
  std::vector<std::int32_t> ids;
  for (const Answer& a : said) ids.insert(ids.end(), a.ids.begin(), a.ids.end());
  ASSERT_GT(ids.size(), 1000u);
  const auto run = [&](DType dtype, const char* path) { return distributions(model, said, dtype, path); };
  const Distributions exact = run(DType::kF32, "ops");
  const auto report = [&](const char* name, const Distributions& other) {
    const Quality q = quality(exact, other, ids);
    std::printf("%-32s perplexity %.4f, divergence from exact %.2e nats a token, same likeliest token %.2f %%\n", name,
                q.perplexity, q.divergence, 100 * q.agreement);
    return q;
  };
  const Quality self = report("ops, f32", exact);
  const Quality fused = report("fused, f32 cache", run(DType::kF32, "fused"));
  const Quality ops16 = report("ops, bf16", run(DType::kBF16, "ops"));
  const Quality fused16 = report("fused, bf16 cache", run(DType::kBF16, "fused"));
  const Quality int8 = report("fused-int8, bf16 cache", run(DType::kBF16, "fused-int8"));
  EXPECT_LT(fused.divergence, 1e-8);
  EXPECT_LT(fused16.divergence, ops16.divergence);  // only the cache is rounded
  EXPECT_LT(int8.divergence, 5e-3);
  EXPECT_NEAR(int8.perplexity / self.perplexity, 1, 0.01);
  EXPECT_GT(int8.agreement, 0.98);
}

}  // namespace
}  // namespace gov
