#pragma once
// Coarse ops of the decode step of one sequence: six a layer instead of fourteen. Each one's meaning is the composition
// of ops of ops.h that its comment names; they differ from it by rounding of F32 sums only. CUDA, compute
// capability 9.0.
//
// All vectors are F32 rows [1, n] on the device, whatever type the activations of large batches have.

#include "ops/ops.h"

namespace gov::ops {

// A matrix [out, in] that one vector is multiplied with: BF16, or 8 bits a weight with a scale for each row
// (quantise_rows). `bias` [out] BF16 or empty.
struct DecodeMatrix {
  Tensor weight;  // BF16 [out, in], or I8 [out, in]: byte * scales[row]
  Tensor scales;  // F32 [out] with I8
  Tensor bias;
};

// Whether the fused kernels can run a layer of these tensors on ctx's device: sizes, types, alignment.
struct DecodeShape {
  std::int64_t hidden, heads, kv_heads, head_dim, inner, experts, experts_per_token;
};
bool decode_supported(const Context& ctx, const DecodeShape& shape);

// weight BF16 [R, C] -> out I8 [R, C], scales F32 [R]: symmetric, scale = max |row| / 127, nearest.
void quantise_rows(Context& ctx, const Tensor& weight, const Tensor& out, const Tensor& scales);

// n = rms_norm(x); [q, k, v] = linear(n); rope(q), rope(k) unless cos is empty; kv_append(k, v).
// x F32 [1, H]; norm BF16 [H]; qkv [(heads + 2 kv_heads) * D, H]; cos, sin F32 [1, D/2] or empty; slots I64 [1];
// q F32 [1, heads, D]; caches [blocks, kv_heads, block_size, D] F32, BF16 or F8E4M3.
void decode_qkv(Context& ctx, const Tensor& x, const Tensor& norm, float eps, const DecodeMatrix& qkv,
                const Tensor& cos, const Tensor& sin, const Tensor& slots, const Tensor& q, const Tensor& k_cache,
                const Tensor& v_cache);

// x += linear(attended).  attended F32 [1, in]; o [H, in]; x F32 [1, H].
void decode_out(Context& ctx, const Tensor& attended, const DecodeMatrix& o, const Tensor& x);

// router(rms_norm(x)), as ops.h. ticket I32 [1] is 0 before and after, the caller's for this purpose alone.
void decode_router(Context& ctx, const Tensor& x, const Tensor& norm, float eps, const Tensor& weight,
                   const Tensor& bias, const Tensor& vision_bias, const Tensor& modality, const Tensor& logits,
                   const Tensor& indices, const Tensor& weights, const Tensor& ticket);

// h[k] = swiglu(gate_up(rms_norm(x)) of expert indices[0, k]).  gate_up MXFP4. h I8 [K, 3, I]: the base-256 digits,
// lowest first, of fixed-point numbers: h is bounded by b = (limit + 1) max(limit, 0.28 / alpha), and stands for itself
// times 4,194,303 / b.
void decode_gate_up(Context& ctx, const Tensor& x, const Tensor& norm, float eps, const Tensor& indices,
                    const ExpertProjection& gate_up, float alpha, float limit, const Tensor& h);

// x += sum over k of weights[0, k] * down(h[k]) of expert indices[0, k].  alpha and limit as for decode_gate_up. The
// call before it in the stream must be decode_gate_up's with the same indices: they are read while that one still runs.
void decode_down(Context& ctx, const Tensor& h, const Tensor& indices, const Tensor& weights,
                 const ExpertProjection& down, float alpha, float limit, const Tensor& x);

// logits = linear(rms_norm(x)).  head [V, H]; logits F32 [1, V].
void decode_head(Context& ctx, const Tensor& x, const Tensor& norm, float eps, const DecodeMatrix& head,
                 const Tensor& logits);

}  // namespace gov::ops
