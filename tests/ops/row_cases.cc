#include <cmath>

#include "ops/reference/math.h"
#include "tests/ops/harness.h"

namespace gov::test {
namespace {

constexpr std::int64_t kTokens = 9;

// Types of the input and the output of a row op; both F32 on the CPU.
struct Acts {
  DType in = DType::kF32, out = DType::kF32;
  bool cuda_only() const { return in != DType::kF32 || out != DType::kF32; }
  std::string name() const { return cuda_only() ? fmt::format("_{}_to_{}", dtype_name(in), dtype_name(out)) : ""; }
};
constexpr Acts kActs[] = {{}, {DType::kF32, DType::kBF16}, {DType::kBF16, DType::kBF16}, {DType::kBF16, DType::kF32}};

// The op on all rows, and on single rows: equal bits on the CPU.
void check_rows(const Context& ctx, const Tensor& out, std::int64_t tokens, Tolerance tolerance,
                const std::function<void(std::int64_t row, const Tensor& out)>& one) {
  Memory memory;
  const Tensor row = memory.make(out.dtype, {1, out.row_elements()});
  const Tolerance twice{INFINITY, 2 * tolerance.absolute};  // a row may be smaller than all: the absolute bound alone
  for (std::int64_t t = 0; t < tokens; t += 4) {
    one(t, row);
    EXPECT_TRUE(agree(ctx, values(row), values(out.slice(t, 1)), twice)) << "row " << t;
  }
}

// One op on rows [tokens, width]: against the reference, row by row, and in place where the types allow it.
struct RowProblem {
  DType weight = DType::kF32;
  Acts acts;
  std::int64_t tokens = kTokens, width = 1;
  bool aligned = false;
};

Doubles rms_norm_case(Context& ctx, const RowProblem& p) {
  Memory memory(std::uint64_t(p.width) + 11);
  memory.aligned = p.aligned;
  const Tensor x = memory.normal(p.acts.in, {p.tokens, p.width}, 3), weight = memory.normal(p.weight, {p.width});
  const Tensor out = memory.make(p.acts.out, x.shape);
  call(ctx, ops::rms_norm, x, weight, 1e-5f, out);
  const Doubles want = reference::rms_norm(values(x), values(weight), double(1e-5f));
  const Tolerance tolerance = rounded(sum_tolerance(4 + double(p.width) / 16, largest(want)), p.acts.out, want);
  EXPECT_TRUE(close(values(out), want, tolerance));
  check_rows(ctx, out, p.tokens, tolerance,
             [&](std::int64_t t, const Tensor& to) { call(ctx, ops::rms_norm, x.slice(t, 1), weight, 1e-5f, to); });
  const Doubles separate = values(out);
  if (p.acts.in == p.acts.out) {
    call(ctx, ops::rms_norm, x, weight, 1e-5f, x);
    EXPECT_TRUE(same_bits(values(x), separate));
  }
  return separate;
}

Doubles layer_norm_case(Context& ctx, const RowProblem& p, double mean) {
  Memory memory(std::uint64_t(p.width) + 12);
  memory.aligned = p.aligned;
  const Tensor x = memory.normal(p.acts.in, {p.tokens, p.width}, 2, mean), weight = memory.normal(p.weight, {p.width});
  const Tensor bias = memory.normal(p.weight, {p.width}), out = memory.make(p.acts.out, x.shape);
  call(ctx, ops::layer_norm, x, weight, bias, 1e-6f, out);
  const Doubles want = reference::layer_norm(values(x), values(weight), values(bias), double(1e-6f));
  // (x - mean) loses |mean| / sigma digits, unless it is exactly 0 and the bias the result.
  const double terms = 4 + double(p.width) / 16, loss = 1 + std::fabs(mean) / 2;
  Tolerance tolerance = sum_tolerance(terms, loss * largest(want), 2);
  if (p.width > 1) tolerance.relative_l2 *= loss;
  tolerance = rounded(tolerance, p.acts.out, want);
  EXPECT_TRUE(close(values(out), want, tolerance));
  check_rows(ctx, out, p.tokens, tolerance, [&](std::int64_t t, const Tensor& to) {
    call(ctx, ops::layer_norm, x.slice(t, 1), weight, bias, 1e-6f, to);
  });
  const Doubles separate = values(out);
  if (p.acts.in == p.acts.out) {
    call(ctx, ops::layer_norm, x, weight, bias, 1e-6f, x);
    EXPECT_TRUE(same_bits(values(x), separate));
  }
  return separate;
}

// Values in every regime: normal, at the clamps, far outside (the gate has no lower clamp), zero.
Doubles swiglu_case(Context& ctx, const RowProblem& p) {
  Memory memory(std::uint64_t(p.width) + 13);
  memory.aligned = p.aligned;
  const Tensor h = memory.normal(p.acts.in, {p.tokens, 2 * p.width}, 5),
               out = memory.make(p.acts.out, {p.tokens, p.width});
  const float special[] = {7.f, -7.f, 100.f, -100.f, 0.f, -60.f, 1e-30f, 3e38f, -3e38f};
  for (std::int64_t i = 0; i < std::min<std::int64_t>(9, h.elements()); ++i) {
    const std::int64_t at = i * 2 % h.elements();
    if (p.acts.in == DType::kF32) h.as<float>()[at] = special[i];
    else h.as<bf16>()[at] = to_bf16(special[i]);
  }
  call(ctx, ops::swiglu, h, 1.702f, 7.f, out);
  const Doubles want = reference::swiglu(values(h), double(1.702f), 7);
  const Tolerance tolerance = rounded(sum_tolerance(16, largest(want)), p.acts.out, want);
  EXPECT_TRUE(close(values(out), want, tolerance));
  check_rows(ctx, out, p.tokens, tolerance,
             [&](std::int64_t t, const Tensor& to) { call(ctx, ops::swiglu, h.slice(t, 1), 1.702f, 7.f, to); });
  return values(out);
}

Doubles gelu_case(Context& ctx, Acts acts, ops::Gelu kind) {
  Memory memory(14);
  memory.aligned = acts.cuda_only();
  const reference::Gelu want_kind = static_cast<reference::Gelu>(kind);
  Doubles x = {0, -0.0, 1e-20, -1e-20, 40, -40, 3e38, -3e38, -5.5, 13.9, -13.9, -14.5};
  for (int i = 0; i < 5004; ++i) x.push_back(double(float(-9 + 18.0 * i / 5003)));
  const Tensor in = memory.make(acts.in, {std::int64_t(x.size())}), out = memory.make(acts.out, in.shape);
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (acts.in == DType::kF32) in.as<float>()[i] = float(x[i]);
    else in.as<bf16>()[i] = to_bf16(float(x[i]));
  }
  call(ctx, ops::gelu, in, kind, out);
  x = values(in);
  const Doubles want = reference::gelu(x, want_kind), got = values(out);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double a = std::fabs(x[i]);
    // Near 0 and on the positive side a few units in the last place; the negative tail is a product with e^-y, whose
    // relative error is eps y.
    const double exponent = want_kind == reference::Gelu::kErf    ? a * a / 2
                            : want_kind == reference::Gelu::kTanh ? 1.6 * a + 0.0714 * a * a * a
                                                                  : 1.702 * a;
    const double relative =
        (x[i] > 0 ? 8 * kEps : (10 + 3 * exponent) * kEps) + (acts.out == DType::kBF16 ? 0x1p-8 : 0);
    EXPECT_LE(std::fabs(got[i] - want[i]), relative * std::fabs(want[i]) + 1e-37) << "x = " << x[i];
  }
  const Doubles separate = values(out);
  if (acts.in == acts.out) {
    call(ctx, ops::gelu, in, kind, in);
    EXPECT_TRUE(same_bits(values(in), separate));
  }
  return separate;
}

Doubles rope_case(Context& ctx, std::int64_t dim, DType act) {
  Memory memory(15);
  const std::vector<std::int32_t> positions = {0, 1, 2, 127, 4095, 4096, 4097, 100'000, 131'071};
  Doubles frequencies;
  for (std::int64_t i = 0; i < dim / 2; ++i)
    frequencies.push_back(double(float(std::pow(150000.0, -2.0 * double(i) / double(dim)))));
  const double factor = 1.3465735902799727;
  const Tensor inv_freq = memory.floats(frequencies, {dim / 2});
  const Tensor cos = memory.make(DType::kF32, {9, dim / 2}), sin = memory.make(DType::kF32, {9, dim / 2});
  call(ctx, ops::rope_table, memory.ints(positions), inv_freq, float(factor), cos, sin);
  const reference::RopeTable table = reference::rope_table(positions, frequencies, factor);
  EXPECT_TRUE(close(values(cos), table.cos, {2 * kEps, 4 * kEps}));
  EXPECT_TRUE(close(values(sin), table.sin, {2 * kEps, 4 * kEps}));
  const Tensor x = memory.normal(act, {9, 3, dim});
  const Doubles before = values(x);
  call(ctx, ops::rope, cos, sin, x);
  const Doubles want = reference::rope(before, values(cos), values(sin), 3, std::size_t(dim));
  EXPECT_TRUE(close(values(x), want, rounded(sum_tolerance(2, largest(before) * 2), act, want)));
  Doubles all = values(x);
  for (const Doubles& part : {values(cos), values(sin)}) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// What a row holds once it is written with this type.
Doubles stored(Doubles row, DType type) {
  if (type == DType::kBF16) {
    for (double& v : row) v = double(to_f32(to_bf16(float(v))));
  }
  return row;
}

Doubles embedding_case(Context& ctx, DType dtype, DType out_type, std::int64_t width) {
  Memory memory(16);
  memory.aligned = width % 8 == 0;
  const std::vector<std::int32_t> ids = {0, 49, 3, 3, 48, 7, 21};
  const Tensor table = memory.normal(dtype, {50, width}), out = memory.make(out_type, {7, width});
  call(ctx, ops::embedding, table, memory.ints(ids), out);
  Doubles want;
  for (const std::int32_t id : ids) {
    const Doubles row = stored(values(table.slice(id, 1)), out_type);
    want.insert(want.end(), row.begin(), row.end());
  }
  EXPECT_TRUE(same_bits(values(out), want));
  return values(out);
}

Doubles move_rows_case(Context& ctx, Acts acts, std::int64_t width) {
  Memory memory(17);
  memory.aligned = width % 8 == 0;
  const std::vector<std::int32_t> rows = {4, 0, 9, 2};
  const Tensor x = memory.normal(acts.in, {10, width}), some = memory.make(acts.out, {4, width}),
               index = memory.ints(rows);
  call(ctx, ops::gather_rows, x, index, some);
  const Tensor back = memory.normal(acts.in, {10, width});
  const Doubles before = values(back);
  call(ctx, ops::scatter_rows, some, index, back);
  for (std::int64_t r = 0; r < 10; ++r) {
    bool moved = false;
    const Doubles want = stored(values(x.slice(r, 1)), acts.out);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (rows[i] != r) continue;
      moved = true;
      EXPECT_TRUE(same_bits(values(some.slice(std::int64_t(i), 1)), want));
    }
    const Doubles row = values(back.slice(r, 1)), old(before.begin() + r * width, before.begin() + (r + 1) * width);
    EXPECT_TRUE(same_bits(row, moved ? want : old)) << "row " << r;
  }
  return values(back);
}

Doubles prepend_token_case(Context& ctx, Acts acts, DType dtype, bool with_token, bool with_positions) {
  Memory memory(21);
  const std::int64_t images = 3, patches = 5, width = 33, rows = patches + (with_token ? 1 : 0);
  const Tensor x = memory.normal(acts.in, {images, patches, width}), out = memory.make(acts.out, {images, rows, width});
  const Tensor token = with_token ? memory.normal(dtype, {width}) : Tensor();
  const Tensor positions = with_positions ? memory.normal(dtype, {rows, width}) : Tensor();
  call(ctx, ops::prepend_token, token, x, positions, out);
  const Doubles want = reference::prepend_token(with_token ? values(token) : Doubles{}, values(x),
                                                with_positions ? values(positions) : Doubles{}, std::size_t(images));
  EXPECT_TRUE(close(values(out), want, rounded(sum_tolerance(1, largest(want), 1), acts.out, want)));
  return values(out);
}

Doubles add_case(Context& ctx, std::int64_t width) {
  Memory memory(18);
  memory.aligned = width % 8 == 0;
  const Tensor x = memory.normal(DType::kF32, {3, width}), out = memory.normal(DType::kF32, {3, width});
  const Doubles a = values(x), b = values(out);
  call(ctx, ops::add, x, out);
  Doubles want;
  for (std::size_t i = 0; i < a.size(); ++i) want.push_back(double(float(b[i]) + float(a[i])));
  EXPECT_TRUE(same_bits(values(out), want));
  return values(out);
}

Doubles kv_append_case(Context& ctx, DType dtype, DType act) {
  Memory memory(19);
  const Tensor k = memory.normal(act, {5, 2, 6}), v = memory.normal(act, {5, 2, 6});
  const Tensor k_cache = memory.zeros(dtype, {3, 2, 8, 6}), v_cache = memory.zeros(dtype, {3, 2, 8, 6});
  const std::vector<std::int64_t> slots = {23, -1, 0, 8, 7};
  call(ctx, ops::kv_append, k, v, memory.longs(slots), k_cache, v_cache);
  Doubles all;
  for (const auto& [rows, cache] : {std::pair(k, k_cache), std::pair(v, v_cache)}) {
    Doubles want(std::size_t(cache.elements()), 0.0);
    const Doubles all_rows = values(rows);
    for (std::int64_t t = 0; t < 5; ++t)
      for (std::int64_t h = 0; h < 2 && slots[std::size_t(t)] >= 0; ++h)
        for (std::int64_t d = 0; d < 6; ++d) {
          const std::int64_t slot = slots[std::size_t(t)];
          const float x = float(all_rows[std::size_t((t * 2 + h) * 6 + d)]);
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
  memory.aligned = vocabulary % 8 == 0;
  const Tensor logits = memory.normal(DType::kF32, {6, vocabulary}, scale), losses = memory.make(DType::kF32, {6});
  const std::int32_t last = std::int32_t(vocabulary - 1);
  const std::vector<std::int32_t> targets = {0, last, -1, last / 2, -100, last / 3};
  call(ctx, ops::cross_entropy, logits, memory.ints(targets), losses);
  const Doubles want = reference::cross_entropy(values(logits), targets);
  EXPECT_TRUE(close(values(losses), want, sum_tolerance(16, std::max(1.0, largest(want)))));
  EXPECT_EQ(values(losses)[2], 0);
  return values(losses);
}

}  // namespace

std::vector<OpCase> row_cases() {
  std::vector<OpCase> cases;
  const auto add = [&](std::string name, std::function<Doubles(Context&)> run, bool cuda_only = false) {
    cases.push_back({std::move(name), std::move(run), cuda_only});
  };
  const auto norms = [&](const RowProblem& p) {
    const bool cuda_only = p.acts.cuda_only() || p.aligned;
    const std::string name = fmt::format("{}_{}{}{}", dtype_name(p.weight), p.width, p.acts.name(),
                                         p.aligned ? fmt::format("_x{}", p.tokens) : "");
    add(
        "rms_norm_" + name, [=](Context& c) { return rms_norm_case(c, p); }, cuda_only);
    add(
        "layer_norm_" + name, [=](Context& c) { return layer_norm_case(c, p, 0.5); }, cuda_only);
  };
  for (const Acts acts : kActs) {
    const bool cuda_only = acts.cuda_only();
    for (const std::int64_t width : {1, 7, 33, 96, 100, 2880}) {
      for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16})
        if (!cuda_only || width == 33 || dtype == DType::kBF16) norms({dtype, acts, kTokens, width, false});
      const RowProblem p{DType::kF32, acts, kTokens, width, false};
      add(
          fmt::format("swiglu_{}{}", width, acts.name()), [=](Context& c) { return swiglu_case(c, p); }, cuda_only);
    }
    for (const std::int64_t tokens : {1, 300})
      for (const std::int64_t width : {64, 1024, 2880}) norms({DType::kBF16, acts, tokens, width, true});
    norms({DType::kF32, acts, 2, 20'000, true});  // wider than a block's registers
    const RowProblem large{DType::kF32, acts, 300, 2880, true};
    add(
        "swiglu_2880" + acts.name() + "_x300", [=](Context& c) { return swiglu_case(c, large); }, true);
    add(
        "gelu_erf" + acts.name(), [=](Context& c) { return gelu_case(c, acts, ops::Gelu::kErf); }, cuda_only);
    add(
        "gelu_tanh" + acts.name(), [=](Context& c) { return gelu_case(c, acts, ops::Gelu::kTanh); }, cuda_only);
    add(
        "gelu_quick" + acts.name(), [=](Context& c) { return gelu_case(c, acts, ops::Gelu::kQuick); }, cuda_only);
    add(
        "gather_and_scatter_rows" + acts.name(), [=](Context& c) { return move_rows_case(c, acts, 35); }, cuda_only);
    add(
        "gather_and_scatter_rows_2880" + acts.name(), [=](Context& c) { return move_rows_case(c, acts, 2880); },
        cuda_only);
    for (const bool token : {true, false})
      for (const bool positions : {true, false}) {
        const DType dtype = token ? DType::kBF16 : DType::kF16;
        add(
            fmt::format("prepend_{}{}{}", token ? "token" : "nothing", positions ? "_positions" : "", acts.name()),
            [=](Context& c) { return prepend_token_case(c, acts, dtype, token, positions); }, cuda_only);
      }
  }
  add("layer_norm_large_mean", [](Context& c) {
    return layer_norm_case(c, {DType::kF32, {}, kTokens, 1024, false}, 300);
  });
  for (const DType act : {DType::kF32, DType::kBF16}) {
    const char* const suffix = act == DType::kBF16 ? "_act_bf16" : "";
    const bool cuda_only = act == DType::kBF16;
    for (const std::int64_t dim : {2, 6, 64, 100, 256})
      add(
          fmt::format("rope_{}{}", dim, suffix), [=](Context& c) { return rope_case(c, dim, act); }, cuda_only);
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16})
      for (const std::int64_t width : {33, 2880}) {
        add(
            fmt::format("embedding_{}_{}{}", dtype_name(dtype), width, suffix),
            [=](Context& c) { return embedding_case(c, dtype, act, width); }, cuda_only);
      }
    for (const DType dtype : {DType::kF32, DType::kBF16})
      add(
          fmt::format("kv_append_{}{}", dtype_name(dtype), suffix),
          [=](Context& c) { return kv_append_case(c, dtype, act); }, cuda_only);
  }
  add("add", [](Context& c) { return add_case(c, 5003); });
  add("add_aligned", [](Context& c) { return add_case(c, 5008); });
  add("cross_entropy_small", [](Context& c) { return cross_entropy_case(c, 7, 2); });
  add("cross_entropy_large", [](Context& c) { return cross_entropy_case(c, 20'011, 30); });
  add("cross_entropy_aligned", [](Context& c) { return cross_entropy_case(c, 20'016, 30); });
  return cases;
}

}  // namespace gov::test
