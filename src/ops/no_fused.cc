// Stands in for the fused decode kernels in builds without CUDA.
#include "ops/fused.h"

namespace gov::ops {
namespace {
[[noreturn]] void refuse(const char* op) { fail(ErrorCode::kUnsupported, "built without CUDA: {}", op); }
}  // namespace

bool decode_supported(const Context&, const DecodeShape&) { return false; }
void quantise_rows(Context&, const Tensor&, const Tensor&, const Tensor&) { refuse("quantise_rows"); }
void decode_qkv(Context&, const Tensor&, const Tensor&, float, const DecodeMatrix&, const Tensor&, const Tensor&,
                const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  refuse("decode_qkv");
}
void decode_out(Context&, const Tensor&, const DecodeMatrix&, const Tensor&) { refuse("decode_out"); }
void decode_router(Context&, const Tensor&, const Tensor&, float, const Tensor&, const Tensor&, const Tensor&,
                   const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  refuse("decode_router");
}
void decode_gate_up(Context&, const Tensor&, const Tensor&, float, const Tensor&, const ExpertProjection&, float, float,
                    const Tensor&) {
  refuse("decode_gate_up");
}
void decode_down(Context&, const Tensor&, const Tensor&, const Tensor&, const ExpertProjection&, float, float,
                 const Tensor&) {
  refuse("decode_down");
}
void decode_head(Context&, const Tensor&, const Tensor&, float, const DecodeMatrix&, const Tensor&) {
  refuse("decode_head");
}

}  // namespace gov::ops
