#include <cmath>

#include "ops/reference/math.h"
#include "tests/ops/harness.h"

namespace gov::test {
namespace {

constexpr std::int64_t kTokens = 9;

// The op on all rows, and on single rows: equal bits.
void check_rows(const Tensor& out, std::int64_t tokens,
                const std::function<void(std::int64_t row, const Tensor& out)>& one) {
  Memory memory;
  const Tensor row = memory.make(DType::kF32, {1, out.row_elements()});
  for (std::int64_t t = 0; t < tokens; t += 4) {
    one(t, row);
    EXPECT_TRUE(same_bits(values(row), values(out.slice(t, 1)))) << "row " << t;
  }
}

Doubles rms_norm_case(Context& ctx, DType dtype, std::int64_t width) {
  Memory memory(std::uint64_t(width) + 11);
  const Tensor x = memory.normal(DType::kF32, {kTokens, width}, 3), weight = memory.normal(dtype, {width});
  const Tensor out = memory.make(DType::kF32, x.shape);
  ops::rms_norm(ctx, x, weight, 1e-5f, out);
  const Doubles want = reference::rms_norm(values(x), values(weight), double(1e-5f));
  EXPECT_TRUE(close(values(out), want, sum_tolerance(4 + double(width) / 16, largest(want))));
  check_rows(out, kTokens,
             [&](std::int64_t t, const Tensor& to) { ops::rms_norm(ctx, x.slice(t, 1), weight, 1e-5f, to); });
  const Doubles separate = values(out);
  ops::rms_norm(ctx, x, weight, 1e-5f, x);  // in place
  EXPECT_TRUE(same_bits(values(x), separate));
  return separate;
}

Doubles layer_norm_case(Context& ctx, DType dtype, std::int64_t width, double mean) {
  Memory memory(std::uint64_t(width) + 12);
  const Tensor x = memory.normal(DType::kF32, {kTokens, width}, 2, mean), weight = memory.normal(dtype, {width});
  const Tensor bias = memory.normal(dtype, {width}), out = memory.make(DType::kF32, x.shape);
  ops::layer_norm(ctx, x, weight, bias, 1e-6f, out);
  const Doubles want = reference::layer_norm(values(x), values(weight), values(bias), double(1e-6f));
  // (x - mean) loses |mean| / sigma digits.
  const double terms = 4 + double(width) / 16, loss = 1 + std::fabs(mean) / 2;
  const Tolerance tolerance = sum_tolerance(terms, loss * largest(want), 2);
  if (width > 1) {
    EXPECT_TRUE(close(values(out), want, {tolerance.relative_l2 * loss, tolerance.absolute}));
  } else {
    EXPECT_TRUE(
        close(values(out), want, {tolerance.relative_l2, tolerance.absolute}));  // x - mean is exactly 0: the bias
  }
  check_rows(out, kTokens,
             [&](std::int64_t t, const Tensor& to) { ops::layer_norm(ctx, x.slice(t, 1), weight, bias, 1e-6f, to); });
  const Doubles separate = values(out);
  ops::layer_norm(ctx, x, weight, bias, 1e-6f, x);
  EXPECT_TRUE(same_bits(values(x), separate));
  return separate;
}

// Values in every regime: normal, at the clamps, far outside (the gate has no lower clamp), zero.
Doubles swiglu_case(Context& ctx, std::int64_t width) {
  Memory memory(std::uint64_t(width) + 13);
  const Tensor h = memory.normal(DType::kF32, {kTokens, 2 * width}, 5),
               out = memory.make(DType::kF32, {kTokens, width});
  float* p = h.as<float>();
  const float special[] = {7.f, -7.f, 100.f, -100.f, 0.f, -60.f, 1e-30f, 3e38f, -3e38f};
  for (std::int64_t i = 0; i < std::min<std::int64_t>(9, h.elements()); ++i) p[i * 2 % h.elements()] = special[i];
  ops::swiglu(ctx, h, 1.702f, 7.f, out);
  const Doubles want = reference::swiglu(values(h), double(1.702f), 7);
  EXPECT_TRUE(close(values(out), want, sum_tolerance(16, largest(want))));
  check_rows(out, kTokens, [&](std::int64_t t, const Tensor& to) { ops::swiglu(ctx, h.slice(t, 1), 1.702f, 7.f, to); });
  return values(out);
}

Doubles gelu_case(Context& ctx, ops::Gelu kind, reference::Gelu want_kind) {
  Memory memory(14);
  Doubles x = {0, -0.0, 1e-20, -1e-20, 40, -40, 3e38, -3e38, -5.5, 13.9, -13.9, -14.5};
  for (int i = 0; i < 5001; ++i) x.push_back(double(float(-9 + 18.0 * i / 5000)));
  const Tensor in = memory.floats(x, {std::int64_t(x.size())}), out = memory.make(DType::kF32, in.shape);
  ops::gelu(ctx, in, kind, out);
  const Doubles want = reference::gelu(values(in), want_kind), got = values(out);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double a = std::fabs(x[i]);
    // Near 0 and on the positive side a few units in the last place; the negative tail is a product with e^-y, whose
    // relative error is eps y.
    const double exponent = want_kind == reference::Gelu::kErf    ? a * a / 2
                            : want_kind == reference::Gelu::kTanh ? 1.6 * a + 0.0714 * a * a * a
                                                                  : 1.702 * a;
    const double relative = x[i] > 0 ? 8 * kEps : (10 + 3 * exponent) * kEps;
    EXPECT_LE(std::fabs(got[i] - want[i]), relative * std::fabs(want[i]) + 1e-37) << "x = " << x[i];
  }
  const Doubles separate = values(out);
  ops::gelu(ctx, in, kind, in);
  EXPECT_TRUE(same_bits(values(in), separate));
  return separate;
}

Doubles rope_case(Context& ctx, std::int64_t dim) {
  Memory memory(15);
  const std::vector<std::int32_t> positions = {0, 1, 2, 127, 4095, 4096, 4097, 100'000, 131'071};
  Doubles frequencies;
  for (std::int64_t i = 0; i < dim / 2; ++i)
    frequencies.push_back(double(float(std::pow(150000.0, -2.0 * double(i) / double(dim)))));
  const double factor = 1.3465735902799727;
  const Tensor inv_freq = memory.floats(frequencies, {dim / 2});
  const Tensor cos = memory.make(DType::kF32, {9, dim / 2}), sin = memory.make(DType::kF32, {9, dim / 2});
  ops::rope_table(ctx, memory.ints(positions), inv_freq, float(factor), cos, sin);
  const reference::RopeTable table = reference::rope_table(positions, frequencies, factor);
  EXPECT_TRUE(close(values(cos), table.cos, {2 * kEps, 4 * kEps}));
  EXPECT_TRUE(close(values(sin), table.sin, {2 * kEps, 4 * kEps}));
  const Tensor x = memory.normal(DType::kF32, {9, 3, dim});
  const Doubles before = values(x);
  ops::rope(ctx, cos, sin, x);
  EXPECT_TRUE(close(values(x), reference::rope(before, values(cos), values(sin), 3, std::size_t(dim)),
                    sum_tolerance(2, largest(before) * 2)));
  Doubles all = values(x);
  for (const Doubles& part : {values(cos), values(sin)}) all.insert(all.end(), part.begin(), part.end());
  return all;
}

Doubles embedding_case(Context& ctx, DType dtype) {
  Memory memory(16);
  const std::vector<std::int32_t> ids = {0, 49, 3, 3, 48, 7, 21};
  const Tensor table = memory.normal(dtype, {50, 33}), out = memory.make(DType::kF32, {7, 33});
  ops::embedding(ctx, table, memory.ints(ids), out);
  Doubles want;
  for (const std::int32_t id : ids) {
    const Doubles row = values(table.slice(id, 1));
    want.insert(want.end(), row.begin(), row.end());
  }
  EXPECT_TRUE(same_bits(values(out), want));
  return values(out);
}

Doubles move_rows_case(Context& ctx) {
  Memory memory(17);
  const std::vector<std::int32_t> rows = {4, 0, 9, 2};
  const Tensor x = memory.normal(DType::kF32, {10, 35}), some = memory.make(DType::kF32, {4, 35}),
               index = memory.ints(rows);
  ops::gather_rows(ctx, x, index, some);
  const Tensor back = memory.normal(DType::kF32, {10, 35});
  const Doubles before = values(back);
  ops::scatter_rows(ctx, some, index, back);
  for (std::int64_t r = 0; r < 10; ++r) {
    bool moved = false;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (rows[i] != r) continue;
      moved = true;
      EXPECT_TRUE(same_bits(values(some.slice(std::int64_t(i), 1)), values(x.slice(r, 1))));
    }
    const Doubles row = values(back.slice(r, 1)), old(before.begin() + r * 35, before.begin() + (r + 1) * 35);
    EXPECT_TRUE(same_bits(row, moved ? values(x.slice(r, 1)) : old)) << "row " << r;
  }
  return values(back);
}

Doubles add_case(Context& ctx) {
  Memory memory(18);
  const Tensor x = memory.normal(DType::kF32, {3, 5003}), out = memory.normal(DType::kF32, {3, 5003});
  const Doubles a = values(x), b = values(out);
  ops::add(ctx, x, out);
  Doubles want;
  for (std::size_t i = 0; i < a.size(); ++i) want.push_back(double(float(b[i]) + float(a[i])));
  EXPECT_TRUE(same_bits(values(out), want));
  return values(out);
}

Doubles kv_append_case(Context& ctx, DType dtype) {
  Memory memory(19);
  const Tensor k = memory.normal(DType::kF32, {5, 2, 6}), v = memory.normal(DType::kF32, {5, 2, 6});
  const Tensor k_cache = memory.zeros(dtype, {3, 2, 8, 6}), v_cache = memory.zeros(dtype, {3, 2, 8, 6});
  const std::vector<std::int64_t> slots = {23, -1, 0, 8, 7};
  ops::kv_append(ctx, k, v, memory.longs(slots), k_cache, v_cache);
  Doubles all;
  for (const auto& [rows, cache] : {std::pair(k, k_cache), std::pair(v, v_cache)}) {
    Doubles want(std::size_t(cache.elements()), 0.0);
    for (std::int64_t t = 0; t < 5; ++t)
      for (std::int64_t h = 0; h < 2 && slots[std::size_t(t)] >= 0; ++h)
        for (std::int64_t d = 0; d < 6; ++d) {
          const std::int64_t slot = slots[std::size_t(t)];
          const float x = rows.as<float>()[(t * 2 + h) * 6 + d];
          want[std::size_t(((slot / 8 * 2 + h) * 8 + slot % 8) * 6 + d)] =
              double(dtype == DType::kBF16 ? to_f32(to_bf16(x)) : x);
        }
    EXPECT_TRUE(same_bits(values(cache), want));
    all.insert(all.end(), want.begin(), want.end());
  }
  return all;
}

Doubles cross_entropy_case(Context& ctx, std::int64_t vocabulary, double scale) {
  Memory memory(20);
  const Tensor logits = memory.normal(DType::kF32, {6, vocabulary}, scale), losses = memory.make(DType::kF32, {6});
  const std::int32_t last = std::int32_t(vocabulary - 1);
  const std::vector<std::int32_t> targets = {0, last, -1, last / 2, -100, last / 3};
  ops::cross_entropy(ctx, logits, memory.ints(targets), losses);
  const Doubles want = reference::cross_entropy(values(logits), targets);
  EXPECT_TRUE(close(values(losses), want, sum_tolerance(16, std::max(1.0, largest(want)))));
  EXPECT_EQ(values(losses)[2], 0);
  return values(losses);
}

}  // namespace

std::vector<OpCase> row_cases() {
  std::vector<OpCase> cases;
  const auto add = [&](std::string name, std::function<Doubles(Context&)> run) {
    cases.push_back({std::move(name), std::move(run)});
  };
  for (const std::int64_t width : {1, 7, 33, 96, 100, 2880}) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      add(fmt::format("rms_norm_{}_{}", dtype_name(dtype), width),
          [=](Context& c) { return rms_norm_case(c, dtype, width); });
      add(fmt::format("layer_norm_{}_{}", dtype_name(dtype), width),
          [=](Context& c) { return layer_norm_case(c, dtype, width, 0.5); });
    }
    add(fmt::format("swiglu_{}", width), [=](Context& c) { return swiglu_case(c, width); });
  }
  add("layer_norm_large_mean", [](Context& c) { return layer_norm_case(c, DType::kF32, 1024, 300); });
  add("gelu_erf", [](Context& c) { return gelu_case(c, ops::Gelu::kErf, reference::Gelu::kErf); });
  add("gelu_tanh", [](Context& c) { return gelu_case(c, ops::Gelu::kTanh, reference::Gelu::kTanh); });
  add("gelu_quick", [](Context& c) { return gelu_case(c, ops::Gelu::kQuick, reference::Gelu::kQuick); });
  for (const std::int64_t dim : {2, 6, 64, 100, 256}) {
    add(fmt::format("rope_{}", dim), [=](Context& c) { return rope_case(c, dim); });
  }
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    add(fmt::format("embedding_{}", dtype_name(dtype)), [=](Context& c) { return embedding_case(c, dtype); });
  }
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    add(fmt::format("kv_append_{}", dtype_name(dtype)), [=](Context& c) { return kv_append_case(c, dtype); });
  }
  add("gather_and_scatter_rows", move_rows_case);
  add("add", add_case);
  add("cross_entropy_small", [](Context& c) { return cross_entropy_case(c, 7, 2); });
  add("cross_entropy_large", [](Context& c) { return cross_entropy_case(c, 20'011, 30); });
  return cases;
}

}  // namespace gov::test
