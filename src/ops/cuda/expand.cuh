#pragma once
// Unpacking MXFP4 inside of other ops.

#include "ops/ops.h"

namespace gov::ops::cuda {

// out BF16 [count, out, in] = the values of experts first .. first + count - 1; scales up to 249.
void expand_experts(Context& ctx, const char* op, const ExpertProjection& p, std::int64_t first, std::int64_t count,
                    void* out);

}  // namespace gov::ops::cuda
