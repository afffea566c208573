// qkv_rope_append beside what it stands for: rope() of q and k, kv_append() of k and v.
#include <algorithm>

#include "tests/ops/harness.h"

namespace gov::test {
namespace {

struct Problem {
  std::int64_t rows, heads, kv_heads, dim;
  DType in, out, cache;
  bool rotates, aligned;
};

struct Result {
  Doubles q, k, v;
};

// Slots run backwards over blocks of 8, and every fifth row goes nowhere.
std::vector<std::int64_t> slots_of(const Problem& p) {
  std::vector<std::int64_t> slots;
  for (std::int64_t t = 0; t < p.rows; ++t) slots.push_back(t % 5 == 4 ? -1 : 8 * ((p.rows + 7) / 8) - 1 - t);
  return slots;
}

struct Tensors {
  Tensors(Memory& memory, const Problem& p) {
    memory.aligned = p.aligned;
    qkv = memory.normal(p.in, {p.rows, (p.heads + 2 * p.kv_heads) * p.dim});
    if (p.rotates) {
      cos = memory.normal(DType::kF32, {p.rows, p.dim / 2});
      sin = memory.normal(DType::kF32, {p.rows, p.dim / 2});
    }
    slots = memory.longs(slots_of(p));
    q = memory.make(p.out, {p.rows, p.heads, p.dim});
    const Shape cache{(p.rows + 7) / 8, p.kv_heads, 8, p.dim};
    k = memory.zeros(p.cache, cache);
    v = memory.zeros(p.cache, cache);
  }
  Tensor qkv, cos, sin, slots, q, k, v;
};

Result packed(Context& ctx, const Problem& p) {
  Memory memory(3);
  Tensors t(memory, p);
  call(ctx, ops::qkv_rope_append, t.qkv, t.cos, t.sin, t.slots, t.q, t.k, t.v);
  memory.check_guards();
  return {values(t.q), values(t.k), values(t.v)};
}

// In F32 until the cache, from the same values.
Result composed(Context& cpu, const Problem& p) {
  Memory memory(3);
  Tensors t(memory, p);
  const Doubles rows = values(t.qkv);
  const auto columns = [&](std::int64_t begin, std::int64_t heads) {
    Doubles part;
    const std::int64_t width = (p.heads + 2 * p.kv_heads) * p.dim;
    for (std::int64_t r = 0; r < p.rows; ++r)
      part.insert(part.end(), rows.begin() + r * width + begin * p.dim,
                  rows.begin() + r * width + (begin + heads) * p.dim);
    return memory.floats(part, {p.rows, heads, p.dim});
  };
  const Tensor q = columns(0, p.heads), k = columns(p.heads, p.kv_heads), v = columns(p.heads + p.kv_heads, p.kv_heads);
  if (p.rotates) {
    ops::rope(cpu, t.cos, t.sin, q);
    ops::rope(cpu, t.cos, t.sin, k);
  }
  ops::kv_append(cpu, k, v, t.slots, t.k, t.v);
  return {values(q), values(t.k), values(t.v)};
}

std::vector<Problem> problems(bool cuda) {
  std::vector<Problem> all;
  for (const bool rotates : {true, false}) {
    for (const bool aligned : {true, false}) {
      for (const auto& [rows, heads, kv_heads, dim] :
           {std::array<std::int64_t, 4>{1, 8, 2, 64}, {13, 4, 4, 6}, {37, 6, 2, 8}, {5, 64, 8, 64}}) {
        for (const DType cache : {DType::kF32, DType::kBF16}) {
          all.push_back({rows, heads, kv_heads, dim, DType::kF32, DType::kF32, cache, rotates, aligned});
          if (cuda) all.push_back({rows, heads, kv_heads, dim, DType::kBF16, DType::kBF16, cache, rotates, aligned});
        }
      }
    }
  }
  return all;
}

TEST(QkvRopeAppend, IsItsComposition) {
  TestContext test(CpuIsa::kBaseline, 2);
  for (const Problem& p : problems(false)) {
    const Result got = packed(test.ctx, p), want = composed(test.ctx, p);
    EXPECT_TRUE(same_bits(got.q, want.q));
    EXPECT_TRUE(same_bits(got.k, want.k));
    EXPECT_TRUE(same_bits(got.v, want.v));
  }
}

TEST(QkvRopeAppend, IsItsCompositionOnAGpu) {
  if (const std::string reason = no_cuda_reason(); !reason.empty()) GTEST_SKIP() << reason;
  TestContext cpu(CpuIsa::kBaseline, 2);
  for (const Problem& p : problems(true)) {
    SCOPED_TRACE(fmt::format("{} rows, {}/{} heads of {}, {} in {}", p.rows, p.heads, p.kv_heads, p.dim,
                             dtype_name(p.in), dtype_name(p.cache)));
    const Result got = packed(cuda_context(), p), want = composed(cpu.ctx, p);
    // Products may be fused with sums; then one rounding to the type.
    const double eps = 4 * 0x1p-24, out = p.out == DType::kBF16 ? 0x1p-8 : eps,
                 cache = p.cache == DType::kBF16 ? 0x1p-8 : eps;
    const auto near = [](const Doubles& a, const Doubles& b, double relative) {
      ASSERT_EQ(a.size(), b.size());
      for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], relative * (std::abs(b[i]) + 8)) << i;
    };
    near(got.q, want.q, out);
    near(got.k, want.k, cache);
    near(got.v, want.v, cache);
  }
}

}  // namespace
}  // namespace gov::test
