#pragma once
// The kernels of this instruction set as a table: the unit's only symbol.

#include "ops/kernels.h"
#include "ops/kernels/attention.h"
#include "ops/kernels/linear.h"
#include "ops/kernels/math.h"
#include "ops/kernels/product.h"
#include "ops/kernels/row_gradients.h"
#include "ops/kernels/rows.h"

namespace gov::ops::GOV_ISA {

const Kernels& kernels() {
  static constexpr Kernels kTable = {
      .linear_f32 = linear_f32,
      .linear_bf16 = linear_bf16,
      .linear_f16 = linear_f16,
      .linear_mxfp4 = linear_mxfp4,
      .pack = pack,
      .rms_norm = rms_norm,
      .layer_norm = layer_norm,
      .swiglu = swiglu,
      .gelu_erf = gelu_erf,
      .gelu_tanh = gelu_tanh,
      .gelu_quick = gelu_quick,
      .exp_sum = exp_sum,
      .attention = attention,
      .product = product,
      .rms_norm_gradient = rms_norm_gradient,
      .layer_norm_gradient = layer_norm_gradient,
      .swiglu_gradient = swiglu_gradient,
      .gelu_erf_gradient = gelu_erf_gradient,
      .gelu_tanh_gradient = gelu_tanh_gradient,
      .gelu_quick_gradient = gelu_quick_gradient,
      .fma_chains = fma_chains,
      .read_sum = read_sum,
      .lanes = kLanes,
  };
  return kTable;
}

}  // namespace gov::ops::GOV_ISA
