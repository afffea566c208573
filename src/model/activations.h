#pragma once
// The intermediate results of one forward pass, planned once for the largest batch and reused by every layer.

#include "model/config.h"
#include "tensor/arena.h"

namespace gov {

// Of the text model. T = max_rows, R = max_logits_rows.
struct Activations {
  Tensor x;                   // F32 [T, H], the residual stream
  Tensor normed;              // F32 [T, H]
  Tensor q;                   // F32 [T, heads*D]
  Tensor k, v;                // F32 [T, kv_heads*D]
  Tensor attended;            // F32 [T, heads*D]
  Tensor cos, sin;            // F32 [T, D/2]
  Tensor nope_cos, nope_sin;  // F32 [T, D/2], only with nope_attention_scaling
  Tensor router_logits;       // F32 [T, E]
  Tensor router_indices;      // I32 [T, K]
  Tensor router_weights;      // F32 [T, K]
  Tensor last;                // F32 [R, H], the rows whose logits are wanted
  Tensor logits;              // F32 [R, V]
  Arena arena;
  std::int64_t max_rows = 0, max_logits_rows = 0;

  Activations(const Config& config, std::int64_t max_rows, std::int64_t max_logits_rows);
  Activations(const Activations&) = delete;
  // Bytes that the constructor will allocate for these sizes.
  static std::uint64_t bytes(const Config& config, std::int64_t max_rows, std::int64_t max_logits_rows);

 private:
  Activations() = default;  // planned, not allocated
};

// Of the image encoder, for up to N images at once; P = vit_tokens.
struct VisionActivations {
  Tensor patches;            // F32 [N, patches, D]
  Tensor x, normed;          // F32 [N*P, D]
  Tensor q, k, v, attended;  // F32 [N*P, D]
  Tensor mlp;                // F32 [N*P, Iv]
  Tensor pooled;             // F32 [N*n, D], pool token first
  Tensor cu_seqlens;         // I32 [N + 1]
  Tensor lengths;            // I32 [N]
  Arena arena;
  std::int64_t max_images = 0;

  VisionActivations(const Config& config, std::int64_t max_images);
  VisionActivations(const VisionActivations&) = delete;
  static std::uint64_t bytes(const Config& config, std::int64_t max_images);

 private:
  VisionActivations() = default;  // planned, not allocated
};

}  // namespace gov
