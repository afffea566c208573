#pragma once
// The intermediate results of one forward pass, planned once for the largest batch and reused by every layer. Those
// marked "act" have the type of the run (Place::dtype); on a GPU that is BF16 in fast runs, F32 in exact ones.

#include "model/config.h"
#include "tensor/arena.h"

namespace gov {

// Where activations live and what type they have.
struct Place {
  DeviceKind device = DeviceKind::kCpu;
  DType dtype = DType::kF32;
};

// Of the text model. T = max_rows, R = max_logits_rows.
struct Activations {
  Tensor x;                   // F32 [T, H], the residual stream
  Tensor normed;              // act [T, H]
  Tensor qkv;                 // act [T, (heads + 2*kv_heads)*D], on a GPU, where one product makes all three
  Tensor q;                   // act [T, heads*D]
  Tensor k, v;                // act [T, kv_heads*D]
  Tensor attended;            // act [T, heads*D]
  Tensor cos, sin;            // F32 [T, D/2]
  Tensor nope_cos, nope_sin;  // F32 [T, D/2], only with nope_attention_scaling
  Tensor router_logits;       // F32 [T, E]
  Tensor router_indices;      // I32 [L, T, K], every layer's
  Tensor router_weights;      // F32 [T, K]
  Tensor last;                // F32 [R, H], the rows whose logits are wanted
  Tensor last_normed;         // act [R, H]
  Tensor logits;              // F32 [R, V]
  Arena arena;
  std::int64_t max_rows = 0, max_logits_rows = 0;
  Tensor expert_load;  // I64 [2, L, E]: every pass adds where its rows went (ops::expert_load); empty: not counted

  Activations(const Config& config, std::int64_t max_rows, std::int64_t max_logits_rows, const Place& place = {});
  Activations(const Activations&) = delete;
  // Of the first `rows` rows of a pass, [rows, K].
  Tensor indices_of(std::int64_t layer, std::int64_t rows) const {
    return router_indices.slice(layer, 1).view({max_rows, router_indices.shape[2]}).slice(0, rows);
  }
  // Bytes that the constructor will allocate for these sizes.
  static std::uint64_t bytes(const Config& config, std::int64_t max_rows, std::int64_t max_logits_rows,
                             const Place& place = {});

 private:
  Activations() = default;  // planned, not allocated
};

// Of the image encoder, for up to N images at once; P = vit_tokens, n = tokens.
struct VisionActivations {
  Tensor patches;            // F32 [N, patches, D]
  Tensor x;                  // F32 [N*P, D], the residual stream
  Tensor normed;             // act [N*n, D]
  Tensor q, k, v, attended;  // act [N*P, D]
  Tensor mlp;                // act [N*P, Iv]
  Tensor pooled;             // F32 [N*n, D], pool token first
  Tensor cu_seqlens;         // I32 [N + 1], constant: image after image
  Tensor lengths;            // I32 [N], constant
  Arena arena;
  std::int64_t max_images = 0;

  VisionActivations(const Config& config, std::int64_t max_images, const Place& place = {});
  VisionActivations(const VisionActivations&) = delete;
  static std::uint64_t bytes(const Config& config, std::int64_t max_images, const Place& place = {});

 private:
  VisionActivations() = default;  // planned, not allocated
};

}  // namespace gov
