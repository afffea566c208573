#pragma once
// linear() for the inside of other ops: it neither checks nor starts an op, and takes scratch from the workspace.

#include "tensor/context.h"

namespace gov::ops::cuda {

// out [T, out] = x [T, in] weight^T + bias, or added to out. weight: any shape of out * in elements. Types and
// alignment as ops.h says of linear.
void linear_rows(Context& ctx, const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias,
                 const Tensor& out, bool accumulate);

}  // namespace gov::ops::cuda
