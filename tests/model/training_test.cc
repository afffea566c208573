// Training passes of whole tiny models: gradients of every tensor against complex steps through the reference, equal
// bits whatever is computed twice and however many threads, packing, frozen parameters.

#include "model/training.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/philox.h"
#include "model/device_weights.h"
#include "tensor/device.h"
#include "tests/model/reference_model.h"
#include "tests/test_device.h"

namespace gov::test {
namespace {

using reference::Complex;
using Doubles = std::vector<double>;

struct Variant {
  std::string name;
  bool vision = false, mxfp4 = false, tied = false, clip = false;
  Balance balance = Balance::kHf;
};
void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

Config tiny(const Variant& variant) {
  Config c;
  c.model_type = variant.vision ? "gpt_oss_vision" : "gpt_oss";
  c.vocab_size = 40;
  c.hidden_size = 32;
  c.intermediate_size = 64;
  c.num_hidden_layers = 3;
  c.num_local_experts = 5;
  c.num_experts_per_tok = 2;
  c.head_dim = 8;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.layer_types = {AttentionKind::kSliding, AttentionKind::kFull, AttentionKind::kFull};
  c.sliding_window = 4;
  c.rope.yarn = true;
  c.use_nope = true;
  c.nope_stride = 2;
  c.nope_attention_scaling = variant.clip;
  c.tie_word_embeddings = variant.tied;
  c.mxfp4_experts = variant.mxfp4;
  c.initializer_range = 0.25;
  c.eos_token_ids = {0};
  c.dtype = "float32";
  c.use_vision = variant.vision;
  c.vision.image_size = 9;
  c.vision.patch_size = 4;
  c.vision.embed_dim = 16;
  c.vision.num_layers = 2;
  c.vision.num_heads = 2;
  c.vision.intermediate_size = 24;
  c.vision.layer_norm_eps = 1e-6f;
  c.vision.pre_layernorm = variant.clip;
  c.vision.final_layernorm = !variant.clip;
  c.vision.pool_token = !variant.clip;
  if (variant.clip) c.vision.hidden_act = ops::Gelu::kQuick;
  return c;
}

double noise(std::uint64_t key, std::uint64_t index) { return double(Philox{key}.normal(index)[0]); }

// Random weights in which no bias is zero and no norm is one.
Model tiny_model(const Config& config, ThreadPool& pool) {
  Model model = random_model(config, 5, pool);
  std::uint64_t key = 100;
  for_each_parameter(config, model.weights, [&](const ParameterSpec& spec, Tensor& t) {
    ++key;
    if (spec.init != Init::kZero && spec.init != Init::kOne) return;
    for (std::int64_t i = 0; i < t.elements(); ++i) t.as<float>()[i] += float(0.2 * noise(key, std::uint64_t(i)));
  });
  return model;
}

// Documents of text and, where the model sees, pictures; the second one shows a picture of the first again.
struct Documents {
  std::vector<std::vector<ReferenceRow>> rows;
  std::vector<float> pixels;
  std::int64_t images = 0, image_rows = 0;

  Documents(const Config& c, std::int64_t how_many) {
    if (c.use_vision) {
      images = 2;
      image_rows = c.vision.tokens();
      const std::int64_t size = images * c.vision.num_channels * c.vision.image_size * c.vision.image_size;
      for (std::int64_t i = 0; i < size; ++i) pixels.push_back(float(noise(7, std::uint64_t(i))));
    }
    for (std::int64_t d = 0; d < how_many; ++d) {
      rows.emplace_back();
      for (std::int64_t t = 0; t < 7 + 3 * d; ++t) {
        if (c.use_vision && t == d % 2) add_image(0);
        if (c.use_vision && d == 0 && t == 4) add_image(1);
        const auto token = std::int32_t((t * 11 + d * 5 + 3) % c.vocab_size);
        const bool trains = (t + d) % 4 != 2;
        rows.back().push_back({token, -1, trains ? std::int32_t((token + 7) % c.vocab_size) : -1, trains ? 0.1 : 0});
      }
    }
  }
  void add_image(std::int64_t image) {
    for (std::int64_t r = 0; r < image_rows; ++r)
      rows.back().push_back(
          {-1, std::int32_t(image * image_rows + r), r + 1 == image_rows ? 3 : -1, r + 1 == image_rows ? 0.1 : 0});
  }
};

// The same as a packed batch.
struct Packed {
  std::vector<std::int32_t> tokens, positions, cu_seqlens{0}, targets;
  std::vector<std::uint8_t> modality;
  std::vector<float> weights;
  std::vector<std::vector<std::int32_t>> fill_rows, fill_sources;
  std::vector<float> pixels;

  Packed(const Documents& all, std::size_t first, std::size_t count) {
    for (std::size_t d = first; d < first + count; ++d) {
      std::int32_t position = 0;
      for (const ReferenceRow& row : all.rows[d]) {
        if (row.token < 0) fill(std::int32_t(tokens.size()), row.image_row);
        tokens.push_back(std::max(row.token, 0));
        modality.push_back(std::uint8_t(row.token < 0 ? 1 : 0));
        positions.push_back(position++);
        targets.push_back(row.target);
        weights.push_back(float(row.weight));
      }
      cu_seqlens.push_back(std::int32_t(tokens.size()));
    }
    if (!fill_rows.empty()) pixels = all.pixels;
  }
  void fill(std::int32_t row, std::int32_t source) {
    std::size_t copy = 0;
    while (copy < fill_sources.size() && std::count(fill_sources[copy].begin(), fill_sources[copy].end(), source) > 0)
      ++copy;
    if (copy == fill_sources.size()) {
      fill_rows.emplace_back();
      fill_sources.emplace_back();
    }
    fill_rows[copy].push_back(row);
    fill_sources[copy].push_back(source);
  }
  PackedRows view() const {
    PackedRows rows{tokens, positions, modality, cu_seqlens, targets, weights, {}, {pixels}};
    for (std::size_t i = 0; i < fill_rows.size(); ++i) rows.fills.push_back({fill_rows[i], fill_sources[i]});
    return rows;
  }
};

constexpr TrainingSizes kSizes{200, 100, 2, 100, 3};

LossOptions loss_options(const Variant& variant) {
  return {variant.balance, variant.balance == Balance::kNone ? 0 : 0.3, 0.05, {}, true};
}

// Gradients in the host's memory, with what came along.
struct Result {
  TrainingLosses losses;
  std::map<std::string, Doubles> gradients;
  Doubles rows;  // the losses of the rows
};

struct TinyTraining {
  explicit TinyTraining(const Variant& v, int threads = 2) : variant(v), config(tiny(v)), pool(threads) {
    ctx.pool = &pool;
    model = tiny_model(config, pool);
  }
  Result run(const Packed& packed, Recompute recompute = Recompute::kNone, const ParameterSet::Wanted& wanted = {},
             int times = 1, DType dtype = DType::kF32) {
    Result result;
    TrainingRows rows;
    TrainingActivations acts(config, kSizes, recompute, {ctx.device, dtype});
    const ParameterSet gradients(config, ctx.device, "gradients", wanted), host(config, DeviceKind::kCpu, "h", wanted);
    const TrainingBatch& batch = rows.set(ctx, config, packed.view(), 1);
    for (int i = 0; i < times; ++i)
      result.losses = loss_and_gradients(ctx, model, batch, loss_options(variant), acts, &gradients);
    for (std::size_t i = 0; i < host.entries().size(); ++i) {
      const Tensor& t = host.entries()[i].tensor;
      copy_tensor(ctx, gradients.entries()[i].tensor, t);
      if (ctx.on_cuda()) synchronize(ctx.stream);
      result.gradients[host.entries()[i].spec.name] = Doubles(t.as<float>(), t.as<float>() + t.elements());
    }
    std::vector<float> each(std::size_t(batch.loss_rows.rows()));
    copy_bytes(each.data(), DeviceKind::kCpu, acts.losses.data, ctx.device, each.size() * sizeof(float), ctx.stream);
    if (ctx.on_cuda()) synchronize(ctx.stream);
    result.rows.assign(each.begin(), each.end());
    return result;
  }
  Variant variant;
  Config config;
  ThreadPool pool;
  Context ctx;
  Model model;
};

double norm(const Doubles& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}

const Variant kVariants[] = {{"text"},
                             {"tied_switch", false, false, true, false, Balance::kSwitch},
                             {"mxfp4_no_balance", false, true, false, false, Balance::kNone},
                             {"vision", true},
                             {"clip_mxfp4_tied", true, true, true, true, Balance::kSwitch}};

class Training : public testing::TestWithParam<Variant> {};

// Every tensor in two random directions, and the loss.
void compare_with_reference(TinyTraining& s, const Weights& weights, double tolerance) {
  const Documents documents(s.config, 3);
  const Result got = s.run(Packed(documents, 0, 3));
  const ParameterSet values(s.config, DeviceKind::kCpu, "values");
  read_parameters(s.config, weights, values);
  std::map<std::string, std::vector<Complex>> at;
  for (const ParameterSet::Entry& e : values.entries())
    at[e.spec.name].assign(e.tensor.as<float>(), e.tensor.as<float>() + e.tensor.elements());
  const LossOptions options = loss_options(s.variant);
  const ReferenceLosses wanted{options.balance_coefficient, options.z_coefficient, options.balance == Balance::kSwitch};
  const std::vector<Complex> pixels(documents.pixels.begin(), documents.pixels.end());
  std::uint64_t key = 1000;
  double all = 0;
  for (const auto& [name, g] : got.gradients) all += norm(g) * norm(g);
  for (const ParameterSet::Entry& e : values.entries()) {
    for (int direction = 0; direction < 2; ++direction, ++key) {
      auto moved = at;
      std::vector<Complex>& p = moved[e.spec.name];
      const Doubles& g = got.gradients.at(e.spec.name);
      ASSERT_EQ(g.size(), p.size());
      double slope = 0, length = 0;
      for (std::size_t i = 0; i < p.size(); ++i) {
        const double d = noise(key, i);
        p[i] += Complex(0, 1e-50 * d);
        slope += d * g[i];
        length += d * d;
      }
      ReferenceModel<Complex> model(s.config, std::move(moved));
      const Complex loss = model.loss(documents.rows, pixels, wanted);
      EXPECT_NEAR(got.losses.total(options), loss.real(), tolerance * 10);
      // A random direction sees about the gradient's norm. (The keys' biases have none, and rounding is what is left.)
      EXPECT_NEAR(slope, loss.imag() / 1e-50, tolerance * (3 * norm(g) + 0.01 * std::sqrt(all))) << e.spec.name;
      if (!e.spec.name.ends_with("attention.key.bias")) {
        EXPECT_GT(norm(g), 0) << e.spec.name;
      }
    }
  }
}

TEST_P(Training, GradientsMatchComplexSteps) {
  TinyTraining s(GetParam());
  compare_with_reference(s, s.model.weights, 2e-5);
}

// Biases of the routers, far above what their weights say, for the first experts_per_token experts.
void choose_first_experts(TinyTraining& s) {
  for (const LayerWeights& layer : s.model.weights.layers) {
    const Tensor& bias = layer.moe.router_bias;
    std::vector<float> values(std::size_t(bias.elements()), -50.f);
    std::fill_n(values.begin(), s.config.num_experts_per_tok, 0.f);
    copy_bytes(bias.data, bias.device, values.data(), DeviceKind::kCpu, bias.bytes(), s.ctx.stream);
  }
  if (s.ctx.on_cuda()) synchronize(s.ctx.stream);
}

TEST_P(Training, GradientsMatchComplexStepsOnDevice) {
  GOV_NEEDS_TEST_DEVICE();
  TinyTraining host(GetParam()), s(GetParam());
  use_cuda_device(test_ordinal());
  const Stream stream = Stream::create();
  s.model = to_device(std::move(s.model), {test_ordinal(), false, {}}, s.pool);
  Context on_device(test_ordinal(), stream.get());
  std::swap(s.ctx, on_device);
  compare_with_reference(s, host.model.weights, 5e-5);
  const Documents documents(s.config, 2);
  const Result kept = s.run(Packed(documents, 0, 2)), again = s.run(Packed(documents, 0, 2));
  EXPECT_EQ(kept.gradients, again.gradients);
  EXPECT_EQ(s.run(Packed(documents, 0, 2), Recompute::kMoe).gradients, kept.gradients);
  EXPECT_EQ(s.run(Packed(documents, 0, 2), Recompute::kBlock).gradients, kept.gradients);
  // In BF16 about 20 roundings of 2^-9 lie one behind the other, which leaves a cosine of 0.9999. Where they would make
  // a router choose otherwise, gradients are of another function: here all rows go to the same experts.
  choose_first_experts(s);
  const Result exact = s.run(Packed(documents, 0, 2));
  const Result rounded = s.run(Packed(documents, 0, 2), Recompute::kNone, {}, 1, DType::kBF16);
  double both = 0, one = 0, other = 0;
  for (const auto& [name, g] : exact.gradients) {
    const Doubles& h = rounded.gradients.at(name);
    for (std::size_t i = 0; i < g.size(); ++i) both += g[i] * h[i];
    one += norm(g) * norm(g);
    other += norm(h) * norm(h);
  }
  EXPECT_GT(both / std::sqrt(one * other), 0.999);
  RecordProperty("cosine", fmt::format("{}", both / std::sqrt(one * other)));
  std::swap(s.ctx, on_device);
}

TEST_P(Training, EqualBitsWhateverIsComputedTwiceAndOnAnyThreads) {
  TinyTraining s(GetParam());
  const Documents documents(s.config, 3);
  const Packed packed(documents, 0, 3);
  const Result kept = s.run(packed);
  for (const Recompute policy : {Recompute::kMoe, Recompute::kBlock}) {
    const Result again = s.run(packed, policy);
    EXPECT_EQ(again.gradients, kept.gradients);
    EXPECT_EQ(again.rows, kept.rows);
  }
  for (const int threads : {1, 3}) EXPECT_EQ(TinyTraining(GetParam(), threads).run(packed).gradients, kept.gradients);
}

TEST_P(Training, OverwrittenGradientsAreThoseAddedToZero) {
  TinyTraining s(GetParam());
  const Packed packed(Documents(s.config, 3), 0, 3);
  const Result added = s.run(packed);
  TrainingRows rows;
  TrainingActivations acts(s.config, kSizes, Recompute::kNone);
  const ParameterSet gradients(s.config, DeviceKind::kCpu, "gradients");
  for (const ParameterSet::Entry& e : gradients.entries())
    fill_bytes(e.tensor.data, DeviceKind::kCpu, 0x41, e.tensor.bytes(), nullptr);
  LossOptions options = loss_options(s.variant);
  options.accumulate = false;
  loss_and_gradients(s.ctx, s.model, rows.set(s.ctx, s.config, packed.view(), 1), options, acts, &gradients);
  for (const ParameterSet::Entry& e : gradients.entries())
    EXPECT_EQ(Doubles(e.tensor.as<float>(), e.tensor.as<float>() + e.tensor.elements()),
              added.gradients.at(e.spec.name))
        << e.spec.name;
}

// The losses of the routers pool their rows, so that only without them a batch is the sum of its documents.
TEST_P(Training, PackingIsTheSumOfItsDocuments) {
  Variant variant = GetParam();
  variant.balance = Balance::kNone;
  TinyTraining s(variant);
  const Documents documents(s.config, 3);
  LossOptions none;
  const auto run = [&](std::size_t first, std::size_t count) {
    TrainingRows rows;
    TrainingActivations acts(s.config, kSizes, Recompute::kNone);
    const ParameterSet gradients(s.config, DeviceKind::kCpu, "gradients");
    const Packed packed(documents, first, count);
    loss_and_gradients(s.ctx, s.model, rows.set(s.ctx, s.config, packed.view(), 1), none, acts, &gradients);
    std::map<std::string, Doubles> result;
    for (const ParameterSet::Entry& e : gradients.entries())
      result[e.spec.name] = Doubles(e.tensor.as<float>(), e.tensor.as<float>() + e.tensor.elements());
    const auto* losses = acts.losses.as<float>();
    result["losses"] = Doubles(losses, losses + rows.batch().loss_rows.rows());
    return result;
  };
  auto packed = run(0, 3);
  std::map<std::string, Doubles> sum;
  for (std::size_t d = 0; d < 3; ++d) {
    for (auto& [name, values] : run(d, 1)) {
      Doubles& to = sum[name];
      if (name == "losses") to.insert(to.end(), values.begin(), values.end());
      else to.resize(values.size());
      for (std::size_t i = 0; name != "losses" && i < values.size(); ++i) to[i] += values[i];
    }
  }
  EXPECT_EQ(packed["losses"], sum["losses"]);
  double all = 0;
  for (const auto& [name, values] : sum) all += name == "losses" ? 0 : norm(values) * norm(values);
  for (auto& [name, values] : packed) {
    Doubles error = values;
    for (std::size_t i = 0; i < error.size(); ++i) error[i] -= sum[name][i];
    EXPECT_LE(norm(error), 3e-6 * norm(values) + 1e-7 * std::sqrt(all)) << name;
  }
}

TEST_P(Training, FrozenParametersChangeNothingElse) {
  TinyTraining s(GetParam());
  const Documents documents(s.config, 2);
  const Packed packed(documents, 0, 2);
  const Result full = s.run(packed);
  const std::pair<const char*, ParameterSet::Wanted> masks[] = {
      {"head", [](const ParameterSpec& p) { return p.part == Part::kHead; }},
      {"router of layer 2", [](const ParameterSpec& p) { return p.part == Part::kRouter && p.layer == 2; }},
      {"attention", [](const ParameterSpec& p) { return p.part == Part::kAttention; }},
      {"biases of experts", [](const ParameterSpec& p) { return p.name.ends_with("proj_bias"); }},
      {"adapter",
       [](const ParameterSpec& p) { return p.part == Part::kVision && p.name.find(".vit.") == std::string::npos; }},
      {"encoder", [](const ParameterSpec& p) { return p.name.find(".vit.encoder.") != std::string::npos; }},
      {"embedding", [](const ParameterSpec& p) { return p.part == Part::kEmbedding; }}};
  for (const auto& [what, wanted] : masks) {
    SCOPED_TRACE(what);
    for (const auto& [name, values] : s.run(packed, Recompute::kBlock, wanted).gradients)
      EXPECT_EQ(values, full.gradients.at(name)) << name;
  }
}

TEST_P(Training, GradientsAreAddedTo) {
  TinyTraining s(GetParam());
  const Documents documents(s.config, 1);
  const Packed packed(documents, 0, 1);
  const Result once = s.run(packed), twice = s.run(packed, Recompute::kNone, {}, 2);
  for (const auto& [name, values] : once.gradients) {
    double error = 0;
    for (std::size_t i = 0; i < values.size(); ++i) error += std::fabs(twice.gradients.at(name)[i] - 2 * values[i]);
    EXPECT_LE(error, 1e-5 * (norm(values) * std::sqrt(double(values.size())) + 1e-2)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Training, testing::ValuesIn(kVariants), [](const auto& info) { return info.param.name; });

TEST(TrainingPasses, StatisticsTellTextFromImages) {
  TinyTraining s({"vision", true});
  const Documents documents(s.config, 2);
  const Packed packed(documents, 0, 2);
  const Result result = s.run(packed);
  const RouterStatistics& r = result.losses.routing;
  const double images = double(std::count(packed.modality.begin(), packed.modality.end(), 1));
  const double per_token = double(s.config.num_experts_per_tok);
  const auto experts = std::size_t(s.config.num_local_experts);
  for (std::size_t layer = 0; layer < 3; ++layer) {
    double counts[2] = {}, shares[2] = {};
    for (std::size_t i = 0; i < 2 * experts; ++i) {
      counts[i / experts] += r.counts[layer * 2 * experts + i];
      shares[i / experts] += r.probabilities[layer * 2 * experts + i];
    }
    EXPECT_EQ(counts[0], (double(packed.tokens.size()) - images) * per_token);
    EXPECT_EQ(counts[1], images * per_token);
    EXPECT_NEAR(shares[1], images, 1e-4);
  }
}

TEST(TrainingPasses, RecomputingTakesLessMemory) {
  const Config config = tiny({"vision", true});
  const auto bytes = [&](Recompute policy, DType dtype = DType::kF32) {
    return TrainingActivations::bytes(config, kSizes, policy, {DeviceKind::kCpu, dtype});
  };
  EXPECT_LT(bytes(Recompute::kBlock), bytes(Recompute::kMoe));
  EXPECT_LT(bytes(Recompute::kMoe), bytes(Recompute::kNone));
  EXPECT_LT(bytes(Recompute::kNone, DType::kBF16), bytes(Recompute::kNone));
  EXPECT_EQ(TrainingActivations(config, kSizes, Recompute::kMoe).arena.planned_bytes(), bytes(Recompute::kMoe));
}

TEST(TrainingPasses, StatisticsOfOtherRanksCount) {
  TinyTraining s({"text"});
  const Documents documents(s.config, 1);
  TrainingRows rows;
  TrainingActivations acts(s.config, kSizes, Recompute::kNone);
  LossOptions options = loss_options(s.variant);
  const TrainingLosses alone = loss_and_gradients(
      s.ctx, s.model, rows.set(s.ctx, s.config, Packed(documents, 0, 1).view(), 1), options, acts, nullptr);
  options.reduce = [](RouterStatistics& r) {  // another rank with the same batch
    r.rows *= 2;
    for (auto* sums : {&r.counts, &r.probabilities, &r.z})
      for (double& sum : *sums) sum *= 2;
  };
  const TrainingLosses both = loss_and_gradients(s.ctx, s.model, rows.batch(), options, acts, nullptr);
  EXPECT_NEAR(both.balance, alone.balance, 1e-12);
  EXPECT_EQ(both.routing.rows, 2 * alone.routing.rows);
}

TEST(TrainingPasses, Refusals) {
  TinyTraining s({"vision", true});
  const Documents documents(s.config, 3);
  const Packed packed(documents, 0, 3);
  const auto refused = [&](const TrainingSizes& sizes, PackedRows rows, const char* word) {
    try {
      TrainingRows batch;
      TrainingActivations acts(s.config, sizes, Recompute::kNone);
      loss_and_gradients(s.ctx, s.model, batch.set(s.ctx, s.config, rows, 1), {}, acts, nullptr);
      ADD_FAILURE() << "accepted: " << word;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    }
  };
  refused({20, 100, 2, 100, 3}, packed.view(), "planned for 20");
  refused({200, 3, 2, 100, 3}, packed.view(), "planned for 3");
  refused({200, 100, 1, 100, 3}, packed.view(), "2 images");
  refused({200, 100, 2, 5, 3}, packed.view(), "image rows");
  PackedRows rows = packed.view();
  rows.targets = rows.targets.first(4);
  refused(kSizes, rows, "unequal");
  rows = packed.view();
  rows.pixels = {};
  refused(kSizes, rows, "image rows");
  rows = packed.view();
  rows.cu_seqlens = rows.cu_seqlens.first(2);
  refused(kSizes, rows, "cu_seqlens");
  rows.tokens = {};
  refused(kSizes, rows, "no rows");
}

TEST(RouterLosses, BalancedAndCollapsed) {
  // Two layers, three experts, one chosen of each row, ten rows.
  RouterStatistics even{2, 3, 1, 9, Doubles(12), Doubles(12), {18, 0}};
  RouterStatistics one = even;
  for (std::size_t layer = 0; layer < 2; ++layer) {
    for (std::size_t e = 0; e < 3; ++e) {
      even.counts[layer * 6 + e] = even.counts[layer * 6 + 3 + e] = 1.5;
      even.probabilities[layer * 6 + e] = 3;
    }
    one.counts[layer * 6 + 1] = one.probabilities[layer * 6 + 4] = 9;
  }
  EXPECT_NEAR(router_losses(even, Balance::kHf).balance, 1, 1e-12);
  EXPECT_NEAR(router_losses(even, Balance::kSwitch).balance, 1, 1e-12);
  EXPECT_NEAR(router_losses(one, Balance::kHf).balance, 3, 1e-12);
  EXPECT_NEAR(router_losses(one, Balance::kSwitch).balance, 3, 1e-12);
  EXPECT_EQ(router_losses(even, Balance::kNone).balance, 0);
  EXPECT_NEAR(router_losses(even, Balance::kNone).z, 1, 1e-12);
}

// A model that computes with the set's tensors: dense instead of MXFP4, some of them or all, in BF16.
TEST(ParameterSets, ReplaceTheWeightsOfAModel) {
  TinyTraining s({"mxfp4", true, true});
  const Packed packed(Documents(s.config, 2), 0, 2);
  const Result before = s.run(packed);
  const auto experts = [](const ParameterSpec& p) { return p.part == Part::kExperts && p.layer == 1; };
  const ParameterSet some(s.config, DeviceKind::kCpu, "some", experts), all(s.config, DeviceKind::kCpu, "all");
  read_parameters(s.config, s.model.weights, some);
  read_parameters(s.config, s.model.weights, all);
  use_parameters(some, s.model.weights);
  EXPECT_FALSE(s.model.weights.layers[1].moe.down.blocks);
  EXPECT_TRUE(s.model.weights.layers[0].moe.down.blocks);
  EXPECT_NEAR(s.run(packed).losses.cross_entropy, before.losses.cross_entropy, 1e-5);
  const ParameterSet narrow(s.config, DeviceKind::kCpu, "narrow", {}, DType::kBF16);
  EXPECT_LT(narrow.bytes(), all.bytes() * 2 / 3);
  for (std::size_t i = 0; i < all.entries().size(); ++i) {
    const Tensor &from = all.entries()[i].tensor, &to = narrow.entries()[i].tensor;
    for (std::int64_t j = 0; j < from.elements(); ++j) to.as<bf16>()[j] = to_bf16(from.as<float>()[j]);
  }
  Weights weights;
  use_parameters(narrow, weights);
  s.model = make_model(narrow.config(), std::move(weights));
  EXPECT_NEAR(s.run(packed).losses.cross_entropy, before.losses.cross_entropy, 0.1 * before.losses.cross_entropy);
}

TEST(ParameterSets, StoredFormIsThatOfTheFile) {
  const Config config = tiny({"text"});
  ThreadPool pool(2);
  const Model model = tiny_model(config, pool);
  const ParameterSet set(config, DeviceKind::kCpu, "values");
  read_parameters(config, model.weights, set);
  std::vector<ParameterSpec> table = parameter_table(config);
  std::size_t next = 0;
  for_each_stored(set, [&](const ParameterSpec& spec, std::span<const float> values) {
    ASSERT_LT(next, table.size());
    EXPECT_EQ(spec.name, table[next].name);
    EXPECT_EQ(spec.shape, table[next++].shape);
    if (spec.name != "model.layers.1.mlp.experts.down_proj") return;
    const Tensor& used = model.weights.layers[1].moe.down.weight;
    const std::int64_t in = spec.shape[1], out = spec.shape[2];
    for (std::int64_t i = 0; i < used.elements(); ++i) {
      const std::int64_t e = i / (in * out), o = i / in % out, column = i % in;
      ASSERT_EQ(values[std::size_t((e * in + column) * out + o)], used.as<float>()[i]);
    }
  });
  EXPECT_EQ(next, table.size());
  EXPECT_GE(ParameterSet::bytes(config), std::uint64_t(count_parameters(config).total) * 4);
  EXPECT_EQ(set.bytes(), ParameterSet::bytes(config));
}

}  // namespace
}  // namespace gov::test
