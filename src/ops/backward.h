#pragma once
// The derivatives of ops.h, and what else only training needs: one free function per operation.
//
// Contract, beside that of ops.h
// - `dout` is the gradient of the loss by the op's output, `dx` by its input x, and so on.
// - Gradients of activations are F32, on CUDA those marked "act" also BF16, each on its own: the residual stream's stay
//   F32 beside BF16 activations. They are overwritten unless the comment says "added to".
// - Gradients of weights are F32 in the shape of the weight and are added to: accumulation over micro-batches needs no
//   other op. Whatever the type of the weight itself. Those of experts, by far the largest, can be overwritten instead.
// - An empty gradient tensor is not wanted (a frozen weight, the first layer's input): its work is left out.
// - The same call twice gives the same bits on every device; on the CPU also whatever the thread count. No sum's order
//   is left to atomics on floating point: one that adds to an element is the only one of its kernel to do so.
// - Formulas follow from ops.h; tests/ops differentiates ops/reference/math.h by complex steps and compares.

#include "ops/ops.h"

namespace gov::ops {

// dtable[ids[t]] += dout[t], in ascending order of t.  ids I32 [T]; dout act [T, H]; dtable F32 [V, H].
// Rows with ids[t] < 0 are left out (an image's rows of a batch).
void embedding_backward(Context& ctx, const Tensor& ids, const Tensor& dout, const Tensor& dtable);

// With r = 1 / sqrt(mean(x^2) + eps), n = x r, g = weight * dout:  dx += r (g - n mean(g n));  dweight += sum_t dout n.
// x, dout act [T, H]; dx F32 [T, H], added to (the residual stream), or empty; dweight F32 [H] or empty.
void rms_norm_backward(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& dout,
                       const Tensor& dx, const Tensor& dweight);

// With n = (x - mean) r, g = weight * dout:  dx += r (g - mean(g) - n mean(g n));  dweight += sum_t dout n;  dbias +=
// sum_t dout.  Types as for rms_norm_backward.
void layer_norm_backward(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& dout,
                         const Tensor& dx, const Tensor& dweight, const Tensor& dbias);

// dx = dout W (with `accumulate` added to);  dweight += dout^T x;  dbias += sum_t dout.
// x act [T, in]; weight [out, in]; dout act [T, out]; dx act [T, in] or empty, F32 with `accumulate`; dweight F32
// [out, in] or empty; dbias F32 [out] or empty.  x may be empty if dweight is.
void linear_backward(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& dout, const Tensor& dx,
                     const Tensor& dweight, const Tensor& dbias, bool accumulate = false);

// The rotation turned back, in place: a' = a cos + b sin, b' = b cos - a sin.  dx act [T, heads, D].
void rope_backward(Context& ctx, const Tensor& cos, const Tensor& sin, const Tensor& dx);

// Of attention() over contiguous keys (args.k, args.v; kv_lens = lengths). out and args.lse are the forward's. With p
// the weights, D_i = dout_i . out_i, ds_ij = p_ij (dout_i . v_j - D_i):
//   dq_i = scale sum_j ds_ij k_j;  dk_j = scale sum_i ds_ij q_i;  dv_j = sum_i p_ij dout_i;
//   dsinks[h] += -sum_i exp(sink[h] - lse_i) D_i.
// out, dout, dq act [T, heads, D]; dk, dv act [T, kv_heads, D]; dsinks F32 [heads] or empty.
void attention_backward(Context& ctx, const AttentionArgs& args, const Tensor& out, const Tensor& dout,
                        const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dsinks);

// How a router is used, for the losses that keep experts evenly loaded: counts[e] += rows that chose e;
// probabilities[e] += sum_t softmax(logits[t])[e], over all E logits; z += sum_t logsumexp(logits[t])^2. Rows with
// modality != 0 go to row 1 of counts and probabilities, the others to row 0.
// logits F32 [T, E]; indices I32 [T, K]; modality U8 [T] or empty; counts, probabilities F32 [2, E]; z F32 [1]. Sums
// of rows are in ascending order.
void router_load(Context& ctx, const Tensor& logits, const Tensor& indices, const Tensor& modality,
                 const Tensor& counts, const Tensor& probabilities, const Tensor& z);

// Of router(): with w the K softmax weights, dl[t, indices[t,k]] = w_k (dweights_k - sum_j w_j dweights_j), and with
// p = softmax(logits[t]) over all E the auxiliary losses' share, for every e,
//   dl[t, e] += p_e (slopes[e] - sum_j p_j slopes[j]) + 2 z_slope logsumexp(logits[t]) p_e,
// slopes[e] = d loss / d(sum_t p[t, e]) F32 [E] or empty, z_slope = d loss / d(sum_t logsumexp^2).
// Then dx += dl W, dweight += dl^T x, dbias += sum_t dl, dvision_bias += the sum over rows
// whose modality is not 0.
// x act [T, H]; weight [E, H]; logits F32 [T, E], indices I32, weights F32 [T, K] of the forward; dweights F32 [T, K];
struct RouterGradients {
  Tensor dlogits;       // F32 [T, E], always written
  Tensor dx;            // F32 [T, H], added to, or empty
  Tensor dweight;       // F32 [E, H] or empty
  Tensor dbias;         // F32 [E] or empty
  Tensor dvision_bias;  // F32 [E] or empty
};
void router_backward(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& modality, const Tensor& logits,
                     const Tensor& indices, const Tensor& weights, const Tensor& dweights, const Tensor& slopes,
                     float z_slope, const RouterGradients& out);

// h act [T, 2I] as given to swiglu(); dout act [T, I]; dh act [T, 2I], may alias h. Where a clamp holds, its derivative
// is 0.
void swiglu_backward(Context& ctx, const Tensor& h, float alpha, float limit, const Tensor& dout, const Tensor& dh);

// Gradients of one projection of all experts: dense whatever the form of the weight itself. Given for an MXFP4
// projection they are those of the values that were multiplied (straight-through).
struct ExpertGradients {
  Tensor dweight;          // F32 [E, out, in] or empty
  Tensor dbias;            // F32 [E, out] or empty
  bool accumulate = true;  // false: both are overwritten, with zeros for experts without rows
};

// moe() that keeps what its derivative would compute again: h act [T*K, 2I], the first products with their biases,
// row t*K + k for choice k of row t.  h may be empty: nothing is kept.
void moe_forward(Context& ctx, const Tensor& x, const Tensor& indices, const Tensor& weights,
                 const ExpertProjection& gate_up, const ExpertProjection& down, float alpha, float limit,
                 const Tensor& out, const Tensor& h);

// Of moe(). h: kept by moe_forward(), or empty: it is computed again, to the same bits. dout act [T, H]; dx act [T, H]
// or empty; dweights F32 [T, K], by the routing weights.
void moe_backward(Context& ctx, const Tensor& x, const Tensor& indices, const Tensor& weights,
                  const ExpertProjection& gate_up, const ExpertProjection& down, float alpha, float limit,
                  const Tensor& h, const Tensor& dout, const Tensor& dx, const Tensor& dweights,
                  const ExpertGradients& dgate_up, const ExpertGradients& ddown);

// x, dout, dx act of equal shape; dx may alias x or dout if of one type.
void gelu_backward(Context& ctx, const Tensor& x, Gelu kind, const Tensor& dout, const Tensor& dx);

// pixels F32 [N, C, height, width]; dout act [N, patches, D]; dweight F32 [D, C, p, p]; dbias F32 [D] or empty.
void patch_embed_backward(Context& ctx, const Tensor& pixels, std::int64_t patch, const Tensor& dout,
                          const Tensor& dweight, const Tensor& dbias);

// dtoken += sum_n dout[n, 0]; dx[n, i] = dout[n, i + 1]; dpositions += sum_n dout[n].  dout act [N, P', D]; dtoken F32
// [D] or empty; dx act [N, P, D] or empty; dpositions F32 [P', D] or empty.
void prepend_token_backward(Context& ctx, bool with_token, const Tensor& dout, const Tensor& dtoken, const Tensor& dx,
                            const Tensor& dpositions);

// dx[rows[i]] += dout[i] for distinct rows: the derivative of gather_rows. dout act [R, H]; dx F32 [T, H].
void gather_rows_backward(Context& ctx, const Tensor& rows, const Tensor& dout, const Tensor& dx);

// The head and the loss as one, in chunks of logits.rows() rows, so that [R, V] never exists:
//   losses[r] = logsumexp(l_r) - l_r[targets[r]], l_r = x_r W^T, 0 where targets[r] < 0;
//   dx = d/dx of sum_r row_weights[r] losses[r];  dweight += the same by W.
// x act [R, H]; weight [V, H]; targets I32 [R]; row_weights F32 [R]; logits F32 [C, V], scratch; losses F32 [R]; dx act
// [R, H] or empty (no derivative at all then); dweight F32 [V, H] or empty.
void linear_cross_entropy(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& targets,
                          const Tensor& row_weights, const Tensor& logits, const Tensor& losses, const Tensor& dx,
                          const Tensor& dweight);

// out[0] += sum of squares of x, in F64 inside one call; out F64 [1]. Sums in a fixed order.
void add_squares(Context& ctx, const Tensor& x, const Tensor& out);

// One AdamW step (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2) on one tensor:
//   g' = grad_scale g;  m = b1 m + (1-b1) g';  v = b2 v + (1-b2) g'^2;
//   p -= lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay p).
struct AdamwArgs {
  float lr = 0, beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f, decay = 0;
  float grad_scale = 1;   // clipping
  std::int64_t step = 1;  // t, from 1
};
// param F32 master, grad F32, m and v F32, of one shape; copy: BF16, the parameter rounded to nearest for the next
// forward, or empty.
void adamw(Context& ctx, const AdamwArgs& args, const Tensor& grad, const Tensor& param, const Tensor& m,
           const Tensor& v, const Tensor& copy);

// Rounds to MXFP4 as base/mxfp4.h does. x F32 [.., in], in a multiple of 32; blocks U8 [.., in/32, 16]; scales U8 [..,
// in/32].
void mxfp4_quantize(Context& ctx, const Tensor& x, const Tensor& blocks, const Tensor& scales);

}  // namespace gov::ops
