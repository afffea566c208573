#pragma once
// What the front doors share (ops.cc, backward.cc): the checks of a call's tensors and the numbers for its counters.

#include <cmath>
#include <functional>
#include <vector>

#include "ops/ops_list.h"

namespace gov::ops {

// The checks of one op call. Every failure names the op and the tensor.
struct Check {
  const Context& ctx;
  const char* op;

  void memory(const Tensor& t, const char* what) const {
    if (t.device != ctx.device)
      fail(ErrorCode::kInvalidArgument, "{}: {} is on another device than the context", op, what);
    if (!t.data && t.elements() != 0) fail(ErrorCode::kInvalidArgument, "{}: {} is empty", op, what);
  }
  void rank(const Tensor& t, const char* what, int wanted) const {
    if (t.shape.rank() != wanted) {
      fail(ErrorCode::kInvalidArgument, "{}: {} must have {} axes, it is {}", op, what, wanted, t.shape.str());
    }
  }
  void shape(const Tensor& t, const char* what, const Shape& wanted) const {
    if (t.shape != wanted) {
      fail(ErrorCode::kInvalidArgument, "{}: {} must be {}, it is {}", op, what, wanted.str(), t.shape.str());
    }
    memory(t, what);
  }
  void typed(const Tensor& t, const char* what, DType dtype, const Shape& wanted) const {
    if (t.dtype != dtype) {
      fail(ErrorCode::kInvalidArgument, "{}: {} must be {}, it is {}", op, what, dtype_name(dtype),
           dtype_name(t.dtype));
    }
    shape(t, what, wanted);
  }
  void f32(const Tensor& t, const char* what, const Shape& wanted) const { typed(t, what, DType::kF32, wanted); }
  void act(const Tensor& t, const char* what, const Shape& wanted) const {
    if (t.dtype == DType::kBF16 && ctx.on_cuda()) shape(t, what, wanted);
    else f32(t, what, wanted);
  }
  // The type that a cache has, or the one to ask for in the message.
  DType cache_type(const Tensor& t) const {
    return t.dtype == DType::kBF16 || (t.dtype == DType::kF8E4M3 && ctx.on_cuda()) ? t.dtype : DType::kF32;
  }
  void weight(const Tensor& t, const char* what, const Shape& wanted) const {
    if (t.dtype != DType::kF32 && t.dtype != DType::kBF16 && t.dtype != DType::kF16) {
      fail(ErrorCode::kInvalidArgument, "{}: {} must be f32, bf16 or f16, it is {}", op, what, dtype_name(t.dtype));
    }
    shape(t, what, wanted);
  }
  void optional_weight(const Tensor& t, const char* what, const Shape& wanted) const {
    if (t) weight(t, what, wanted);
  }
  void distinct(const Tensor& in, const char* what, const Tensor& out) const {
    const std::less<const char*> before;
    const char *a = static_cast<const char*>(in.data), *b = static_cast<const char*>(out.data);
    if (in.data && out.data && before(a, b + out.bytes()) && before(b, a + in.bytes())) {
      fail(ErrorCode::kInvalidArgument, "{}: the output overlaps {}", op, what);
    }
  }
  // In place is allowed for tensors of one type, any other overlap is not.
  void same_or_distinct(const Tensor& in, const char* what, const Tensor& out) const {
    if (in.data != out.data || in.dtype != out.dtype) distinct(in, what, out);
  }
  void positive(double value, const char* what) const {
    if (!(value > 0) || !std::isfinite(value))
      fail(ErrorCode::kInvalidArgument, "{}: {} must be positive, it is {}", op, what, value);
  }
  void equal(std::int64_t value, const char* what, std::int64_t wanted) const {
    if (value != wanted) fail(ErrorCode::kInvalidArgument, "{}: {} must be {}, it is {}", op, what, wanted, value);
  }
  void projection(const ExpertProjection& p, const char* what, std::int64_t experts, std::int64_t out,
                  std::int64_t in) const {
    if (p.blocks) {
      typed(p.blocks, what, DType::kU8, {experts, out, in / 32, 16});
      typed(p.scales, what, DType::kU8, {experts, out, in / 32});
      equal(in % 32, "the input width modulo 32", 0);
    } else {
      weight(p.weight, what, {experts, out, in});
    }
    optional_weight(p.bias, what, {experts, out});
    if (p.expanded) typed(p.expanded, what, DType::kBF16, {experts, out, in});
  }
};

inline double bytes_of(std::initializer_list<const Tensor*> tensors) {
  double sum = 0;
  for (const Tensor* t : tensors) {
    if (t->data) sum += static_cast<double>(t->bytes());
  }
  return sum;
}

inline double number(std::int64_t n) { return static_cast<double>(n); }

// (query, key) pairs that attend to each other, over all heads. Known on the host only when the lengths are in its
// memory.
inline double attention_pairs(const AttentionArgs& args) {
  if (args.q.device != DeviceKind::kCpu) return 0;
  const auto* cu = args.cu_seqlens.as<std::int32_t>();
  const auto* kv = args.kv_lens.as<std::int32_t>();
  double pairs = 0;
  for (std::int64_t s = 0; s < args.kv_lens.elements(); ++s) {
    const double rows = number(cu[s + 1] - cu[s]), keys = number(kv[s]);
    const double mean = args.causal ? keys - (rows - 1) / 2 : keys;
    pairs += rows * (args.window > 0 ? std::fmin(mean, number(args.window)) : mean);
  }
  return pairs * number(args.q.shape[1]);
}

// Bytes of keys and values that a call reads: each sequence's once.
inline double attention_key_bytes(const AttentionArgs& args) {
  if (args.q.device != DeviceKind::kCpu) return 0;
  const Tensor& keys = args.k ? args.k : args.k_cache;
  const auto* cu = args.cu_seqlens.as<std::int32_t>();
  const auto* kv = args.kv_lens.as<std::int32_t>();
  double rows = 0;
  for (std::int64_t s = 0; s < args.kv_lens.elements(); ++s) {
    const double visible = number(cu[s + 1] - cu[s]) - 1 + number(args.window);
    if (cu[s + 1] > cu[s]) rows += args.window > 0 ? std::fmin(number(kv[s]), visible) : number(kv[s]);
  }
  return 2 * rows * number(keys.shape[1] * args.q.shape[2]) * number(static_cast<std::int64_t>(dtype_size(keys.dtype)));
}

// Experts that a call reads: counted on the CPU, expected under uniform routing elsewhere.
inline double active_experts(const Tensor& indices, std::int64_t experts) {
  const double pairs = number(indices.elements()), all = number(experts);
  if (indices.device != DeviceKind::kCpu) return all * (1 - std::pow(1 - 1 / all, pairs));
  std::vector<bool> seen(static_cast<std::size_t>(experts));
  double active = 0;
  for (std::int64_t i = 0; i < indices.elements(); ++i) {
    const std::int32_t e = indices.as<std::int32_t>()[i];
    if (e < 0 || e >= experts || seen[static_cast<std::size_t>(e)]) continue;
    seen[static_cast<std::size_t>(e)] = true;
    ++active;
  }
  return active;
}

#define GOV_DISPATCH(name, ...) (ctx.on_cuda() ? cuda::name(ctx, __VA_ARGS__) : cpu::name(ctx, __VA_ARGS__))

}  // namespace gov::ops
