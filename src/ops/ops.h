#pragma once
// The mathematics of GPT-OSS-Vision, one free function per operation: this header is the whole interface.
//
// Contract of every op
// - Tensors are contiguous and live on ctx.device. Inputs come first, outputs last; shapes are checked once, in ops.cc.
// - Activations are F32 [tokens, ...]. On CUDA those marked "act" may also be BF16, each input and output on its own:
//   rounded to nearest when written. "Weight" tensors may be F32, BF16 or F16 as stored; they are widened exactly, and
//   all sums are F32. (With BF16 inputs and weights the tensor cores form exact products and F32 sums.)
// - Outputs are overwritten unless the op's comment says "added to". An output may not overlap an input unless the
// comment
//   says "may alias".
// - The same call twice gives the same bits, on every device. On the CPU every output element is summed in one fixed
//   order that depends neither on the number of rows in the call, nor on the thread count: prefill, decode, chunked and
//   batched runs agree bit for bit on one instruction set. CUDA picks its kernels by the number of rows.
// - On CUDA an op returns once its work is in the stream; no op but sample() waits for the device.
// - Indices outside their range throw on the CPU; on CUDA, whose memory the host does not read, such a row reads as NaN
//   or is not written.
// - Wrong shapes, dtypes or devices throw Error kInvalidArgument with the op's name. Formulas: model.md section 5 of
// the
//   project's notes, restated here.

#include <cstdint>
#include <span>

#include "tensor/context.h"

namespace gov::ops {

// out[t] = table[ids[t]].  table [V, H] weight; ids I32 [T], each in [0, V); out act [T, H].
void embedding(Context& ctx, const Tensor& table, const Tensor& ids, const Tensor& out);

// out[t] = weight * x[t] / sqrt(mean(x[t]^2) + eps).  x, out act [T, H] (may alias if of one type); weight
// [H].
void rms_norm(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& out);

// out[t] = weight * (x[t] - mean) / sqrt(var + eps) + bias, biased variance.  x, out act [T, H] (may alias if of one
// type); weight, bias [H].
void layer_norm(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, const Tensor& out);

// out = x W^T + bias, or with `accumulate` added to out.  x act [T, in]; weight [out, in]; bias [out] or empty; out act
// [T, out], F32 with `accumulate`.
void linear(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& out,
            bool accumulate = false);

// cos/sin [T, D/2] F32 of the angles positions[t] * inv_freq[i], times `factor` (YaRN's attention factor).
// positions I32 [T]; inv_freq F32 [D/2].  Angles are formed in F32 as the reference does, then reduced accurately.
void rope_table(Context& ctx, const Tensor& positions, const Tensor& inv_freq, float factor, const Tensor& cos,
                const Tensor& sin);

// Rotates in place, halves split: a' = a cos - b sin, b' = b cos + a sin with a = x[.., :D/2], b = x[.., D/2:].
// x act [T, heads, D]; cos, sin F32 [T, D/2].
void rope(Context& ctx, const Tensor& cos, const Tensor& sin, const Tensor& x);

// Writes k and v rows into the paged cache: row t goes to slot s = slots[t], block s / block_size, row s % block_size.
// k, v act [T, kv_heads, D]; slots I64 [T], negative = skip; caches [blocks, kv_heads, block_size, D], F32, BF16
// (rounded) or, on CUDA, F8E4M3 (rounded, saturating at 448).
void kv_append(Context& ctx, const Tensor& k, const Tensor& v, const Tensor& slots, const Tensor& k_cache,
               const Tensor& v_cache);

// rope() of q and k and kv_append() of k and v in one pass, from the packed rows of a joint projection; k and v are
// rounded once, to the cache's type.  qkv act [T, (heads + 2*kv_heads)*D], in each row q, k, v; cos, sin F32 [T, D/2],
// or empty: nothing rotates; slots and caches as for kv_append; q act [T, heads, D].
void qkv_rope_append(Context& ctx, const Tensor& qkv, const Tensor& cos, const Tensor& sin, const Tensor& slots,
                     const Tensor& q, const Tensor& k_cache, const Tensor& v_cache);

// Attention over packed sequences with grouped queries, optional sinks and windows.
// Sequence s owns query rows cu_seqlens[s] .. cu_seqlens[s+1]-1, and kv_lens[s] keys, the last query row being aligned
// to the last key: row i of n has position p = kv_lens[s] - n + i.
//   causal: keys j <= p; window w > 0: also p - j < w.  score = scale * q.k; a sink adds exp(sink[h]) to the softmax
//   sum only.
struct AttentionArgs {
  Tensor q;           // act [T, heads, D]
  Tensor cu_seqlens;  // I32 [S + 1], first 0, last T
  Tensor kv_lens;     // I32 [S]
  // Either contiguous keys (packed like q with their own cu_seqlens == cu_seqlens, kv_lens = lengths) ...
  Tensor k, v;  // act [T, kv_heads, D], or empty
  // ... or the paged cache: key j of sequence s is in block block_tables[s][j / block_size].
  Tensor k_cache, v_cache;  // F32, BF16 or (CUDA) F8E4M3 [blocks, kv_heads, block_size, D], or empty
  Tensor block_tables;      // I32 [S, max_blocks]; entries before the window are never read and may be negative
  Tensor sinks;             // [heads] weight dtype, or empty
  float scale = 1.f;
  bool causal = true;
  int window = 0;  // visible keys including self; 0 = all
  // F32 [T, heads], written if given (contiguous keys only): ln of the softmax sum, the sink's share included; -inf for
  // a row that sees nothing. attention_backward() reads it.
  Tensor lse;
  // Upper bounds that the host knows: of query rows and keys of one sequence. They choose kernels and grids on CUDA,
  // where the lengths themselves are in device memory; 0 = unknown (T, or all the cache holds).
  std::int64_t max_rows = 0, max_keys = 0;
};
// out act [T, heads, D]; a sequence of no keys gets zeros. heads % kv_heads == 0; query head h uses kv head h / (heads
// / kv_heads).
void attention(Context& ctx, const AttentionArgs& args, const Tensor& out);

// logits = x W^T + bias (+ vision_bias on rows whose modality is not 0); indices = the K largest, ties to the lower
// index, descending; weights = softmax over those K logits. x act [T, H]; weight [E, H]; bias [E]; vision_bias [E] or
// empty; modality U8 [T] or empty; logits F32 [T, E]; indices I32 [T, K]; weights F32 [T, K].
void router(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& vision_bias,
            const Tensor& modality, const Tensor& logits, const Tensor& indices, const Tensor& weights);

// One projection of all experts, output axis first: either dense `weight` [E, out, in], or MXFP4 `blocks` U8 [E, out,
// in/32, 16] with `scales` U8 [E, out, in/32] (base/mxfp4.h).  bias [E, out] weight dtype.
struct ExpertProjection {
  Tensor weight;
  Tensor blocks, scales;
  Tensor bias;
  // CUDA only: the same values in BF16 [E, out, in], which large batches read instead of `blocks`; or empty.
  Tensor expanded;
  // No scale is above 128, so that every weight is finite in BF16 after one multiplication: fast kernels may be used.
  bool moderate_scales = false;
  std::int64_t experts() const { return blocks ? blocks.shape[0] : weight.shape[0]; }
  std::int64_t out_features() const { return blocks ? blocks.shape[1] : weight.shape[1]; }
  std::int64_t in_features() const { return blocks ? blocks.shape[2] * 32 : weight.shape[2]; }
};

// a = (clamp(u, -limit, limit) + 1) * g * sigmoid(alpha * g), g = min(h[0::2], limit), u = h[1::2].
// h act [T, 2I], gate and up interleaved; out act [T, I].
void swiglu(Context& ctx, const Tensor& h, float alpha, float limit, const Tensor& out);

// Mixture of experts: out[t] += sum over k of weights[t,k] * (down(swiglu(gate_up(x[t]))) of expert indices[t,k]),
// biases inside the weighted sum, k ascending.  x act [T, H]; indices I32, weights F32 [T, K]; gate_up H -> 2I, down I
// -> H; out F32 [T, H], added to.
void moe(Context& ctx, const Tensor& x, const Tensor& indices, const Tensor& weights, const ExpertProjection& gate_up,
         const ExpertProjection& down, float alpha, float limit, const Tensor& out);

enum class Gelu { kErf, kTanh, kQuick };  // x Phi(x); its tanh form; x sigmoid(1.702 x)
// x, out act of equal shape, may alias if of one type.
void gelu(Context& ctx, const Tensor& x, Gelu kind, const Tensor& out);

// out += x.  F32, equal shapes.
void add(Context& ctx, const Tensor& x, const Tensor& out);

// A convolution with kernel = stride = patch, patches in row-major order, as rows.
// pixels F32 [N, C, height, width]; weight [D, C, p, p]; bias [D] or empty; out act [N, (height/p)*(width/p), D].
// Rows and columns past the last whole patch are not read.
void patch_embed(Context& ctx, const Tensor& pixels, const Tensor& weight, const Tensor& bias, const Tensor& out);

// out[n] = [token, x[n, 0], x[n, 1], ...] + positions.  token weight [D] or empty; x act [N, P, D]; positions weight
// [P', D] or empty; out act [N, P', D], P' = P + 1 with a token, else P.
void prepend_token(Context& ctx, const Tensor& token, const Tensor& x, const Tensor& positions, const Tensor& out);

// out[i] = x[rows[i]].  x act [T, H]; rows I32 [R]; out act [R, H].
void gather_rows(Context& ctx, const Tensor& x, const Tensor& rows, const Tensor& out);

// out[rows[i]] = x[i].  x act [R, H]; rows I32 [R], distinct; out act [T, H], other rows are left alone.
void scatter_rows(Context& ctx, const Tensor& x, const Tensor& rows, const Tensor& out);

// losses[t] = logsumexp(logits[t]) - logits[t, targets[t]], 0 where targets[t] < 0.  logits F32 [T, V]; targets I32
// [T]; losses F32 [T].
void cross_entropy(Context& ctx, const Tensor& logits, const Tensor& targets, const Tensor& losses);

// How many rows each expert of each layer was given: counts[m, l, e] += rows t whose indices[l, t] hold e, m = 0 where
// modality[t] is 0, else 1. Rows of a negative slot are padding and left out.
// indices I32 [L, T, K] (entries outside [0, E) are not counted); modality U8 [R], slots I64 [R], R <= T; counts I64
// [2, L, E], added to.
void expert_load(Context& ctx, const Tensor& indices, const Tensor& modality, const Tensor& slots,
                 const Tensor& counts);

// How one sequence's next token is drawn. Order, each step on what the one before left: logit bias, repetition,
// presence and frequency penalties, forbidden tokens, temperature, top_k, typical, top_p, min_p, then one draw.
struct SamplingParams {
  float temperature = 1.f;         // 0 = greedy: the largest logit, ties to the lowest id
  int top_k = 0;                   // 0 = off
  float top_p = 1.f;               // smallest set whose probability reaches top_p
  float min_p = 0.f;               // keep p >= min_p * p_max
  float typical_p = 1.f;           // locally typical sampling (Meister et al., 2022)
  float repetition_penalty = 1.f;  // divides positive, multiplies negative logits of tokens in prompt or output
  float presence_penalty = 0.f;    // subtracted once for tokens in the output
  float frequency_penalty = 0.f;   // subtracted per occurrence in the output
  std::uint64_t seed = 0;
};

struct TokenCount {
  std::int32_t token;
  std::int32_t in_output;  // occurrences in the output; 0 = only in the prompt
};

struct LogitBias {
  std::int32_t token;
  float bias;
};

struct SampleRow {
  SamplingParams params;
  std::uint64_t draw = 0;              // counter of the random number: the index of the output token
  std::uint64_t stream = 0;            // sub-sequence (the n-th choice) under the same seed
  std::span<const TokenCount> counts;  // distinct tokens seen so far, for the penalties
  std::span<const LogitBias> bias;
  std::span<const std::int32_t> forbidden;  // never drawn (eos before min_new_tokens, image_token_id)
  // Tokens whose bit (token % 32 of word token / 32) is not set are as forbidden ones. [ceil(V / 32)], or empty: all
  // may be drawn.
  std::span<const std::uint32_t> allowed;
  // >= 0: nothing is drawn, this token is taken, to know its log-probability (-inf where its logit is not finite);
  // needs top_logprobs >= 0.
  std::int32_t given = -1;
  int top_logprobs = -1;  // -1 = no logprobs; n >= 0: the chosen token's and the n largest
};

struct SampleResult {
  std::int32_t token = 0;
  float logprob =
      0.f;  // natural log of the model's probability after bias, penalties and forbidden tokens, at temperature 1
  int top_count = 0;  // entries of top_* in use
  std::int32_t top_tokens[20];
  float top_logprobs[20];
};

// Draws one token per row. logits F32 [R, V] is used as scratch and left undefined; rows, results [R].
// Logits that are not finite are never drawn; a row that has no finite logit left gets token -1.
void sample(Context& ctx, const Tensor& logits, std::span<const SampleRow> rows, std::span<SampleResult> results);

}  // namespace gov::ops
