#pragma once
// Training passes: losses of a batch and their gradients. The blocks stand beside those of inference
// (attention_block.cc, moe_block.cc); the two loops are in training.cc.

#include <functional>

#include "model/parameter_set.h"
#include "model/router_losses.h"
#include "model/training_activations.h"
#include "model/training_batch.h"
#include "model/transformer.h"
#include "ops/backward.h"

namespace gov {

struct LossOptions {
  Balance balance = Balance::kNone;
  double balance_coefficient = 0, z_coefficient = 0;
  // Called with the batch's statistics before the losses are made of them: to add those of other ranks.
  std::function<void(RouterStatistics&)> reduce;
  bool accumulate = true;  // false: gradients are overwritten, which is faster than zeros before; the first micro-batch
};

struct TrainingLosses {
  double cross_entropy = 0;   // sum of row_weights times losses
  double balance = 0, z = 0;  // before their coefficients
  RouterStatistics routing;

  double total(const LossOptions& o) const {
    return cross_entropy + o.balance_coefficient * balance + o.z_coefficient * z;
  }
};

// Runs the batch forward, and unless `gradients` is null backward: the gradients of total() are added to its tensors,
// or without options.accumulate take the place of what is in them. Parameters without a tensor are frozen, and no pass
// goes below the lowest that is not. The model may hold its weights in any form; gradients of MXFP4 experts are those
// of the values they stand for. Waits for the device.
TrainingLosses loss_and_gradients(Context& ctx, const Model& model, const TrainingBatch& batch,
                                  const LossOptions& options, TrainingActivations& acts, const ParameterSet* gradients);

// The blocks of a layer. Forward: acts.layers[layer].x to .mid, .mid to `out`. Backward: acts.dx, the gradient of what
// the block leaves, becomes that of what it takes.
void attention_block(Context& ctx, const Model& model, std::int64_t layer, const TrainingBatch& batch,
                     TrainingActivations& acts);
void attention_block_backward(Context& ctx, const Model& model, std::int64_t layer, const TrainingBatch& batch,
                              TrainingActivations& acts, const AttentionWeights& gradients);
void moe_block(Context& ctx, const Model& model, std::int64_t layer, const TrainingBatch& batch,
               TrainingActivations& acts, const Tensor& out);
// slopes: F32 [E] by the layer's sums of router probabilities, or empty; z_slope: by its sum of squares. accumulate: of
// the experts' gradients (ops::ExpertGradients).
void moe_block_backward(Context& ctx, const Model& model, std::int64_t layer, const TrainingBatch& batch,
                        TrainingActivations& acts, const Tensor& slopes, float z_slope, bool accumulate,
                        const MoeWeights& gradients);

// pixels to acts.embeds [N * n, H], and back from acts.dembeds (vision_training.cc). `encoder`: the gradients reach the
// vision transformer below the pool token, too.
void encode_images(Context& ctx, const Model& model, const Tensor& pixels, VisionTraining& acts);
void encode_images_backward(Context& ctx, const Model& model, const Tensor& pixels, VisionTraining& acts, bool encoder,
                            const VisionWeights& gradients);

// to = from, of one type and shape.
void copy_tensor(Context& ctx, const Tensor& from, const Tensor& to);

}  // namespace gov
