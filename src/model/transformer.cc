#include "model/transformer.h"

#include <fmt/format.h>

#include "io/mapped_file.h"
#include "model/random.h"

namespace gov {
namespace {

Model make_model(Config config, Weights weights) {
  Model model;
  model.inv_freq = rope_inv_freq(config);
  model.rope_factor = rope_attention_factor(config);
  model.config = std::move(config);
  model.weights = std::move(weights);
  return model;
}

// Fills x with the embeddings of the batch: text rows from the table, image rows from the encoder.
void embed(Context& ctx, const Model& model, const Batch& batch, const Tensor& x) {
  ops::embedding(ctx, model.weights.embed, batch.tokens, x);
  if (batch.vision_rows.elements() > 0) ops::scatter_rows(ctx, batch.vision_embeds, batch.vision_rows, x);
}

// The angles of all rows, shared by every layer.
void positions(Context& ctx, const Model& model, const Batch& batch, Activations& a) {
  const std::int64_t rows = batch.tokens.rows(), half = model.config.head_dim / 2;
  const Tensor inv_freq = Tensor::of(model.inv_freq.data(), {half}, "inv_freq");
  ops::rope_table(ctx, batch.positions, inv_freq, model.rope_factor, a.cos.slice(0, rows), a.sin.slice(0, rows));
  if (!a.nope_cos) return;
  const std::vector<float> still(static_cast<std::size_t>(half), 0.f);  // no angle: cos = factor, sin = 0
  ops::rope_table(ctx, batch.positions, Tensor::of(still.data(), {half}, "zero frequencies"), model.rope_factor,
                  a.nope_cos.slice(0, rows), a.nope_sin.slice(0, rows));
}

}  // namespace

void forward(Context& ctx, const Model& model, const Batch& batch, const KvCache& cache, Activations& acts) {
  const std::int64_t rows = batch.tokens.rows(), wanted = batch.logits_rows.rows();
  if (rows > acts.max_rows || wanted > acts.max_logits_rows) {
    fail(ErrorCode::kInvalidArgument, "forward: {} rows and {} logits exceed the planned {} and {}", rows, wanted,
         acts.max_rows, acts.max_logits_rows);
  }
  const Tensor x = acts.x.slice(0, rows);
  embed(ctx, model, batch, x);
  positions(ctx, model, batch, acts);
  for (std::int64_t layer = 0; layer < model.config.num_hidden_layers; ++layer) {
    attention_block(ctx, model, layer, batch, cache, acts);
    moe_block(ctx, model, layer, batch, acts);
    if (ctx.trace) ctx.trace(fmt::format("hidden.{}", layer), x);
  }
  if (wanted == 0) return;
  const Tensor last = acts.last.slice(0, wanted);
  ops::gather_rows(ctx, x, batch.logits_rows, last);
  ops::rms_norm(ctx, last, model.weights.norm, model.config.rms_norm_eps, last);
  ops::linear(ctx, last, model.weights.lm_head, {}, acts.logits.slice(0, wanted));
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
