// The front door of the derivatives: what ops.cc is to ops.h.
#include "ops/backward.h"

#include "ops/check.h"

namespace gov::ops {
namespace {

// A gradient that may be unwanted.
void optional_f32(const Check& check, const Tensor& t, const char* what, const Shape& wanted) {
  if (t) check.f32(t, what, wanted);
}

void optional_act(const Check& check, const Tensor& t, const char* what, const Shape& wanted) {
  if (t) check.act(t, what, wanted);
}

}  // namespace

void embedding_backward(Context& ctx, const Tensor& ids, const Tensor& dout, const Tensor& dtable) {
  const Check check{ctx, "embedding_backward"};
  check.rank(ids, "ids", 1);
  check.rank(dtable, "dtable", 2);
  check.typed(ids, "ids", DType::kI32, ids.shape);
  check.act(dout, "dout", {ids.shape[0], dtable.shape[1]});
  check.f32(dtable, "dtable", dtable.shape);
  check.distinct(dout, "dout", dtable);
  ctx.begin_op(bytes_of({&ids, &dout}) + 8 * number(dout.elements()), number(dout.elements()));
  GOV_DISPATCH(embedding_backward, ids, dout, dtable);
}

void rms_norm_backward(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& dout,
                       const Tensor& dx, const Tensor& dweight) {
  const Check check{ctx, "rms_norm_backward"};
  check.rank(x, "x", 2);
  check.act(x, "x", x.shape);
  check.weight(weight, "weight", {x.shape[1]});
  check.act(dout, "dout", x.shape);
  optional_f32(check, dx, "dx", x.shape);
  optional_f32(check, dweight, "dweight", {x.shape[1]});
  check.distinct(x, "x", dx);
  check.distinct(dout, "dout", dx);
  ctx.begin_op(bytes_of({&x, &weight, &dout, &dx, &dx}), 12 * number(x.elements()));
  GOV_DISPATCH(rms_norm_backward, x, weight, eps, dout, dx, dweight);
}

void layer_norm_backward(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& dout,
                         const Tensor& dx, const Tensor& dweight, const Tensor& dbias) {
  const Check check{ctx, "layer_norm_backward"};
  check.rank(x, "x", 2);
  check.act(x, "x", x.shape);
  check.weight(weight, "weight", {x.shape[1]});
  check.act(dout, "dout", x.shape);
  optional_f32(check, dx, "dx", x.shape);
  optional_f32(check, dweight, "dweight", {x.shape[1]});
  optional_f32(check, dbias, "dbias", {x.shape[1]});
  check.distinct(x, "x", dx);
  check.distinct(dout, "dout", dx);
  ctx.begin_op(bytes_of({&x, &weight, &dout, &dx, &dx}), 16 * number(x.elements()));
  GOV_DISPATCH(layer_norm_backward, x, weight, eps, dout, dx, dweight, dbias);
}

void linear_backward(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& dout, const Tensor& dx,
                     const Tensor& dweight, const Tensor& dbias, bool accumulate) {
  const Check check{ctx, "linear_backward"};
  check.rank(dout, "dout", 2);
  check.rank(weight, "weight", 2);
  const Shape rows{dout.shape[0], weight.shape[1]};
  check.weight(weight, "weight", weight.shape);
  check.act(dout, "dout", {rows[0], weight.shape[0]});
  if (dweight) check.act(x, "x", rows);
  if (accumulate) optional_f32(check, dx, "dx", rows);
  else optional_act(check, dx, "dx", rows);
  optional_f32(check, dweight, "dweight", weight.shape);
  optional_f32(check, dbias, "dbias", {weight.shape[0]});
  for (const Tensor* out : {&dx, &dweight}) {
    check.distinct(x, "x", *out);
    check.distinct(weight, "weight", *out);
    check.distinct(dout, "dout", *out);
  }
  const double products = (dx ? 1 : 0) + (dweight ? 1 : 0);
  ctx.begin_op(
      bytes_of({&dout, &dx, &dweight, &dweight}) + (dx ? bytes_of({&weight}) : 0) + (dweight ? bytes_of({&x}) : 0),
      2 * products * number(rows[0]) * number(weight.elements()));
  GOV_DISPATCH(linear_backward, x, weight, dout, dx, dweight, dbias, accumulate);
}

void rope_backward(Context& ctx, const Tensor& cos, const Tensor& sin, const Tensor& dx) {
  const Check check{ctx, "rope_backward"};
  check.rank(dx, "dx", 3);
  check.act(dx, "dx", dx.shape);
  check.equal(dx.shape[2] % 2, "the head width modulo 2", 0);
  check.f32(cos, "cos", {dx.shape[0], dx.shape[2] / 2});
  check.f32(sin, "sin", cos.shape);
  check.distinct(cos, "cos", dx);
  check.distinct(sin, "sin", dx);
  ctx.begin_op(bytes_of({&cos, &sin, &dx, &dx}), 3 * number(dx.elements()));
  GOV_DISPATCH(rope_backward, cos, sin, dx);
}

void attention_backward(Context& ctx, const AttentionArgs& args, const Tensor& out, const Tensor& dout,
                        const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dsinks) {
  const Check check{ctx, "attention_backward"};
  check.rank(args.q, "q", 3);
  check.rank(args.k, "k", 3);
  check.rank(args.kv_lens, "kv_lens", 1);
  const Shape queries = args.q.shape, keys{queries[0], args.k.shape[1], queries[2]};
  const std::int64_t heads = queries[1], dim = queries[2], kv_heads = keys[1];
  for (const auto& [t, what] : {std::pair(&args.q, "q"), {&out, "out"}, {&dout, "dout"}, {&dq, "dq"}})
    check.act(*t, what, queries);
  for (const auto& [t, what] : {std::pair(&args.k, "k"), {&args.v, "v"}, {&dk, "dk"}, {&dv, "dv"}})
    check.act(*t, what, keys);
  check.typed(args.kv_lens, "kv_lens", DType::kI32, args.kv_lens.shape);
  check.typed(args.cu_seqlens, "cu_seqlens", DType::kI32, {args.kv_lens.shape[0] + 1});
  check.f32(args.lse, "lse", {queries[0], heads});
  check.optional_weight(args.sinks, "sinks", {heads});
  optional_f32(check, dsinks, "dsinks", {heads});
  if (dsinks && !args.sinks) fail(ErrorCode::kInvalidArgument, "attention_backward: dsinks without sinks");
  if (kv_heads < 1 || heads % kv_heads != 0)
    fail(ErrorCode::kInvalidArgument, "attention_backward: {} heads cannot share {} kv heads", heads, kv_heads);
  if (dim < 2 || dim > 256 || dim % 2 != 0)
    fail(ErrorCode::kInvalidArgument, "attention_backward: the head width must be even and at most 256, it is {}", dim);
  if (args.window < 0)
    fail(ErrorCode::kInvalidArgument, "attention_backward: the window must not be negative, it is {}", args.window);
  for (const Tensor* to : {&dq, &dk, &dv}) {
    for (const auto& [t, what] :
         {std::pair(&args.q, "q"), {&args.k, "k"}, {&args.v, "v"}, {&out, "out"}, {&dout, "dout"}})
      check.distinct(*t, what, *to);
  }
  check.distinct(dq, "dq", dk);
  check.distinct(dq, "dq", dv);
  check.distinct(dk, "dk", dv);
  ctx.begin_op(bytes_of({&args.q, &args.k, &args.v, &out, &dout, &args.lse, &dq, &dk, &dv}),
               10 * number(dim) * attention_pairs(args));
  GOV_DISPATCH(attention_backward, args, out, dout, dq, dk, dv, dsinks);
}

void router_load(Context& ctx, const Tensor& logits, const Tensor& indices, const Tensor& modality,
                 const Tensor& counts, const Tensor& probabilities, const Tensor& z) {
  const Check check{ctx, "router_load"};
  check.rank(logits, "logits", 2);
  check.rank(indices, "indices", 2);
  const std::int64_t tokens = logits.shape[0], experts = logits.shape[1];
  check.f32(logits, "logits", logits.shape);
  check.typed(indices, "indices", DType::kI32, {tokens, indices.shape[1]});
  if (modality) check.typed(modality, "modality", DType::kU8, {tokens});
  check.f32(counts, "counts", {2, experts});
  check.f32(probabilities, "probabilities", {2, experts});
  check.f32(z, "z", {1});
  ctx.begin_op(bytes_of({&logits, &indices, &modality}), 5 * number(logits.elements()));
  GOV_DISPATCH(router_load, logits, indices, modality, counts, probabilities, z);
}

void router_backward(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& modality, const Tensor& logits,
                     const Tensor& indices, const Tensor& weights, const Tensor& dweights, const Tensor& slopes,
                     float z_slope, const RouterGradients& out) {
  const Check check{ctx, "router_backward"};
  check.rank(x, "x", 2);
  check.rank(weight, "weight", 2);
  check.rank(indices, "indices", 2);
  const std::int64_t tokens = x.shape[0], experts = weight.shape[0], count = indices.shape[1];
  check.act(x, "x", x.shape);
  check.weight(weight, "weight", {experts, x.shape[1]});
  if (modality) check.typed(modality, "modality", DType::kU8, {tokens});
  check.f32(logits, "logits", {tokens, experts});
  check.typed(indices, "indices", DType::kI32, {tokens, count});
  check.f32(weights, "weights", {tokens, count});
  check.f32(dweights, "dweights", {tokens, count});
  optional_f32(check, slopes, "slopes", {experts});
  check.f32(out.dlogits, "dlogits", logits.shape);
  optional_f32(check, out.dx, "dx", x.shape);
  optional_f32(check, out.dweight, "dweight", weight.shape);
  optional_f32(check, out.dbias, "dbias", {experts});
  optional_f32(check, out.dvision_bias, "dvision_bias", {experts});
  if (experts > 1024 || count < 1 || count > 64 || count > experts)
    fail(ErrorCode::kInvalidArgument, "router_backward: cannot select {} of {} experts", count, experts);
  check.distinct(logits, "logits", out.dlogits);
  check.distinct(x, "x", out.dx);
  const double products = (out.dx ? 1 : 0) + (out.dweight ? 1 : 0);
  ctx.begin_op(bytes_of({&x, &weight, &logits, &indices, &weights, &dweights, &out.dlogits, &out.dx, &out.dx,
                         &out.dweight, &out.dweight}),
               2 * products * number(tokens) * number(weight.elements()));
  GOV_DISPATCH(router_backward, x, weight, modality, logits, indices, weights, dweights, slopes, z_slope, out);
}

void swiglu_backward(Context& ctx, const Tensor& h, float alpha, float limit, const Tensor& dout, const Tensor& dh) {
  const Check check{ctx, "swiglu_backward"};
  check.rank(dout, "dout", 2);
  check.act(dout, "dout", dout.shape);
  check.act(h, "h", {dout.shape[0], 2 * dout.shape[1]});
  check.act(dh, "dh", h.shape);
  check.positive(static_cast<double>(limit), "limit");
  check.same_or_distinct(h, "h", dh);
  check.distinct(dout, "dout", dh);
  ctx.begin_op(bytes_of({&h, &dout, &dh}), 16 * number(dout.elements()));
  GOV_DISPATCH(swiglu_backward, h, alpha, limit, dout, dh);
}

namespace {

struct MoeSizes {
  std::int64_t rows, count, hidden, inner, experts;
};

// The checks that both directions share.
MoeSizes check_moe(const Check& check, const Tensor& x, const Tensor& indices, const Tensor& weights,
                   const ExpertProjection& gate_up, const ExpertProjection& down, float limit, const Tensor& h) {
  check.rank(x, "x", 2);
  check.rank(indices, "indices", 2);
  check.act(x, "x", x.shape);
  check.typed(indices, "indices", DType::kI32, {x.shape[0], indices.shape[1]});
  check.f32(weights, "weights", indices.shape);
  for (const ExpertProjection* p : {&gate_up, &down})
    check.rank(p->blocks ? p->blocks : p->weight, p == &gate_up ? "gate_up" : "down", p->blocks ? 4 : 3);
  const MoeSizes s{x.shape[0], indices.shape[1], x.shape[1], down.in_features(), gate_up.experts()};
  check.projection(gate_up, "gate_up", s.experts, 2 * s.inner, s.hidden);
  check.projection(down, "down", s.experts, s.hidden, s.inner);
  check.positive(static_cast<double>(limit), "limit");
  optional_act(check, h, "h", {s.rows * s.count, 2 * s.inner});
  return s;
}

double moe_weight_bytes(const MoeSizes& s, const Tensor& indices, const ExpertProjection& gate_up,
                        const ExpertProjection& down) {
  return bytes_of({&gate_up.weight, &gate_up.blocks, &gate_up.scales, &gate_up.bias, &down.weight, &down.blocks,
                   &down.scales, &down.bias}) /
         number(std::max<std::int64_t>(s.experts, 1)) * active_experts(indices, s.experts);
}

}  // namespace

void moe_forward(Context& ctx, const Tensor& x, const Tensor& indices, const Tensor& weights,
                 const ExpertProjection& gate_up, const ExpertProjection& down, float alpha, float limit,
                 const Tensor& out, const Tensor& h) {
  const Check check{ctx, "moe_forward"};
  const MoeSizes s = check_moe(check, x, indices, weights, gate_up, down, limit, h);
  check.f32(out, "out", x.shape);
  check.distinct(x, "x", out);
  check.distinct(x, "x", h);
  ctx.begin_op(bytes_of({&x, &indices, &weights, &out, &out, &h}) + moe_weight_bytes(s, indices, gate_up, down),
               number(indices.elements()) * 6 * number(s.hidden) * number(s.inner));
  GOV_DISPATCH(moe_forward, x, indices, weights, gate_up, down, alpha, limit, out, h);
}

void moe_backward(Context& ctx, const Tensor& x, const Tensor& indices, const Tensor& weights,
                  const ExpertProjection& gate_up, const ExpertProjection& down, float alpha, float limit,
                  const Tensor& h, const Tensor& dout, const Tensor& dx, const Tensor& dweights,
                  const ExpertGradients& dgate_up, const ExpertGradients& ddown) {
  const Check check{ctx, "moe_backward"};
  const MoeSizes s = check_moe(check, x, indices, weights, gate_up, down, limit, h);
  check.act(dout, "dout", x.shape);
  optional_act(check, dx, "dx", x.shape);
  check.f32(dweights, "dweights", indices.shape);
  optional_f32(check, dgate_up.dweight, "the gradient of gate_up", {s.experts, 2 * s.inner, s.hidden});
  optional_f32(check, dgate_up.dbias, "the gradient of gate_up's bias", {s.experts, 2 * s.inner});
  optional_f32(check, ddown.dweight, "the gradient of down", {s.experts, s.hidden, s.inner});
  optional_f32(check, ddown.dbias, "the gradient of down's bias", {s.experts, s.hidden});
  check.distinct(x, "x", dx);
  check.distinct(dout, "dout", dx);
  check.distinct(h, "h", dx);
  check.distinct(weights, "weights", dweights);
  // Products of [2I, H] and [H, I]: down's dx always, the rest as wanted; gate_up again where h was not kept.
  const double wide = (h ? 0 : 1) + (dx ? 1 : 0) + (dgate_up.dweight ? 1 : 0), narrow = 1 + (ddown.dweight ? 1 : 0);
  const auto times = [](const ExpertGradients& g) { return g.accumulate ? 2.0 : 1.0; };
  ctx.begin_op(bytes_of({&x, &indices, &weights, &h, &dout, &dx}) +
                   times(dgate_up) * bytes_of({&dgate_up.dweight}) + times(ddown) * bytes_of({&ddown.dweight}) +
                   moe_weight_bytes(s, indices, gate_up, down),
               number(indices.elements()) * (4 * wide + 2 * narrow) * number(s.hidden) * number(s.inner));
  GOV_DISPATCH(moe_backward, x, indices, weights, gate_up, down, alpha, limit, h, dout, dx, dweights, dgate_up, ddown);
}

void gelu_backward(Context& ctx, const Tensor& x, Gelu kind, const Tensor& dout, const Tensor& dx) {
  const Check check{ctx, "gelu_backward"};
  check.act(x, "x", x.shape);
  check.act(dout, "dout", x.shape);
  check.act(dx, "dx", x.shape);
  check.same_or_distinct(x, "x", dx);
  check.same_or_distinct(dout, "dout", dx);
  ctx.begin_op(bytes_of({&x, &dout, &dx}), 16 * number(x.elements()));
  GOV_DISPATCH(gelu_backward, x, kind, dout, dx);
}

void patch_embed_backward(Context& ctx, const Tensor& pixels, std::int64_t patch, const Tensor& dout,
                          const Tensor& dweight, const Tensor& dbias) {
  const Check check{ctx, "patch_embed_backward"};
  check.rank(pixels, "pixels", 4);
  check.rank(dout, "dout", 3);
  if (patch < 1)
    fail(ErrorCode::kInvalidArgument, "patch_embed_backward: the patch size must be positive, it is {}", patch);
  const std::int64_t width = dout.shape[2];
  check.f32(pixels, "pixels", pixels.shape);
  check.act(dout, "dout", {pixels.shape[0], (pixels.shape[2] / patch) * (pixels.shape[3] / patch), width});
  optional_f32(check, dweight, "dweight", {width, pixels.shape[1], patch, patch});
  optional_f32(check, dbias, "dbias", {width});
  ctx.begin_op(bytes_of({&pixels, &dout, &dweight, &dweight}),
               2 * number(dout.elements()) * number(pixels.shape[1] * patch * patch));
  GOV_DISPATCH(patch_embed_backward, pixels, patch, dout, dweight, dbias);
}

void prepend_token_backward(Context& ctx, bool with_token, const Tensor& dout, const Tensor& dtoken, const Tensor& dx,
                            const Tensor& dpositions) {
  const Check check{ctx, "prepend_token_backward"};
  check.rank(dout, "dout", 3);
  const std::int64_t rows = dout.shape[1] - (with_token ? 1 : 0), width = dout.shape[2];
  check.act(dout, "dout", dout.shape);
  if (dtoken && !with_token) fail(ErrorCode::kInvalidArgument, "prepend_token_backward: dtoken without a token");
  if (rows < 0) fail(ErrorCode::kInvalidArgument, "prepend_token_backward: dout has no row for the token");
  optional_f32(check, dtoken, "dtoken", {width});
  optional_act(check, dx, "dx", {dout.shape[0], rows, width});
  optional_f32(check, dpositions, "dpositions", {dout.shape[1], width});
  check.distinct(dout, "dout", dx);
  ctx.begin_op(bytes_of({&dout, &dx, &dpositions, &dpositions}), number(dout.elements()));
  GOV_DISPATCH(prepend_token_backward, with_token, dout, dtoken, dx, dpositions);
}

void gather_rows_backward(Context& ctx, const Tensor& rows, const Tensor& dout, const Tensor& dx) {
  const Check check{ctx, "gather_rows_backward"};
  check.rank(rows, "rows", 1);
  check.rank(dx, "dx", 2);
  check.typed(rows, "rows", DType::kI32, rows.shape);
  check.act(dout, "dout", {rows.shape[0], dx.shape[1]});
  check.f32(dx, "dx", dx.shape);
  check.distinct(dout, "dout", dx);
  ctx.begin_op(bytes_of({&rows, &dout}) + 8 * number(dout.elements()), number(dout.elements()));
  GOV_DISPATCH(gather_rows_backward, rows, dout, dx);
}

void linear_cross_entropy(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& targets,
                          const Tensor& row_weights, const Tensor& logits, const Tensor& losses, const Tensor& dx,
                          const Tensor& dweight) {
  const Check check{ctx, "linear_cross_entropy"};
  check.rank(x, "x", 2);
  check.rank(weight, "weight", 2);
  check.rank(logits, "logits", 2);
  const std::int64_t rows = x.shape[0], vocabulary = weight.shape[0];
  check.act(x, "x", x.shape);
  check.weight(weight, "weight", {vocabulary, x.shape[1]});
  check.typed(targets, "targets", DType::kI32, {rows});
  check.f32(row_weights, "row_weights", {rows});
  check.f32(logits, "logits", {logits.shape[0], vocabulary});
  if (logits.shape[0] < 1) fail(ErrorCode::kInvalidArgument, "linear_cross_entropy: logits must have at least one row");
  check.f32(losses, "losses", {rows});
  optional_act(check, dx, "dx", x.shape);
  optional_f32(check, dweight, "dweight", weight.shape);
  if (dweight && !dx) fail(ErrorCode::kInvalidArgument, "linear_cross_entropy: dweight without dx");
  check.distinct(x, "x", dx);
  check.distinct(x, "x", logits);
  check.distinct(weight, "weight", dweight);
  const double products = 1 + (dx ? 1 : 0) + (dweight ? 1 : 0);
  ctx.begin_op(bytes_of({&x, &weight, &targets, &row_weights, &losses, &dx, &dweight, &dweight}),
               2 * products * number(rows) * number(weight.elements()));
  GOV_DISPATCH(linear_cross_entropy, x, weight, targets, row_weights, logits, losses, dx, dweight);
}

void add_squares(Context& ctx, const Tensor& x, const Tensor& out) {
  const Check check{ctx, "add_squares"};
  check.f32(x, "x", x.shape);
  check.typed(out, "out", DType::kF64, {1});
  ctx.begin_op(bytes_of({&x}), 2 * number(x.elements()));
  GOV_DISPATCH(add_squares, x, out);
}

void adamw(Context& ctx, const AdamwArgs& args, const Tensor& grad, const Tensor& param, const Tensor& m,
           const Tensor& v, const Tensor& copy) {
  const Check check{ctx, "adamw"};
  check.f32(grad, "grad", grad.shape);
  check.f32(param, "param", grad.shape);
  check.f32(m, "m", grad.shape);
  check.f32(v, "v", grad.shape);
  if (copy) check.typed(copy, "copy", DType::kBF16, grad.shape);
  if (args.step < 1) fail(ErrorCode::kInvalidArgument, "adamw: steps count from 1, this is {}", args.step);
  check.positive(static_cast<double>(args.eps), "eps");
  check.distinct(param, "param", copy);
  ctx.begin_op(bytes_of({&grad, &param, &param, &m, &m, &v, &v, &copy}), 16 * number(grad.elements()));
  GOV_DISPATCH(adamw, args, grad, param, m, v, copy);
}

void mxfp4_quantize(Context& ctx, const Tensor& x, const Tensor& blocks, const Tensor& scales) {
  const Check check{ctx, "mxfp4_quantize"};
  check.f32(x, "x", x.shape);
  if (x.shape.rank() < 1 || x.shape.rank() > kMaxRank - 1)
    fail(ErrorCode::kInvalidArgument, "mxfp4_quantize: x must have 1 to 4 axes, it is {}", x.shape.str());
  check.equal(x.shape.back() % 32, "the input width modulo 32", 0);
  std::vector<std::int64_t> extents(x.shape.extents().begin(), x.shape.extents().end());
  extents.back() /= 32;
  check.typed(scales, "scales", DType::kU8, Shape(extents));
  extents.push_back(16);
  check.typed(blocks, "blocks", DType::kU8, Shape(extents));
  ctx.begin_op(bytes_of({&x, &blocks, &scales}), 4 * number(x.elements()));
  GOV_DISPATCH(mxfp4_quantize, x, blocks, scales);
}

}  // namespace gov::ops
