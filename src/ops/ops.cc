// The front door: checks every tensor once, adds to the counters, then hands over to the device's implementation.
#include "ops/ops.h"

#include "ops/check.h"

namespace gov::ops {

void embedding(Context& ctx, const Tensor& table, const Tensor& ids, const Tensor& out) {
  const Check check{ctx, "embedding"};
  check.rank(table, "table", 2);
  check.rank(ids, "ids", 1);
  check.weight(table, "table", table.shape);
  check.typed(ids, "ids", DType::kI32, ids.shape);
  check.act(out, "out", {ids.shape[0], table.shape[1]});
  check.distinct(table, "table", out);
  const double row = number(table.shape[1]) * number(static_cast<std::int64_t>(dtype_size(table.dtype)));
  ctx.begin_op(bytes_of({&ids, &out}) + number(ids.shape[0]) * row, 0);
  GOV_DISPATCH(embedding, table, ids, out);
}

void rms_norm(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& out) {
  const Check check{ctx, "rms_norm"};
  check.rank(x, "x", 2);
  check.act(x, "x", x.shape);
  check.weight(weight, "weight", {x.shape[1]});
  check.act(out, "out", x.shape);
  check.same_or_distinct(x, "x", out);
  ctx.begin_op(bytes_of({&x, &weight, &out}), 4 * number(x.elements()));
  GOV_DISPATCH(rms_norm, x, weight, eps, out);
}

void layer_norm(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, const Tensor& out) {
  const Check check{ctx, "layer_norm"};
  check.rank(x, "x", 2);
  check.act(x, "x", x.shape);
  check.weight(weight, "weight", {x.shape[1]});
  check.weight(bias, "bias", {x.shape[1]});
  check.act(out, "out", x.shape);
  check.same_or_distinct(x, "x", out);
  ctx.begin_op(bytes_of({&x, &weight, &bias, &out}), 7 * number(x.elements()));
  GOV_DISPATCH(layer_norm, x, weight, bias, eps, out);
}

void linear(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& out,
            bool accumulate) {
  const Check check{ctx, "linear"};
  check.rank(x, "x", 2);
  check.rank(weight, "weight", 2);
  check.act(x, "x", x.shape);
  check.weight(weight, "weight", {weight.shape[0], x.shape[1]});
  check.optional_weight(bias, "bias", {weight.shape[0]});
  if (accumulate) check.f32(out, "out", {x.shape[0], weight.shape[0]});
  else check.act(out, "out", {x.shape[0], weight.shape[0]});
  check.distinct(x, "x", out);
  check.distinct(weight, "weight", out);
  ctx.begin_op(bytes_of({&x, &weight, &bias, &out}), 2 * number(x.shape[0]) * number(weight.elements()));
  GOV_DISPATCH(linear, x, weight, bias, out, accumulate);
}

void rope_table(Context& ctx, const Tensor& positions, const Tensor& inv_freq, float factor, const Tensor& cos,
                const Tensor& sin) {
  const Check check{ctx, "rope_table"};
  check.rank(positions, "positions", 1);
  check.rank(inv_freq, "inv_freq", 1);
  check.typed(positions, "positions", DType::kI32, positions.shape);
  check.f32(inv_freq, "inv_freq", inv_freq.shape);
  check.f32(cos, "cos", {positions.shape[0], inv_freq.shape[0]});
  check.f32(sin, "sin", cos.shape);
  check.distinct(cos, "cos", sin);
  ctx.begin_op(bytes_of({&positions, &inv_freq, &cos, &sin}), 4 * number(cos.elements()));
  GOV_DISPATCH(rope_table, positions, inv_freq, factor, cos, sin);
}

void rope(Context& ctx, const Tensor& cos, const Tensor& sin, const Tensor& x) {
  const Check check{ctx, "rope"};
  check.rank(x, "x", 3);
  check.act(x, "x", x.shape);
  check.equal(x.shape[2] % 2, "the head width modulo 2", 0);
  check.f32(cos, "cos", {x.shape[0], x.shape[2] / 2});
  check.f32(sin, "sin", {x.shape[0], x.shape[2] / 2});
  check.distinct(cos, "cos", x);
  check.distinct(sin, "sin", x);
  ctx.begin_op(bytes_of({&cos, &sin, &x, &x}), 3 * number(x.elements()));
  GOV_DISPATCH(rope, cos, sin, x);
}

void kv_append(Context& ctx, const Tensor& k, const Tensor& v, const Tensor& slots, const Tensor& k_cache,
               const Tensor& v_cache) {
  const Check check{ctx, "kv_append"};
  check.rank(k, "k", 3);
  check.rank(k_cache, "k_cache", 4);
  check.act(k, "k", k.shape);
  check.act(v, "v", k.shape);
  check.typed(slots, "slots", DType::kI64, {k.shape[0]});
  const DType dtype = check.cache_type(k_cache);
  check.typed(k_cache, "k_cache", dtype, {k_cache.shape[0], k.shape[1], k_cache.shape[2], k.shape[2]});
  check.typed(v_cache, "v_cache", dtype, k_cache.shape);
  check.distinct(k_cache, "k_cache", v_cache);
  const double written = 2 * number(k.elements()) * number(static_cast<std::int64_t>(dtype_size(dtype)));
  ctx.begin_op(bytes_of({&k, &v, &slots}) + written, 0);
  GOV_DISPATCH(kv_append, k, v, slots, k_cache, v_cache);
}

void qkv_rope_append(Context& ctx, const Tensor& qkv, const Tensor& cos, const Tensor& sin, const Tensor& slots,
                     const Tensor& q, const Tensor& k_cache, const Tensor& v_cache) {
  const Check check{ctx, "qkv_rope_append"};
  check.rank(q, "q", 3);
  check.rank(k_cache, "k_cache", 4);
  const std::int64_t rows = q.shape[0], heads = q.shape[1], dim = q.shape[2], kv_heads = k_cache.shape[1];
  check.act(q, "q", q.shape);
  check.act(qkv, "qkv", {rows, (heads + 2 * kv_heads) * dim});
  check.equal(dim % 2, "the head width modulo 2", 0);
  if (cos) {
    check.f32(cos, "cos", {rows, dim / 2});
    check.f32(sin, "sin", {rows, dim / 2});
  }
  check.typed(slots, "slots", DType::kI64, {rows});
  const DType dtype = check.cache_type(k_cache);
  check.typed(k_cache, "k_cache", dtype, {k_cache.shape[0], kv_heads, k_cache.shape[2], dim});
  check.typed(v_cache, "v_cache", dtype, k_cache.shape);
  check.distinct(k_cache, "k_cache", v_cache);
  check.distinct(qkv, "qkv", q);
  const double written = 2 * number(rows * kv_heads * dim) * number(static_cast<std::int64_t>(dtype_size(dtype)));
  ctx.begin_op(bytes_of({&qkv, &cos, &sin, &slots, &q}) + written, 3 * number(qkv.elements()));
  GOV_DISPATCH(qkv_rope_append, qkv, cos, sin, slots, q, k_cache, v_cache);
}

namespace {

void check_attention_keys(const Check& check, const AttentionArgs& a) {
  const std::int64_t dim = a.q.shape[2];
  if (a.k && a.k_cache) fail(ErrorCode::kInvalidArgument, "attention: give k and v or the caches, not both");
  if (a.k) {
    check.rank(a.k, "k", 3);
    check.act(a.k, "k", {a.q.shape[0], a.k.shape[1], dim});
    check.act(a.v, "v", a.k.shape);
    return;
  }
  check.rank(a.k_cache, "k_cache", 4);
  const DType dtype = check.cache_type(a.k_cache);
  check.typed(a.k_cache, "k_cache", dtype, {a.k_cache.shape[0], a.k_cache.shape[1], a.k_cache.shape[2], dim});
  check.typed(a.v_cache, "v_cache", dtype, a.k_cache.shape);
  if (a.k_cache.shape[2] < 8 || a.k_cache.shape[2] % 8 != 0) {
    fail(ErrorCode::kInvalidArgument, "attention: the block size must be a multiple of 8, it is {}",
         a.k_cache.shape[2]);
  }
  check.rank(a.block_tables, "block_tables", 2);
  check.typed(a.block_tables, "block_tables", DType::kI32, {a.kv_lens.shape[0], a.block_tables.shape[1]});
}

}  // namespace

void attention(Context& ctx, const AttentionArgs& args, const Tensor& out) {
  const Check check{ctx, "attention"};
  check.rank(args.q, "q", 3);
  check.rank(args.kv_lens, "kv_lens", 1);
  check.act(args.q, "q", args.q.shape);
  check.typed(args.kv_lens, "kv_lens", DType::kI32, args.kv_lens.shape);
  check.typed(args.cu_seqlens, "cu_seqlens", DType::kI32, {args.kv_lens.shape[0] + 1});
  check_attention_keys(check, args);
  const std::int64_t heads = args.q.shape[1], dim = args.q.shape[2];
  const std::int64_t kv_heads = args.k ? args.k.shape[1] : args.k_cache.shape[1];
  if (kv_heads < 1 || heads % kv_heads != 0) {
    fail(ErrorCode::kInvalidArgument, "attention: {} heads cannot share {} kv heads", heads, kv_heads);
  }
  if (dim < 2 || dim > 256 || dim % 2 != 0) {
    fail(ErrorCode::kInvalidArgument, "attention: the head width must be even and at most 256, it is {}", dim);
  }
  if (args.window < 0)
    fail(ErrorCode::kInvalidArgument, "attention: the window must not be negative, it is {}", args.window);
  check.optional_weight(args.sinks, "sinks", {heads});
  if (args.lse) {
    if (!args.k) fail(ErrorCode::kInvalidArgument, "attention: lse is written for contiguous keys only");
    check.f32(args.lse, "lse", {args.q.shape[0], heads});
    check.distinct(args.q, "q", args.lse);
  }
  check.act(out, "out", args.q.shape);
  check.distinct(args.q, "q", out);
  ctx.begin_op(bytes_of({&args.q, &out}) + attention_key_bytes(args), 4 * number(dim) * attention_pairs(args));
  GOV_DISPATCH(attention, args, out);
}

void router(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& vision_bias,
            const Tensor& modality, const Tensor& logits, const Tensor& indices, const Tensor& weights) {
  const Check check{ctx, "router"};
  check.rank(x, "x", 2);
  check.rank(weight, "weight", 2);
  check.rank(indices, "indices", 2);
  const std::int64_t tokens = x.shape[0], experts = weight.shape[0], count = indices.shape[1];
  check.act(x, "x", x.shape);
  check.weight(weight, "weight", {experts, x.shape[1]});
  check.weight(bias, "bias", {experts});
  check.optional_weight(vision_bias, "vision_bias", {experts});
  if (modality) check.typed(modality, "modality", DType::kU8, {tokens});
  check.f32(logits, "logits", {tokens, experts});
  check.typed(indices, "indices", DType::kI32, {tokens, count});
  check.f32(weights, "weights", {tokens, count});
  if (experts > 1024) fail(ErrorCode::kInvalidArgument, "router: at most 1024 experts, there are {}", experts);
  if (count < 1 || count > 64 || count > experts) {
    fail(ErrorCode::kInvalidArgument, "router: cannot select {} of {} experts (at most 64)", count, experts);
  }
  check.distinct(x, "x", logits);
  ctx.begin_op(bytes_of({&x, &weight, &bias, &logits, &indices, &weights}),
               2 * number(tokens) * number(weight.elements()));
  GOV_DISPATCH(router, x, weight, bias, vision_bias, modality, logits, indices, weights);
}

void swiglu(Context& ctx, const Tensor& h, float alpha, float limit, const Tensor& out) {
  const Check check{ctx, "swiglu"};
  check.rank(out, "out", 2);
  check.act(out, "out", out.shape);
  check.act(h, "h", {out.shape[0], 2 * out.shape[1]});
  check.positive(static_cast<double>(limit), "limit");
  check.distinct(h, "h", out);
  ctx.begin_op(bytes_of({&h, &out}), 8 * number(out.elements()));
  GOV_DISPATCH(swiglu, h, alpha, limit, out);
}

void moe(Context& ctx, const Tensor& x, const Tensor& indices, const Tensor& weights, const ExpertProjection& gate_up,
         const ExpertProjection& down, float alpha, float limit, const Tensor& out) {
  const Check check{ctx, "moe"};
  check.rank(x, "x", 2);
  check.rank(indices, "indices", 2);
  check.act(x, "x", x.shape);
  check.typed(indices, "indices", DType::kI32, {x.shape[0], indices.shape[1]});
  check.f32(weights, "weights", indices.shape);
  for (const ExpertProjection* p : {&gate_up, &down}) {
    check.rank(p->blocks ? p->blocks : p->weight, p == &gate_up ? "gate_up" : "down", p->blocks ? 4 : 3);
  }
  const std::int64_t experts = gate_up.experts(), hidden = x.shape[1], inner = down.in_features();
  check.projection(gate_up, "gate_up", experts, 2 * inner, hidden);
  check.projection(down, "down", experts, hidden, inner);
  check.positive(static_cast<double>(limit), "limit");
  check.f32(out, "out", x.shape);
  check.distinct(x, "x", out);
  const double expert_bytes = bytes_of({&gate_up.weight, &gate_up.blocks, &gate_up.scales, &gate_up.bias, &down.weight,
                                        &down.blocks, &down.scales, &down.bias}) /
                              number(std::max<std::int64_t>(experts, 1));
  const double active = active_experts(indices, experts);
  ctx.begin_op(bytes_of({&x, &indices, &weights, &out, &out}) + active * expert_bytes,
               number(indices.elements()) * 6 * number(hidden) * number(inner));
  GOV_DISPATCH(moe, x, indices, weights, gate_up, down, alpha, limit, out);
}

void gelu(Context& ctx, const Tensor& x, Gelu kind, const Tensor& out) {
  const Check check{ctx, "gelu"};
  check.act(x, "x", x.shape);
  check.act(out, "out", x.shape);
  check.same_or_distinct(x, "x", out);
  ctx.begin_op(bytes_of({&x, &out}), 8 * number(x.elements()));
  GOV_DISPATCH(gelu, x, kind, out);
}

void add(Context& ctx, const Tensor& x, const Tensor& out) {
  const Check check{ctx, "add"};
  check.f32(x, "x", x.shape);
  check.f32(out, "out", x.shape);
  check.distinct(x, "x", out);
  ctx.begin_op(bytes_of({&x, &out, &out}), number(x.elements()));
  GOV_DISPATCH(add, x, out);
}

void patch_embed(Context& ctx, const Tensor& pixels, const Tensor& weight, const Tensor& bias, const Tensor& out) {
  const Check check{ctx, "patch_embed"};
  check.rank(pixels, "pixels", 4);
  check.rank(weight, "weight", 4);
  const std::int64_t patch = weight.shape[2];
  if (patch < 1) fail(ErrorCode::kInvalidArgument, "patch_embed: the patch size must be positive, it is {}", patch);
  check.f32(pixels, "pixels", pixels.shape);
  check.weight(weight, "weight", {weight.shape[0], pixels.shape[1], patch, patch});
  check.optional_weight(bias, "bias", {weight.shape[0]});
  check.act(out, "out", {pixels.shape[0], (pixels.shape[2] / patch) * (pixels.shape[3] / patch), weight.shape[0]});
  check.distinct(pixels, "pixels", out);
  ctx.begin_op(bytes_of({&pixels, &weight, &bias, &out}),
               2 * number(out.shape[0] * out.shape[1]) * number(weight.elements()));
  GOV_DISPATCH(patch_embed, pixels, weight, bias, out);
}

void prepend_token(Context& ctx, const Tensor& token, const Tensor& x, const Tensor& positions, const Tensor& out) {
  const Check check{ctx, "prepend_token"};
  check.rank(x, "x", 3);
  check.act(x, "x", x.shape);
  const std::int64_t rows = x.shape[1] + (token ? 1 : 0), width = x.shape[2];
  check.optional_weight(token, "token", {width});
  check.optional_weight(positions, "positions", {rows, width});
  check.act(out, "out", {x.shape[0], rows, width});
  check.distinct(x, "x", out);
  ctx.begin_op(bytes_of({&token, &x, &positions, &out}), number(out.elements()));
  GOV_DISPATCH(prepend_token, token, x, positions, out);
}

void gather_rows(Context& ctx, const Tensor& x, const Tensor& rows, const Tensor& out) {
  const Check check{ctx, "gather_rows"};
  check.rank(x, "x", 2);
  check.rank(rows, "rows", 1);
  check.act(x, "x", x.shape);
  check.typed(rows, "rows", DType::kI32, rows.shape);
  check.act(out, "out", {rows.shape[0], x.shape[1]});
  check.distinct(x, "x", out);
  ctx.begin_op(bytes_of({&rows, &out, &out}), 0);
  GOV_DISPATCH(gather_rows, x, rows, out);
}

void scatter_rows(Context& ctx, const Tensor& x, const Tensor& rows, const Tensor& out) {
  const Check check{ctx, "scatter_rows"};
  check.rank(x, "x", 2);
  check.rank(out, "out", 2);
  check.rank(rows, "rows", 1);
  check.act(x, "x", {rows.shape[0], out.shape[1]});
  check.typed(rows, "rows", DType::kI32, rows.shape);
  check.act(out, "out", out.shape);
  check.distinct(x, "x", out);
  ctx.begin_op(bytes_of({&rows, &x, &x}), 0);
  GOV_DISPATCH(scatter_rows, x, rows, out);
}

void cross_entropy(Context& ctx, const Tensor& logits, const Tensor& targets, const Tensor& losses) {
  const Check check{ctx, "cross_entropy"};
  check.rank(logits, "logits", 2);
  check.f32(logits, "logits", logits.shape);
  check.typed(targets, "targets", DType::kI32, {logits.shape[0]});
  check.f32(losses, "losses", {logits.shape[0]});
  check.distinct(logits, "logits", losses);
  ctx.begin_op(bytes_of({&logits, &targets, &losses}), 3 * number(logits.elements()));
  GOV_DISPATCH(cross_entropy, logits, targets, losses);
}

namespace {

void check_sample_row(const SampleRow& row, std::size_t index, std::int64_t vocabulary) {
  const SamplingParams& p = row.params;
  const auto require = [&](bool ok, const char* what) {
    if (!ok) fail(ErrorCode::kInvalidArgument, "sample: {} of row {} is out of range", what, index);
  };
  require(p.temperature >= 0 && std::isfinite(p.temperature), "temperature");
  require(p.top_k >= 0, "top_k");
  require(p.top_p >= 0 && p.top_p <= 1, "top_p");
  require(p.min_p >= 0 && p.min_p <= 1, "min_p");
  require(p.typical_p >= 0 && p.typical_p <= 1, "typical_p");
  require(p.repetition_penalty > 0 && std::isfinite(p.repetition_penalty), "repetition_penalty");
  require(std::isfinite(p.presence_penalty), "presence_penalty");
  require(std::isfinite(p.frequency_penalty), "frequency_penalty");
  require(row.top_logprobs >= -1 && row.top_logprobs <= 20, "top_logprobs");
  require(row.allowed.empty() || static_cast<std::int64_t>(row.allowed.size()) == (vocabulary + 31) / 32,
          "the number of words of allowed");
  require(row.given < 0 || (row.given < vocabulary && row.top_logprobs >= 0), "given");
}

}  // namespace

void sample(Context& ctx, const Tensor& logits, std::span<const SampleRow> rows, std::span<SampleResult> results) {
  const Check check{ctx, "sample"};
  check.rank(logits, "logits", 2);
  check.f32(logits, "logits", {static_cast<std::int64_t>(rows.size()), logits.shape[1]});
  if (results.size() != rows.size())
    fail(ErrorCode::kInvalidArgument, "sample: {} results for {} rows", results.size(), rows.size());
  if (!rows.empty() && logits.shape[1] < 1)
    fail(ErrorCode::kInvalidArgument, "sample: logits must have at least one column");
  for (std::size_t i = 0; i < rows.size(); ++i) check_sample_row(rows[i], i, logits.shape[1]);
  ctx.begin_op(bytes_of({&logits}), 0);
  GOV_DISPATCH(sample, logits, rows, results);
}

}  // namespace gov::ops
