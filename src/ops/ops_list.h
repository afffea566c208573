#pragma once
// Every op once: declares cpu::op and cuda::op with the signature of ops.h. An op that one device lacks is a link
// error.

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

#define GOV_DECLARE_OP(name, arguments) void name arguments;
namespace gov::ops::cpu {
GOV_OPS(GOV_DECLARE_OP)
}
namespace gov::ops::cuda {
GOV_OPS(GOV_DECLARE_OP)
}
#undef GOV_DECLARE_OP
