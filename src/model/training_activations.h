#pragma once
// The intermediate results of a training pass: what the forward leaves for the backward, in buffers of their own for
// each layer or computed again, and the gradients on their way down. T = max_rows, R = max_loss_rows, "act" as in
// activations.h.

#include "model/activations.h"

namespace gov {

// What is computed a second time, to the same bits, instead of being kept.
enum class Recompute {
  kNone,
  kMoe,    // the experts' first products, by far the largest
  kBlock,  // everything but each layer's input
};

struct LayerActivations {
  Tensor x;                         // F32 [T, H], what enters the layer
  Tensor q, k, v;                   // act [T, heads*D], [T, kv_heads*D], rotated
  Tensor attended;                  // act [T, heads*D]
  Tensor lse;                       // F32 [T, heads]
  Tensor mid;                       // F32 [T, H], x and the attention's share
  Tensor logits, indices, weights;  // of the router: F32 [T, E], I32 [T, K], F32 [T, K]
  Tensor h;                         // act [T*K, 2I], or empty: computed again
};

// Sizes of the largest batch.
struct TrainingSizes {
  std::int64_t rows = 0, loss_rows = 0;
  std::int64_t images = 0;        // encoded in one batch
  std::int64_t image_rows = 0;    // of one ImageFill
  std::int64_t logits_rows = 64;  // of the head in one piece
};

struct VitLayerActivations {
  Tensor x;         // F32 [N*P, D]
  Tensor q, k, v;   // act [N*P, D]
  Tensor attended;  // act [N*P, D]
  Tensor lse;       // F32 [N*P, heads]
  Tensor mid;       // F32 [N*P, D]
  Tensor mlp;       // act [N*P, Iv], before the activation function
};

// Of the image encoder; N images, P = vit_tokens, n = tokens.
struct VisionTraining {
  Tensor patches;   // F32 [N, patches, D]
  Tensor embedded;  // F32 [N*P, D], before the CLIP norm; empty without one
  std::vector<VitLayerActivations> layers;
  Tensor last;                         // F32 [N*P, D], what leaves the layers
  Tensor pooled;                       // F32 [N*n, D]
  Tensor embeds;                       // F32 [N*n, H]
  Tensor cu_seqlens, lengths;          // I32 [N + 1], [N], constant
  Tensor normed, gelu;                 // act [N*n, D], [N*P, Iv]
  Tensor dembeds;                      // F32 [N*n, H]
  Tensor dpooled, dnormed;             // F32 [N*n, D]
  Tensor dx, dx_before;                // F32 [N*P, D]
  Tensor dq, dk, dv, dattended, dmlp;  // act, as their values
};

struct TrainingActivations {
  std::vector<LayerActivations> layers;  // with kBlock all but x is shared
  Tensor last_x;                         // F32 [T, H], what leaves the layers
  Tensor cos, sin, nope_cos, nope_sin;   // as in Activations
  Tensor normed;                         // act [T, H]
  Tensor last, last_normed;              // F32, act [R, H]
  Tensor logits;                         // F32 [logits_rows, V]
  Tensor losses;                         // F32 [R]
  Tensor counts, probabilities, z;       // F32 [L, 2, E] twice, [L, 1]: sums of router_load()
  Tensor slopes;                         // F32 [L, E], by the sums of probabilities
  Tensor image_rows;                     // F32 [image_rows, H]
  Tensor dx;                             // F32 [T, H], of the residual stream
  Tensor dnormed;                        // F32 [T, H]
  Tensor dq, dk, dv, dattended;          // act
  Tensor dweights, dlogits;              // F32 [T, K], [T, E]
  Tensor dlast, dlast_x;                 // act, F32 [R, H]
  VisionTraining vision;                 // empty without images
  Recompute recompute = Recompute::kNone;
  TrainingSizes sizes;
  Arena arena;

  TrainingActivations(const Config& config, const TrainingSizes& sizes, Recompute recompute, const Place& place = {});
  TrainingActivations(const TrainingActivations&) = delete;
  static std::uint64_t bytes(const Config& config, const TrainingSizes& sizes, Recompute recompute,
                             const Place& place = {});

 private:
  TrainingActivations() = default;  // planned, not allocated
  void plan(const Config& config, const Place& place);
  void plan_vision(const Config& config, const Place& place);
};

}  // namespace gov
