#pragma once
// GPT-OSS-Vision, written once: the two loops. Each function states what it reads and writes; model.md section 5 and 6
// of the project's notes are the source, ops/reference the readable specification of every op.

#include "model/activations.h"
#include "model/batch.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/weights.h"

namespace gov {

// An open model: configuration, weights, and what follows from the configuration.
struct Model {
  Config config;
  Weights weights;
  std::vector<float> inv_freq;           // [head_dim / 2]
  float rope_factor = 1.f;               // YaRN's attention factor
  DeviceKind device = DeviceKind::kCpu;  // where the weights are
  int ordinal = 0;                       // of the GPU
  Tensor frequencies;                    // F32 [2, head_dim / 2] there: inv_freq, and zeros (no angle)
  Buffer frequencies_memory;

  std::uint64_t weight_bytes() const { return weights.mapped_bytes + weights.owned_bytes; }
};

// Opens a folder (config.json beside the checkpoint). Nothing is copied but unquantised experts.
Model load_model(const std::filesystem::path& folder, ThreadPool& pool, const Log& log = {});
// A model of random weights, for benchmarks and tests.
Model random_model(const Config& config, std::uint64_t seed, ThreadPool& pool);

// Makes what follows from the configuration. weights: where `device` says.
Model make_model(Config config, Weights weights, DeviceKind device = DeviceKind::kCpu, int ordinal = 0);

// Runs the rows of `batch` through all layers: appends their keys and values to `cache` and leaves the logits of
// batch.logits_rows in acts.logits[0 .. R). Traces hidden.N, router_logits.N, router_indices.N, router_weights.N.
void forward(Context& ctx, const Model& model, const Batch& batch, const KvCache& cache, Activations& acts);

inline constexpr float kAdapterNormEps = 1e-5f;  // of the adapter's own LayerNorm; not vision_layer_norm_eps

// Embeds images: pixels F32 [N, 3, image_size, image_size], normalised -> out F32 [N * config.vision.tokens(), H].
// N <= acts.max_images.  Traces vision_embeds.
void encode_images(Context& ctx, const Model& model, const Tensor& pixels, VisionActivations& acts, const Tensor& out);

// What the composed blocks and the fused decode step share (attention_block.cc). The angles of a layer's positions:
// empty without any, of no turn where only the attention factor is applied.
struct Angles {
  Tensor cos, sin;  // F32 [T, D/2]
};
// The angles of all rows of a pass, in the memory of its activations.
struct AngleTables {
  Tensor cos, sin, nope_cos, nope_sin;  // F32 [T, D/2]; the last two only with nope_attention_scaling
};
void make_angles(Context& ctx, const Model& model, const Tensor& positions, const AngleTables& tables);
Angles layer_angles(const Config& config, std::int64_t layer, const AngleTables& tables, std::int64_t rows);
inline Angles layer_angles(const Config& config, std::int64_t layer, const Activations& acts, std::int64_t rows) {
  return layer_angles(config, layer, {acts.cos, acts.sin, acts.nope_cos, acts.nope_sin}, rows);
}
// Attention of queries q [T, heads, D] to the layer's pages.
ops::AttentionArgs attention_args(const Model& model, std::int64_t layer, const Batch& batch, const KvCache& cache,
                                  const Tensor& q);

// The blocks of one layer (attention_block.cc, moe_block.cc): x += attention(norm(x)); x += moe(norm(x)).
void attention_block(Context& ctx, const Model& model, std::int64_t layer, const Batch& batch, const KvCache& cache,
                     Activations& acts);
void moe_block(Context& ctx, const Model& model, std::int64_t layer, const Batch& batch, Activations& acts);

}  // namespace gov
