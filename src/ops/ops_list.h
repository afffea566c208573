#pragma once
// Every op once: declares cpu::op and cuda::op with the signature of ops.h. An op that one device lacks is a link
// error.

#include "ops/backward.h"
#include "ops/ops.h"

#define GOV_OPS(X)                                                                                                 \
  X(embedding, (Context&, const Tensor&, const Tensor&, const Tensor&))                                            \
  X(rms_norm, (Context&, const Tensor&, const Tensor&, float, const Tensor&))                                      \
  X(layer_norm, (Context&, const Tensor&, const Tensor&, const Tensor&, float, const Tensor&))                     \
  X(linear, (Context&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, bool))                          \
  X(rope_table, (Context&, const Tensor&, const Tensor&, float, const Tensor&, const Tensor&))                     \
  X(rope, (Context&, const Tensor&, const Tensor&, const Tensor&))                                                 \
  X(kv_append, (Context&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&))              \
  X(qkv_rope_append, (Context&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,         \
                      const Tensor&, const Tensor&))                                                               \
  X(attention, (Context&, const AttentionArgs&, const Tensor&))                                                    \
  X(router, (Context&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,   \
             const Tensor&, const Tensor&))                                                                        \
  X(swiglu, (Context&, const Tensor&, float, float, const Tensor&))                                                \
  X(moe, (Context&, const Tensor&, const Tensor&, const Tensor&, const ExpertProjection&, const ExpertProjection&, \
          float, float, const Tensor&))                                                                            \
  X(gelu, (Context&, const Tensor&, Gelu, const Tensor&))                                                          \
  X(add, (Context&, const Tensor&, const Tensor&))                                                                 \
  X(patch_embed, (Context&, const Tensor&, const Tensor&, const Tensor&, const Tensor&))                           \
  X(prepend_token, (Context&, const Tensor&, const Tensor&, const Tensor&, const Tensor&))                         \
  X(gather_rows, (Context&, const Tensor&, const Tensor&, const Tensor&))                                          \
  X(scatter_rows, (Context&, const Tensor&, const Tensor&, const Tensor&))                                         \
  X(cross_entropy, (Context&, const Tensor&, const Tensor&, const Tensor&))                                        \
  X(expert_load, (Context&, const Tensor&, const Tensor&, const Tensor&, const Tensor&))                           \
  X(sample, (Context&, const Tensor&, std::span<const SampleRow>, std::span<SampleResult>))

#define GOV_BACKWARD_OPS(X)                                                                                            \
  X(embedding_backward, (Context&, const Tensor&, const Tensor&, const Tensor&))                                       \
  X(rms_norm_backward, (Context&, const Tensor&, const Tensor&, float, const Tensor&, const Tensor&, const Tensor&))   \
  X(layer_norm_backward,                                                                                               \
    (Context&, const Tensor&, const Tensor&, float, const Tensor&, const Tensor&, const Tensor&, const Tensor&))       \
  X(linear_backward,                                                                                                   \
    (Context&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, bool))        \
  X(rope_backward, (Context&, const Tensor&, const Tensor&, const Tensor&))                                            \
  X(attention_backward, (Context&, const AttentionArgs&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,   \
                         const Tensor&, const Tensor&))                                                                \
  X(router_load, (Context&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&)) \
  X(router_backward, (Context&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,             \
                      const Tensor&, const Tensor&, const Tensor&, float, const RouterGradients&))                     \
  X(swiglu_backward, (Context&, const Tensor&, float, float, const Tensor&, const Tensor&))                            \
  X(moe_forward, (Context&, const Tensor&, const Tensor&, const Tensor&, const ExpertProjection&,                      \
                  const ExpertProjection&, float, float, const Tensor&, const Tensor&))                                \
  X(moe_backward, (Context&, const Tensor&, const Tensor&, const Tensor&, const ExpertProjection&,                     \
                   const ExpertProjection&, float, float, const Tensor&, const Tensor&, const Tensor&, const Tensor&,  \
                   const ExpertGradients&, const ExpertGradients&))                                                    \
  X(gelu_backward, (Context&, const Tensor&, Gelu, const Tensor&, const Tensor&))                                      \
  X(patch_embed_backward, (Context&, const Tensor&, std::int64_t, const Tensor&, const Tensor&, const Tensor&))        \
  X(prepend_token_backward, (Context&, bool, const Tensor&, const Tensor&, const Tensor&, const Tensor&))              \
  X(gather_rows_backward, (Context&, const Tensor&, const Tensor&, const Tensor&))                                     \
  X(linear_cross_entropy, (Context&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,        \
                           const Tensor&, const Tensor&, const Tensor&))                                               \
  X(add_squares, (Context&, const Tensor&, const Tensor&))                                                             \
  X(adamw, (Context&, const AdamwArgs&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&))    \
  X(mxfp4_quantize, (Context&, const Tensor&, const Tensor&, const Tensor&))

#define GOV_DECLARE_OP(name, arguments) void name arguments;
namespace gov::ops::cpu {
GOV_OPS(GOV_DECLARE_OP)
GOV_BACKWARD_OPS(GOV_DECLARE_OP)
}  // namespace gov::ops::cpu
namespace gov::ops::cuda {
GOV_OPS(GOV_DECLARE_OP)
GOV_BACKWARD_OPS(GOV_DECLARE_OP)
}  // namespace gov::ops::cuda
#undef GOV_DECLARE_OP
