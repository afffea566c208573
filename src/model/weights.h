#pragma once
// The weights as plain structs of views: shapes beside the fields (sizes are Config's). Storage is either the mapped
// checkpoint itself or buffers that Weights owns (transposed experts, zero biases, random weights; on a GPU
// everything).

#include <memory>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "model/config.h"
#include "ops/ops.h"
#include "tensor/tensor.h"

namespace gov {

// Of ops::ExpertProjection::moderate_scales.
inline constexpr int kLargestModerateScale = 128;

struct AttentionWeights {
  Tensor norm;       // [H]
  Tensor q, q_bias;  // [heads*D, H], [heads*D]
  Tensor k, k_bias;  // [kv_heads*D, H], [kv_heads*D]
  Tensor v, v_bias;  // [kv_heads*D, H], [kv_heads*D]
  Tensor o, o_bias;  // [H, heads*D], [H]; all biases are empty when attention_bias is false
  Tensor sinks;      // [heads]
  // On a device, where q, k and v lie one behind the other and have one type: all three as one, else empty.
  Tensor qkv, qkv_bias;  // [(heads + 2*kv_heads)*D, H], [(heads + 2*kv_heads)*D]
};

struct MoeWeights {
  Tensor norm;                    // [H]
  Tensor router, router_bias;     // [E, H], [E]
  Tensor vision_bias;             // [E], empty without vision
  ops::ExpertProjection gate_up;  // H -> 2I, gate and up rows interleaved
  ops::ExpertProjection down;     // I -> H
};

struct LayerWeights {
  AttentionWeights attention;
  MoeWeights moe;
};

struct VitLayerWeights {
  Tensor norm1, norm1_bias;                           // [D]
  Tensor q, q_bias, k, k_bias, v, v_bias, o, o_bias;  // [D, D], [D]
  Tensor norm2, norm2_bias;                           // [D]
  Tensor fc1, fc1_bias, fc2, fc2_bias;                // [Iv, D], [Iv], [D, Iv], [D]
};

struct VisionWeights {
  Tensor patch, patch_bias;             // [D, 3, p, p], [D] or empty
  Tensor class_token;                   // [1, 1, D] or empty
  Tensor positions;                     // [1, patches + class, D]
  Tensor pre_norm, pre_norm_bias;       // [D] or empty (CLIP)
  std::vector<VitLayerWeights> layers;  // [vision num_layers]
  Tensor post_norm, post_norm_bias;     // [D] or empty (final_layernorm false)
  Tensor pool_token;                    // [1, 1, D] or empty
  Tensor norm, norm_bias;               // [D]
  Tensor proj, proj_bias;               // [H, D], [H]
};

struct Weights {
  Tensor embed;    // [V, H]
  Tensor lm_head;  // [V, H]; the same view as embed when tied
  Tensor norm;     // [H]
  std::vector<LayerWeights> layers;
  VisionWeights vision;  // empty without use_vision

  std::shared_ptr<const Checkpoint> mapped;  // keeps mapped views alive
  std::vector<Buffer> owned;                 // keeps owned views alive
  std::uint64_t mapped_bytes = 0, owned_bytes = 0;
};

// Views of a checkpoint's tensors as `config` wants them. Missing, misshapen or wrongly typed tensors throw Error
// kCorrupt naming up to eight of them; tensors that the model does not use are named in one note. MXFP4 scales are
// checked (255 is refused, 253 and 254 if a value would overflow). Without any vision tensor in the file,
// config.use_vision becomes false with a note. Unquantised experts are stored input axis first and are transposed into
// owned memory.
Weights load_weights(std::shared_ptr<const Checkpoint> checkpoint, Config& config, ThreadPool& pool, const Log& log);

// Random weights of the initial distribution (model.md section 9: normal(0, initializer_range), zero biases, norms
// one), in owned memory, from (seed, tensor name): the same values whatever the order or thread count.
Weights random_weights(const Config& config, std::uint64_t seed, ThreadPool& pool);

}  // namespace gov
