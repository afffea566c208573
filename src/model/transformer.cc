#include "model/transformer.h"

#include <fmt/format.h>

#include "io/mapped_file.h"
#include "model/random.h"
#include "tensor/device.h"

namespace gov {
namespace {

// Fills x with the embeddings of the batch: text rows from the table, image rows from the encoder.
void embed(Context& ctx, const Model& model, const Batch& batch, const Tensor& x) {
  ops::embedding(ctx, model.weights.embed, batch.tokens, x);
  if (batch.vision_rows.elements() > 0) ops::scatter_rows(ctx, batch.vision_embeds, batch.vision_rows, x);
}

}  // namespace

void make_angles(Context& ctx, const Model& model, const Tensor& positions, const AngleTables& tables) {
  const std::int64_t rows = positions.rows(), half = model.config.head_dim / 2;
  const auto table = [&](std::int64_t which, const Tensor& cos, const Tensor& sin) {
    ops::rope_table(ctx, positions, model.frequencies.slice(which, 1).view({half}), model.rope_factor,
                    cos.slice(0, rows), sin.slice(0, rows));
  };
  table(0, tables.cos, tables.sin);
  if (tables.nope_cos) table(1, tables.nope_cos, tables.nope_sin);  // no angle: cos = factor, sin = 0
}

void forward(Context& ctx, const Model& model, const Batch& batch, const KvCache& cache, Activations& acts) {
  const std::int64_t rows = batch.tokens.rows(), wanted = batch.logits_rows.rows();
  if (rows > acts.max_rows || wanted > acts.max_logits_rows) {
    fail(ErrorCode::kInvalidArgument, "forward: {} rows and {} logits exceed the planned {} and {}", rows, wanted,
         acts.max_rows, acts.max_logits_rows);
  }
  const Tensor x = acts.x.slice(0, rows);
  embed(ctx, model, batch, x);
  make_angles(ctx, model, batch.positions, {acts.cos, acts.sin, acts.nope_cos, acts.nope_sin});
  for (std::int64_t layer = 0; layer < model.config.num_hidden_layers; ++layer) {
    attention_block(ctx, model, layer, batch, cache, acts);
    moe_block(ctx, model, layer, batch, acts);
    if (ctx.trace) ctx.emit(fmt::format("hidden.{}", layer), x);
  }
  if (wanted == 0) return;
  const Tensor last = acts.last.slice(0, wanted), normed = acts.last_normed.slice(0, wanted);
  ops::gather_rows(ctx, x, batch.logits_rows, last);
  ops::rms_norm(ctx, last, model.weights.norm, model.config.rms_norm_eps, normed);
  ops::linear(ctx, normed, model.weights.lm_head, {}, acts.logits.slice(0, wanted));
}

Model make_model(Config config, Weights weights, DeviceKind device, int ordinal) {
  Model model;
  model.inv_freq = rope_inv_freq(config);
  model.rope_factor = rope_attention_factor(config);
  model.config = std::move(config);
  model.weights = std::move(weights);
  model.device = device;
  model.ordinal = ordinal;
  const auto half = static_cast<std::int64_t>(model.inv_freq.size());
  std::vector<float> both = model.inv_freq;
  both.resize(2 * both.size(), 0.f);
  const std::size_t bytes = both.size() * sizeof(float);
  model.frequencies_memory = Buffer(bytes, device, "rotary frequencies");
  model.frequencies = Tensor(model.frequencies_memory.data(), DType::kF32, {2, half}, "inv_freq", device);
  copy_bytes(model.frequencies.data, device, both.data(), DeviceKind::kCpu, bytes, nullptr);
  if (device != DeviceKind::kCpu) synchronize(nullptr);
  return model;
}

Model load_model(const std::filesystem::path& folder, ThreadPool& pool, const Log& log) {
  const std::filesystem::path root = std::filesystem::is_directory(folder) ? folder : folder.parent_path();
  Config config = parse_config(read_text_file(root / "config.json", std::size_t{16} << 20), log);
  auto checkpoint = std::make_shared<const Checkpoint>(Checkpoint::open(folder));
  Weights weights = load_weights(std::move(checkpoint), config, pool, log);
  return make_model(std::move(config), std::move(weights));
}

Model random_model(const Config& config, std::uint64_t seed, ThreadPool& pool) {
  validate(config);
  return make_model(config, random_weights(config, seed, pool));
}

}  // namespace gov
