// The cases of the self-test: odd sizes, so that the kernels' remainder loops run too, and what the scalar reference in
// double makes of the same inputs.

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/mxfp4.h"
#include "base/philox.h"
#include "cli/selftest.h"
#include "ops/reference/math.h"
#include "ops/reference/sample.h"
#include "tensor/device.h"

namespace gov::cli {
namespace {

// A tensor with its own memory on the host and, once an op of a GPU asked for it, a copy there.
struct Owned {
  std::shared_ptr<Buffer> memory, twin = std::make_shared<Buffer>();
  Tensor t;  // on the host

  // Where the context computes.
  Tensor on(const Context& ctx) const {
    if (!ctx.on_cuda()) return t;
    if (!twin->data()) {
      *twin = Buffer(t.bytes(), ctx.device, "self-test");
      copy_bytes(twin->data(), ctx.device, t.data, t.device, t.bytes(), ctx.stream);
    }
    return Tensor(twin->data(), t.dtype, t.shape, t.name, ctx.device);
  }
  // What ops made of it, back on the host.
  void fetch(const Context& ctx) const {
    if (!twin->data()) return;
    copy_bytes(t.data, t.device, twin->data(), ctx.device, t.bytes(), ctx.stream);
    synchronize(ctx.stream);
  }
};

Owned make(DType dtype, Shape shape, std::string_view name) {
  Owned o;
  const auto bytes = static_cast<std::size_t>(shape.elements()) * dtype_size(dtype);
  o.memory = std::make_shared<Buffer>(bytes, DeviceKind::kCpu, "self-test");
  o.t = Tensor(o.memory->data(), dtype, shape, name);
  return o;
}

// Normal values; `stream` tells the tensors of one op apart.
Owned random(Shape shape, std::uint64_t stream, std::string_view name, DType dtype = DType::kF32, float scale = 1.f) {
  Owned o = make(dtype, shape, name);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    const float value = scale * Philox{7}.normal(static_cast<std::uint64_t>(i), stream)[0];
    if (dtype == DType::kF32) o.t.as<float>()[i] = value;
    else if (dtype == DType::kBF16) o.t.as<bf16>()[i] = to_bf16(value);
    else o.t.as<f16>()[i] = to_f16(value);
  }
  return o;
}

template <class T>
Owned list(const std::vector<T>& values, std::string_view name) {
  Owned o = make(kDTypeOf<T>, Shape{static_cast<std::int64_t>(values.size())}, name);
  std::copy(values.begin(), values.end(), o.t.template as<T>());
  return o;
}

Owned zeros(Shape shape, std::string_view name, DType dtype = DType::kF32) {
  Owned o = make(dtype, shape, name);
  std::fill_n(static_cast<std::byte*>(o.t.data), o.t.bytes(), std::byte{0});
  return o;
}

std::vector<float> values(const Context& ctx, const Owned& o) {
  o.fetch(ctx);
  std::vector<float> out;
  for (std::int64_t i = 0; i < o.t.elements(); ++i) {
    out.push_back(o.t.dtype == DType::kI32 ? static_cast<float>(o.t.as<std::int32_t>()[i]) : o.t.as<float>()[i]);
  }
  return out;
}

using Reals = std::vector<double>;

Reals wide(const Owned& o) {
  Reals out;
  for (std::int64_t i = 0; i < o.t.elements(); ++i) {
    if (o.t.dtype == DType::kBF16) out.push_back(to_f32(o.t.as<bf16>()[i]));
    else if (o.t.dtype == DType::kF16) out.push_back(to_f32(o.t.as<f16>()[i]));
    else out.push_back(o.t.as<float>()[i]);
  }
  return out;
}

Reals rows_of(const Reals& all, std::size_t begin, std::size_t end, std::size_t width) {
  return {all.begin() + static_cast<std::ptrdiff_t>(begin * width),
          all.begin() + static_cast<std::ptrdiff_t>(end * width)};
}

OpRun run_linear(Context& ctx, DType dtype) {
  const Owned x = random({5, 101}, 1, "x"), w = random({67, 101}, 2, "weight", dtype, 0.1f),
              b = random({67}, 3, "bias", dtype);
  const Owned out = make(DType::kF32, {5, 67}, "out");
  ops::linear(ctx, x.on(ctx), w.on(ctx), b.on(ctx), out.on(ctx));
  return {values(ctx, out), reference::linear(wide(x), wide(w), wide(b), 101)};
}

OpRun run_norm(Context& ctx, bool layer) {
  const Owned x = random({5, 101}, 1, "x"), w = random({101}, 2, "weight"), b = random({101}, 3, "bias");
  const Owned out = make(DType::kF32, {5, 101}, "out");
  if (layer) ops::layer_norm(ctx, x.on(ctx), w.on(ctx), b.on(ctx), 1e-5f, out.on(ctx));
  else ops::rms_norm(ctx, x.on(ctx), w.on(ctx), 1e-5f, out.on(ctx));
  return {values(ctx, out),
          layer ? reference::layer_norm(wide(x), wide(w), wide(b), 1e-5) : reference::rms_norm(wide(x), wide(w), 1e-5)};
}

OpRun run_rope(Context& ctx) {
  const Owned positions = list<std::int32_t>({0, 1, 77, 4097, 131071}, "positions");
  const Owned frequencies = list<float>({1.f, 0.3f, 0.01f, 2e-5f}, "inv_freq");
  const Owned cos = make(DType::kF32, {5, 4}, "cos"), sin = make(DType::kF32, {5, 4}, "sin"),
              x = random({5, 3, 8}, 1, "x");
  const auto table = reference::rope_table({0, 1, 77, 4097, 131071}, wide(frequencies), 1.3465736f);
  const Reals expected = reference::rope(wide(x), table.cos, table.sin, 3, 8);
  ops::rope_table(ctx, positions.on(ctx), frequencies.on(ctx), 1.3465736f, cos.on(ctx), sin.on(ctx));
  ops::rope(ctx, cos.on(ctx), sin.on(ctx), x.on(ctx));
  return {values(ctx, x), expected};
}

// Two sequences of 70 and 33 keys in a paged cache of 8 rows a block, 2 key heads, 4 query heads, sinks, window 20.
OpRun run_paged_attention(Context& ctx, DType cache_dtype, int window) {
  constexpr std::int64_t kKeys = 103, kBlock = 8;
  const Owned k = random({kKeys, 2, 16}, 1, "k"), v = random({kKeys, 2, 16}, 2, "v"),
              q = random({kKeys, 4, 16}, 3, "q");
  const Owned k_cache = zeros({14, 2, kBlock, 16}, "k_cache", cache_dtype),
              v_cache = zeros({14, 2, kBlock, 16}, "v_cache", cache_dtype);
  std::vector<std::int64_t> slots;
  for (std::int64_t i = 0; i < kKeys; ++i) slots.push_back(i < 70 ? i : 9 * kBlock + i - 70);
  std::vector<std::int32_t> tables;
  for (std::int32_t i = 0; i < 9; ++i) tables.push_back(i);
  for (std::int32_t i = 9; i < 18; ++i) tables.push_back(i < 14 ? i : -1);
  const Owned slot_list = list(slots, "slots"), table_list = list(tables, "block_tables");
  const Owned bounds = list<std::int32_t>({0, 70, 103}, "cu_seqlens"),
              lengths = list<std::int32_t>({70, 33}, "kv_lens");
  const Owned sinks = random({4}, 4, "sinks"), out = make(DType::kF32, {kKeys, 4, 16}, "out");
  ops::kv_append(ctx, k.on(ctx), v.on(ctx), slot_list.on(ctx), k_cache.on(ctx), v_cache.on(ctx));
  ops::AttentionArgs args;
  args.q = q.on(ctx);
  args.cu_seqlens = bounds.on(ctx);
  args.kv_lens = lengths.on(ctx);
  args.k_cache = k_cache.on(ctx);
  args.v_cache = v_cache.on(ctx);
  args.block_tables = table_list.on(ctx).view({2, 9});
  args.sinks = sinks.on(ctx);
  args.scale = 0.25f;
  args.window = window;
  ops::attention(ctx, args, out.on(ctx));
  Reals keys = wide(k), cached_values = wide(v), expected;
  if (cache_dtype == DType::kBF16) {
    for (double& x : keys) x = to_f32(to_bf16(static_cast<float>(x)));
    for (double& x : cached_values) x = to_f32(to_bf16(static_cast<float>(x)));
  }
  const reference::AttentionShape shape{4, 2, 16, 0.25, true, static_cast<std::size_t>(window)};
  for (const auto& [begin, end] : {std::pair<std::size_t, std::size_t>{0, 70}, {70, 103}}) {
    const Reals part = reference::attention(rows_of(wide(q), begin, end, 64), rows_of(keys, begin, end, 32),
                                            rows_of(cached_values, begin, end, 32), wide(sinks), shape);
    expected.insert(expected.end(), part.begin(), part.end());
  }
  return {values(ctx, out), expected};
}

OpRun run_plain_attention(Context& ctx) {
  const Owned k = random({40, 3, 22}, 1, "k"), v = random({40, 3, 22}, 2, "v"), q = random({40, 3, 22}, 3, "q");
  const Owned bounds = list<std::int32_t>({0, 17, 40}, "cu_seqlens"), lengths = list<std::int32_t>({17, 23}, "kv_lens");
  const Owned out = make(DType::kF32, {40, 3, 22}, "out");
  ops::AttentionArgs args;
  args.q = q.on(ctx);
  args.cu_seqlens = bounds.on(ctx);
  args.kv_lens = lengths.on(ctx);
  args.k = k.on(ctx);
  args.v = v.on(ctx);
  args.scale = 0.2f;
  args.causal = false;
  ops::attention(ctx, args, out.on(ctx));
  Reals expected;
  for (const auto& [begin, end] : {std::pair<std::size_t, std::size_t>{0, 17}, {17, 40}}) {
    const Reals part = reference::attention(rows_of(wide(q), begin, end, 66), rows_of(wide(k), begin, end, 66),
                                            rows_of(wide(v), begin, end, 66), {}, {3, 3, 22, 0.2f, false, 0});
    expected.insert(expected.end(), part.begin(), part.end());
  }
  return {values(ctx, out), expected};
}

OpRun run_router(Context& ctx) {
  const Owned x = random({9, 101}, 1, "x"), w = random({11, 101}, 2, "weight"), b = random({11}, 3, "bias"),
              vision = random({11}, 4, "vision_bias");
  Owned modality = make(DType::kU8, {9}, "modality");
  for (int i = 0; i < 9; ++i) modality.t.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(i % 2);
  const Owned logits = make(DType::kF32, {9, 11}, "logits"), indices = make(DType::kI32, {9, 4}, "indices"),
              weights = make(DType::kF32, {9, 4}, "weights");
  ops::router(ctx, x.on(ctx), w.on(ctx), b.on(ctx), vision.on(ctx), modality.on(ctx), logits.on(ctx), indices.on(ctx),
              weights.on(ctx));
  std::vector<float> out = values(ctx, logits);
  for (const Owned* part : {&indices, &weights}) {
    const auto more = values(ctx, *part);
    out.insert(out.end(), more.begin(), more.end());
  }
  const auto* kinds = modality.t.as<std::uint8_t>();
  const auto r =
      reference::router(wide(x), wide(w), wide(b), wide(vision), std::vector<std::uint8_t>(kinds, kinds + 9), 101, 4);
  Reals expected = r.logits;
  expected.insert(expected.end(), r.indices.begin(), r.indices.end());
  expected.insert(expected.end(), r.weights.begin(), r.weights.end());
  return {out, expected};
}

// `projection` of 6 experts in MXFP4 or bf16.
struct Experts {
  Owned weight, blocks, scales, bias;
  ops::ExpertProjection p;
};

Experts experts(Context& ctx, std::int64_t in, std::int64_t out, bool mxfp4, std::uint64_t stream) {
  Experts e;
  e.bias = random({6, out}, stream, "bias");
  e.p.bias = e.bias.on(ctx);
  if (!mxfp4) {
    e.weight = random({6, out, in}, stream + 1, "weight", DType::kBF16, 0.1f);
    e.p.weight = e.weight.on(ctx);
    return e;
  }
  const Owned dense = random({6, out, in}, stream + 1, "weight", DType::kF32, 0.1f);
  e.blocks = make(DType::kU8, {6, out, in / kMxfp4Block, kMxfp4BlockBytes}, "blocks");
  e.scales = make(DType::kU8, {6, out, in / kMxfp4Block}, "scales");
  for (std::int64_t i = 0; i < e.scales.t.elements(); ++i) {
    mxfp4_encode_block(dense.t.as<float>() + i * kMxfp4Block, e.blocks.t.as<std::uint8_t>() + i * kMxfp4BlockBytes,
                       e.scales.t.as<std::uint8_t>() + i);
  }
  e.p.blocks = e.blocks.on(ctx);
  e.p.scales = e.scales.on(ctx);
  return e;
}

Reals wide_weights(const Experts& e) {
  if (e.weight.t) return wide(e.weight);
  Reals out;
  for (std::int64_t i = 0; i < e.scales.t.elements(); ++i) {
    float block[kMxfp4Block];
    mxfp4_decode_block(e.blocks.t.as<std::uint8_t>() + i * kMxfp4BlockBytes, e.scales.t.as<std::uint8_t>()[i], block);
    out.insert(out.end(), block, block + kMxfp4Block);
  }
  return out;
}

OpRun run_moe(Context& ctx, bool mxfp4) {
  const Owned x = random({7, 96}, 1, "x"), out = random({7, 96}, 2, "out"), weights = random({7, 2}, 3, "weights");
  const Owned indices = make(DType::kI32, {7, 2}, "indices");
  for (int i = 0; i < 7; ++i) {
    indices.t.as<std::int32_t>()[2 * i] = i % 6;
    indices.t.as<std::int32_t>()[2 * i + 1] = (i * 5 + 1) % 6 == i % 6 ? (i + 2) % 6 : (i * 5 + 1) % 6;
  }
  const Experts up = experts(ctx, 96, 64, mxfp4, 10), down = experts(ctx, 32, 96, mxfp4, 20);
  Reals expected = wide(out);
  const reference::Experts<double> e{wide_weights(up), wide(up.bias), wide_weights(down), wide(down.bias), 6, 96, 32};
  const auto* chosen = indices.t.as<std::int32_t>();
  const Reals added =
      reference::moe(wide(x), std::vector<std::int32_t>(chosen, chosen + 14), wide(weights), e, 1.702f, 7);
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += added[i];
  ops::moe(ctx, x.on(ctx), indices.on(ctx), weights.on(ctx), up.p, down.p, 1.702f, 7.f, out.on(ctx));
  return {values(ctx, out), expected};
}

OpRun run_gelu(Context& ctx, ops::Gelu kind) {
  const Owned x = random({3, 101}, 1, "x", DType::kF32, 2.f), out = make(DType::kF32, {3, 101}, "out");
  ops::gelu(ctx, x.on(ctx), kind, out.on(ctx));
  return {values(ctx, out), reference::gelu(wide(x), static_cast<reference::Gelu>(kind))};
}

OpRun run_swiglu(Context& ctx) {
  const Owned h = random({3, 202}, 1, "h", DType::kF32, 4.f), out = make(DType::kF32, {3, 101}, "out");
  ops::swiglu(ctx, h.on(ctx), 1.702f, 7.f, out.on(ctx));
  return {values(ctx, out), reference::swiglu(wide(h), 1.702f, 7)};
}

OpRun run_rows(Context& ctx) {
  const Owned table = random({12, 101}, 1, "table", DType::kF16), ids = list<std::int32_t>({3, 0, 11, 3}, "ids");
  const Owned x = make(DType::kF32, {4, 101}, "x"), picked = make(DType::kF32, {2, 101}, "picked"),
              rows = list<std::int32_t>({1, 2}, "rows");
  ops::embedding(ctx, table.on(ctx), ids.on(ctx), x.on(ctx));
  ops::gather_rows(ctx, x.on(ctx), rows.on(ctx), picked.on(ctx));
  const Owned added = random({2, 101}, 2, "x");
  ops::add(ctx, added.on(ctx), picked.on(ctx));
  ops::scatter_rows(ctx, picked.on(ctx), rows.on(ctx), x.on(ctx));
  Reals expected;
  for (const std::size_t id : {3, 0, 11, 3}) {
    const Reals row = rows_of(wide(table), id, id + 1, 101);
    expected.insert(expected.end(), row.begin(), row.end());
  }
  for (std::size_t i = 0; i < 202; ++i) expected[101 + i] += wide(added)[i];
  return {values(ctx, x), expected};
}

OpRun run_prepend(Context& ctx) {
  const Owned token = random({101}, 1, "token", DType::kBF16), x = random({2, 3, 101}, 2, "x"),
              positions = random({4, 101}, 3, "positions");
  const Owned out = make(DType::kF32, {2, 4, 101}, "out");
  ops::prepend_token(ctx, token.on(ctx), x.on(ctx), positions.on(ctx), out.on(ctx));
  return {values(ctx, out), reference::prepend_token(wide(token), wide(x), wide(positions), 2)};
}

OpRun run_patches(Context& ctx) {
  const Owned pixels = random({2, 3, 15, 16}, 1, "pixels"), w = random({33, 3, 5, 5}, 2, "weight", DType::kBF16, 0.2f),
              b = random({33}, 3, "bias");
  const Owned out = make(DType::kF32, {2, 9, 33}, "out");
  ops::patch_embed(ctx, pixels.on(ctx), w.on(ctx), b.on(ctx), out.on(ctx));
  return {values(ctx, out), reference::patch_embed(wide(pixels), wide(w), wide(b), {2, 3, 15, 16, 5, 33})};
}

OpRun run_cross_entropy(Context& ctx) {
  const Owned logits = random({4, 301}, 1, "logits", DType::kF32, 3.f),
              targets = list<std::int32_t>({0, 300, -1, 17}, "targets");
  const Owned losses = make(DType::kF32, {4}, "losses");
  ops::cross_entropy(ctx, logits.on(ctx), targets.on(ctx), losses.on(ctx));
  return {values(ctx, losses), reference::cross_entropy(wide(logits), {0, 300, -1, 17})};
}

OpRun run_sample(Context& ctx) {
  const Owned logits = random({6, 301}, 1, "logits", DType::kF32, 3.f);
  std::vector<ops::SampleRow> rows(6);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].params.temperature = i < 2 ? 0.f : 0.8f;
    rows[i].params.top_k = i == 3 ? 10 : 0;
    rows[i].params.top_p = i == 4 ? 0.9f : 1.f;
    rows[i].params.min_p = i == 5 ? 0.05f : 0.f;
    rows[i].draw = i;
    rows[i].top_logprobs = 3;
  }
  std::vector<ops::SampleResult> results(6);
  const std::vector<float> raw = values(ctx, logits);  // the op uses the tensor as scratch
  ops::sample(ctx, logits.on(ctx), rows, results);
  // A greedy row gives the largest logit; a drawn token must be one that the filters leave; both give its probability.
  std::vector<float> out;
  Reals expected;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::span<const float> row(raw.data() + i * 301, 301);
    const auto token = static_cast<std::size_t>(results[i].token);
    out.push_back(static_cast<float>(token));
    if (i < 2) expected.push_back(static_cast<double>(std::max_element(row.begin(), row.end()) - row.begin()));
    else
      expected.push_back(reference::sampling_distribution(row, rows[i])[token] > 0 ? static_cast<double>(token) : -1.0);
    out.push_back(results[i].logprob);
    expected.push_back(std::log(reference::softmax(reference::adjusted_logits(row, rows[i]))[token]));
  }
  return {out, expected};
}

}  // namespace

std::vector<OpCase> op_cases() {
  return {
      {"embedding, gather_rows, add, scatter_rows", run_rows},
      {"rms_norm", [](Context& ctx) { return run_norm(ctx, false); }},
      {"layer_norm", [](Context& ctx) { return run_norm(ctx, true); }},
      {"linear f32", [](Context& ctx) { return run_linear(ctx, DType::kF32); }},
      {"linear bf16", [](Context& ctx) { return run_linear(ctx, DType::kBF16); }},
      {"linear f16", [](Context& ctx) { return run_linear(ctx, DType::kF16); }},
      {"rope_table, rope", run_rope},
      {"kv_append, attention f32 cache", [](Context& ctx) { return run_paged_attention(ctx, DType::kF32, 0); }},
      {"kv_append, attention bf16 cache, window",
       [](Context& ctx) { return run_paged_attention(ctx, DType::kBF16, 20); }},
      {"attention, both directions", run_plain_attention},
      {"router", run_router},
      {"swiglu", run_swiglu},
      {"moe mxfp4", [](Context& ctx) { return run_moe(ctx, true); }},
      {"moe bf16", [](Context& ctx) { return run_moe(ctx, false); }},
      {"gelu erf", [](Context& ctx) { return run_gelu(ctx, ops::Gelu::kErf); }},
      {"gelu tanh", [](Context& ctx) { return run_gelu(ctx, ops::Gelu::kTanh); }},
      {"gelu quick", [](Context& ctx) { return run_gelu(ctx, ops::Gelu::kQuick); }},
      {"patch_embed", run_patches},
      {"prepend_token", run_prepend},
      {"cross_entropy", run_cross_entropy},
      {"sample", run_sample},
  };
}

}  // namespace gov::cli
