#pragma once
// `debug forward`, apart from the other debug commands.

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

}  // namespace gov::cli
