// One model, many ways to run the same rows: all at once, one by one, in chunks, beside other sequences, with any block
// size, thread count and cache type: bit for bit the same logits, across window borders and image borders. On a GPU,
// which picks its kernels by the number of rows, the same up to rounding, and the same bits for the same call.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <optional>

#include "base/philox.h"
#include "model/decode.h"
#include "model/device_weights.h"
#include "model/transformer.h"
#include "tests/test_device.h"

namespace gov {
namespace {

Config small(bool vision, double initializer_range = 0.2) {
  Config c;
  c.model_type = vision ? "gpt_oss_vision" : "gpt_oss";
  c.vocab_size = 101;
  c.hidden_size = 96;
  c.intermediate_size = 64;
  c.num_hidden_layers = 4;
  c.num_local_experts = 6;
  c.num_experts_per_tok = 3;
  c.head_dim = 32;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.layer_types = {AttentionKind::kSliding, AttentionKind::kFull, AttentionKind::kSliding, AttentionKind::kFull};
  c.rope.yarn = true;
  c.eos_token_ids = {0};
  c.mxfp4_experts = true;
  c.initializer_range = initializer_range;
  c.use_vision = vision;
  c.use_nope = vision;
  c.vision.image_size = 20;
  c.vision.patch_size = 5;
  c.vision.embed_dim = 24;
  c.vision.num_layers = 2;
  c.vision.num_heads = 2;
  c.vision.intermediate_size = 48;
  return c;
}

struct Row {
  std::int32_t token = 0;
  std::vector<float> image;  // [H], an image row
};

std::vector<Row> random_rows(const Config& c, std::int64_t count, std::uint64_t seed) {
  const Philox random{seed};
  std::vector<Row> rows(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].token = static_cast<std::int32_t>(random(i)[0] % static_cast<std::uint32_t>(c.vocab_size));
    const bool image = c.use_vision && i >= 40 && i < 58;  // crosses a block and, later, the window's border
    for (std::int64_t h = 0; image && h < c.hidden_size; ++h)
      rows[i].image.push_back(random.normal(i, static_cast<std::uint64_t>(h) + 1)[0]);
  }
  return rows;
}

struct Way {
  std::vector<std::size_t> chunks;  // rows of each call; the last is repeated
  std::int64_t block_size = 16;
  int threads = 1;
  DType kv = DType::kF32;
};

// Copies of the image rows where the model is.
class ImageRows {
 public:
  explicit ImageRows(const Model& model) : device_(model.device) {}
  const float* place(const std::vector<float>& row) {
    if (row.empty() || device_ == DeviceKind::kCpu) return row.empty() ? nullptr : row.data();
    const std::size_t bytes = row.size() * sizeof(float);
    copies_.emplace_back(bytes, device_, "an image row");
    copy_bytes(copies_.back().data(), device_, row.data(), DeviceKind::kCpu, bytes, nullptr);
    synchronize(nullptr);
    return static_cast<const float*>(copies_.back().data());
  }

 private:
  DeviceKind device_;
  std::vector<Buffer> copies_;
};

// Logits [sequences][rows * V] of running the sequences side by side, each chunk of all of them in one batch.
std::vector<std::vector<float>> run(const Model& model, const std::vector<std::vector<Row>>& sequences,
                                    const Way& way) {
  const Config& c = model.config;
  std::size_t longest = 0;
  for (const auto& rows : sequences) longest = std::max(longest, rows.size());
  KvCacheSpec spec;
  spec.block_size = way.block_size;
  spec.dtype = way.kv;
  const std::int64_t blocks = full_blocks_needed(spec, static_cast<std::int64_t>(longest));
  spec.full_blocks = spec.sliding_blocks = blocks * static_cast<std::int64_t>(sequences.size());
  const KvCache cache(c, spec, model.device);
  ThreadPool pool(way.threads);
  const bool gpu = model.device == DeviceKind::kCuda;
  const Stream stream = gpu ? Stream::create() : Stream();
  Context ctx = gpu ? Context(model.ordinal, stream.get()) : Context();
  ctx.pool = &pool;
  const auto most = static_cast<std::int64_t>(longest * sequences.size());
  Activations acts(c, most, most, {model.device, DType::kF32});
  std::optional<BatchUploader> uploader;
  if (gpu) uploader.emplace(most, static_cast<std::int64_t>(sequences.size()), blocks, c.hidden_size);
  ImageRows images(model);
  std::vector<std::vector<float>> logits(sequences.size());
  std::size_t begin = 0;
  for (std::size_t call = 0; begin < longest; ++call) {
    const std::size_t end = begin + way.chunks[std::min(call, way.chunks.size() - 1)];
    BatchBuilder builder;
    builder.clear(blocks);
    std::vector<std::size_t> owners;
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const std::size_t stop = std::min(end, sequences[s].size());
      if (begin >= stop) continue;
      std::vector<std::int32_t> table;  // interleaved, so that a sequence's blocks are not neighbours
      for (std::int64_t b = 0; b < blocks; ++b)
        table.push_back(
            static_cast<std::int32_t>(b * static_cast<std::int64_t>(sequences.size()) + static_cast<std::int64_t>(s)));
      builder.begin_sequence(static_cast<std::int32_t>(stop), table, table);
      for (std::size_t r = begin; r < stop; ++r) {
        const auto at = static_cast<std::int64_t>(r);
        const std::int64_t slot =
            table[r / static_cast<std::size_t>(way.block_size)] * way.block_size + at % way.block_size;
        const Row& row = sequences[s][r];
        builder.add_row(row.token, static_cast<std::int32_t>(r), slot, slot, {images.place(row.image), 0});
        builder.want_logits();
        owners.push_back(s);
      }
    }
    forward(ctx, model, gpu ? uploader->upload(builder, ctx.stream) : builder.view(c.hidden_size), cache, acts);
    std::vector<float> all(owners.size() * static_cast<std::size_t>(c.vocab_size));
    copy_bytes(all.data(), DeviceKind::kCpu, acts.logits.data, model.device, all.size() * sizeof(float), ctx.stream);
    if (gpu) synchronize(ctx.stream);
    for (std::size_t i = 0; i < owners.size(); ++i) {
      const float* row = all.data() + static_cast<std::int64_t>(i) * c.vocab_size;
      logits[owners[i]].insert(logits[owners[i]].end(), row, row + c.vocab_size);
    }
    begin = end;
  }
  return logits;
}

class Consistency : public testing::TestWithParam<bool> {};

TEST_P(Consistency, EveryWayGivesTheSameBits) {
  ThreadPool pool(1);
  const Model model = random_model(small(GetParam()), 3, pool);
  const auto a = random_rows(model.config, 300, 1), b = random_rows(model.config, 170, 2),
             d = random_rows(model.config, 3, 3);
  for (const DType kv : {DType::kF32, DType::kBF16}) {
    const auto whole = run(model, {a}, {{300}, 16, 1, kv});
    ASSERT_EQ(whole[0].size(), 300u * 101u);
    const Way ways[] = {
        {{1}, 16, 1, kv}, {{37}, 16, 1, kv}, {{128, 1, 2, 127}, 16, 3, kv}, {{300}, 64, 2, kv}, {{19}, 8, 2, kv}};
    for (const Way& way : ways) {
      SCOPED_TRACE(testing::Message() << "chunk " << way.chunks[0] << " block " << way.block_size << " threads "
                                      << way.threads);
      EXPECT_EQ(run(model, {a}, way)[0], whole[0]);
    }
    const auto together = run(model, {b, a, d}, {{53}, 16, 2, kv});
    EXPECT_EQ(together[1], whole[0]);
    EXPECT_EQ(together[0], run(model, {b}, {{170}, 16, 1, kv})[0]);
    EXPECT_EQ(together[2], run(model, {d}, {{3}, 16, 1, kv})[0]);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Consistency, testing::Bool(),
                         [](const auto& info) { return info.param ? "vision" : "text"; });

double relative_distance(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return HUGE_VAL;
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    norm += double{b[i]} * b[i];
  }
  return std::sqrt(error / norm);
}

TEST_P(Consistency, EveryWayAgreesOnTheDevice) {
  GOV_NEEDS_TEST_DEVICE();
  ThreadPool pool(1);
  // Smaller weights than above: these amplify rounding a hundredfold and have a router with a tie within that.
  const Config config = small(GetParam(), 0.05);
  const Model host = random_model(config, 3, pool);
  const Model model = to_device(random_model(config, 3, pool), {test::test_ordinal(), false, {}}, pool);
  const auto a = random_rows(model.config, 300, 1), b = random_rows(model.config, 170, 2),
             d = random_rows(model.config, 3, 3);
  const auto whole = run(model, {a}, {{300}});
  EXPECT_LE(relative_distance(whole[0], run(host, {a}, {{300}})[0]), 1e-5);
  EXPECT_EQ(run(model, {a}, {{300}})[0], whole[0]);
  for (const Way& way : {Way{{1}}, Way{{37}}, Way{{128, 1, 2, 127}}, Way{{300}, 64}, Way{{19}, 8}}) {
    SCOPED_TRACE(testing::Message() << "chunk " << way.chunks[0] << " block " << way.block_size);
    EXPECT_LE(relative_distance(run(model, {a}, way)[0], whole[0]), 1e-5);
  }
  const auto together = run(model, {b, a, d}, {{53}});
  EXPECT_LE(relative_distance(together[1], whole[0]), 1e-5);
  EXPECT_EQ(run(model, {b, a, d}, {{53}}), together);
}

// Greedy tokens of three sequences of different lengths, from decode steps that run directly, are recorded and
// replayed, beside forward() on the same rows.
TEST_P(Consistency, DecodeStepsFromGraphsEqualForward) {
  GOV_NEEDS_TEST_DEVICE();
  constexpr std::int64_t kSequences = 3, kSteps = 150, kBlocks = 4, kBlock = 64;
  ThreadPool pool(1);
  const Model model = to_device(random_model(small(GetParam()), 3, pool), {test::test_ordinal(), false, {}}, pool);
  const Config& c = model.config;
  const Stream stream = Stream::create();
  Context ctx(model.ordinal, stream.get());
  Activations acts(c, kSequences, kSequences, {model.device, DType::kF32});
  const KvCacheSpec spec{kBlock, kSequences * kBlocks, kSequences * kBlocks, DType::kF32};
  std::vector<std::vector<std::int32_t>> tables(kSequences);
  for (std::int32_t i = 0; i < kSequences * kBlocks; ++i) tables[static_cast<std::size_t>(i) % kSequences].push_back(i);

  const auto decode = [&](bool graphs, bool feed) {
    const KvCache cache(c, spec, model.device);
    DecodeRunner runner(model, cache, acts, kSequences, kBlocks, "ops");
    std::vector<std::int32_t> tokens{5, 6, 7}, all;
    for (std::int64_t step = 0; step < kSteps; ++step) {
      std::vector<DecodeRow> rows;
      for (std::size_t s = 0; s < kSequences; ++s) {
        const std::int64_t position = step,
                           slot = tables[s][static_cast<std::size_t>(position / kBlock)] * kBlock + position % kBlock;
        rows.push_back({tokens[s], static_cast<std::int32_t>(position), slot, slot, tables[s], tables[s]});
      }
      if (!feed || step == 0) runner.set(ctx, rows);
      if (!graphs) ctx.trace = [](std::string_view, const Tensor&) {};  // steps that are looked at run directly
      runner.run(ctx, true);
      ctx.trace = {};
      copy_bytes(tokens.data(), DeviceKind::kCpu, runner.tokens().data, model.device, kSequences * 4, ctx.stream);
      synchronize(ctx.stream);
      all.insert(all.end(), tokens.begin(), tokens.end());
    }
    EXPECT_EQ(runner.stats().eager, graphs ? 1 : kSteps);
    EXPECT_EQ(runner.stats().recorded + runner.stats().replayed, graphs ? kSteps - 1 : 0);
    return all;
  };
  const auto directly = decode(false, false);
  EXPECT_EQ(decode(true, false), directly);
  EXPECT_EQ(decode(true, true), directly);
}

// The window and the modality are really used: the comparisons above could not pass by ignoring them.
TEST(Consistency, WindowAndModalityMatter) {
  ThreadPool pool(1);
  const Model model = random_model(small(true), 3, pool);
  auto rows = random_rows(model.config, 300, 1);
  const auto base = run(model, {rows}, {{300}});
  Model wider = random_model(small(true), 3, pool);
  wider.config.sliding_window = 129;
  const auto other = run(wider, {rows}, {{300}});
  const std::size_t first_128 = 128u * 101u;
  EXPECT_TRUE(std::equal(base[0].begin(), base[0].begin() + first_128, other[0].begin()));
  EXPECT_FALSE(std::equal(base[0].begin() + first_128, base[0].end(), other[0].begin() + first_128));

  Model biased = random_model(small(true), 3, pool);
  for (LayerWeights& layer : biased.weights.layers) *static_cast<bf16*>(layer.moe.vision_bias.data) = to_bf16(5.f);
  const auto with_bias = run(biased, {rows}, {{300}});
  EXPECT_TRUE(std::equal(base[0].begin(), base[0].begin() + 40 * 101, with_bias[0].begin()));  // text before the image
  EXPECT_NE(base[0], with_bias[0]);
}

// A vision model with a zero vision_bias and NoPE off is gpt-oss on text, bit for bit.
TEST(Consistency, TextThroughAVisionModelIsGptOss) {
  ThreadPool pool(2);
  Config vision = small(true);
  vision.use_nope = false;
  const Model with_vision = random_model(vision, 9, pool), text = random_model(small(false), 9, pool);
  const auto rows = random_rows(text.config, 200, 4);
  EXPECT_EQ(run(with_vision, {rows}, {{200}}), run(text, {rows}, {{200}}));
}

// An image's embeddings do not depend on the images beside it.
TEST(Consistency, ImagesAreEncodedAlikeAloneAndTogether) {
  ThreadPool pool(2);
  const Model model = random_model(small(true), 3, pool);
  const Config& c = model.config;
  const std::int64_t pixels = 3 * 20 * 20, embed = c.vision.tokens() * c.hidden_size;
  std::vector<float> images(static_cast<std::size_t>(3 * pixels)), together(static_cast<std::size_t>(3 * embed)),
      alone(static_cast<std::size_t>(embed));
  const Philox random{8};
  for (std::size_t i = 0; i < images.size(); ++i) images[i] = random.normal(i)[0];
  Context ctx;
  ctx.pool = &pool;
  VisionActivations acts(c, 3);
  encode_images(ctx, model, Tensor::of(images.data(), {3, 3, 20, 20}), acts,
                Tensor::of(together.data(), {3 * c.vision.tokens(), c.hidden_size}));
  for (std::int64_t n = 0; n < 3; ++n) {
    encode_images(ctx, model, Tensor::of(images.data() + n * pixels, {1, 3, 20, 20}), acts,
                  Tensor::of(alone.data(), {c.vision.tokens(), c.hidden_size}));
    EXPECT_EQ(std::memcmp(alone.data(), together.data() + n * embed, alone.size() * sizeof(float)), 0) << n;
  }
}

}  // namespace
}  // namespace gov
