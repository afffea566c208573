// Stands in for the CUDA ops in builds without CUDA.
#include "ops/ops_list.h"

namespace gov::ops::cuda {

#define GOV_REFUSE_OP(name, arguments) \
  void name arguments { fail(ErrorCode::kUnsupported, "built without CUDA: " #name); }
GOV_OPS(GOV_REFUSE_OP)
#undef GOV_REFUSE_OP

}  // namespace gov::ops::cuda
