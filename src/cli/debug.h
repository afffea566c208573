#pragma once
// `debug forward`, `debug gradients` and `debug train-steps`, apart from the other debug commands.

#include "cli/common.h"

namespace gov::cli {

struct DebugForwardOptions {
  CommonOptions common;
  std::string inputs, output;
  std::int64_t generate = 40, generate_prompt = 12;
};

// Reads inputs.safetensors, runs the model once on all rows and once greedily, and writes every named tensor:
//   inputs   input_ids I64 [B, T]; optional pixel_values F32 [B, 3, side, side] (one picture per row, in front of its
//            text); optional loss_mask BOOL or U8 [B, T]
//   outputs  logits [B, S, V], hidden.N [B, S, H], router_logits.N [B, S, E], router_indices.N I64 and router_weights.N
//            [B, S, K], vision_embeds [B, n, H], inv_freq [D/2], loss [1], aux_loss [1], generated_ids I64 [B, P + G]
int run_debug_forward(const Program& program, const DebugForwardOptions& o);

struct DebugTrainingOptions {
  CommonOptions common;
  std::string inputs, output, recompute = "none";  // none, moe, block
  double aux_coefficient = -1;                     // negative: the configuration's
  // Of train-steps; decay is on every tensor, the gradient's norm is cut to `clip`.
  std::int64_t steps = 5;
  double lr = 1e-2, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0.1, clip = 1;
};

// Inputs as above. The loss is that of debug forward: the mean cross-entropy of the masked targets and the coefficient
// times aux_loss (transformers' form). Outputs:
//   gradients    loss [1], aux_loss [1], grad.<name of the tensor in the checkpoint>, in the checkpoint's shape
//   train-steps  train.losses [steps, 2], both before each update, and train.grad_norms [steps], before clipping
int run_debug_gradients(const Program& program, const DebugTrainingOptions& o);
int run_debug_train_steps(const Program& program, const DebugTrainingOptions& o);

}  // namespace gov::cli
