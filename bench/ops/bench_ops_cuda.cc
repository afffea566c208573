#include "bench/ops/bench_ops_cuda.h"

#include <algorithm>
#include <vector>

#include "bench/ops/bench_cuda.h"
#include "ops/fused.h"
#include "ops/sample_device.h"
#include "tensor/device.h"

namespace gov {
namespace {

constexpr std::int64_t kHidden = 2880, kHeads = 64, kKvHeads = 8, kHeadDim = 64, kVocabulary = 201'088;
constexpr std::int64_t kQkv = (kHeads + 2 * kKvHeads) * kHeadDim, kExperts = 32, kPerToken = 4;
constexpr float kEps = 1e-5f, kAlpha = 1.702f, kLimit = 7.f;

// Weights of so many layers that they come from memory, not from the cache, when they are read in turn.
std::vector<Tensor> layers(CudaBench& b, DType dtype, Shape shape, std::size_t count = 8) {
  std::vector<Tensor> all;
  for (std::size_t i = 0; i < count; ++i) all.push_back(b.make(dtype, shape, 0.05f));
  return all;
}

void bench_linear(CudaBench& b) {
  const auto weights = layers(b, DType::kBF16, {kQkv, kHidden});
  const Tensor bias = b.make(DType::kBF16, {kQkv});
  for (const std::int64_t tokens : {1, 8, 64, 256, 2048, 8192}) {
    const Tensor x = b.make(DType::kBF16, {tokens, kHidden}), out = b.make(DType::kBF16, {tokens, kQkv});
    b.row(fmt::format("linear bf16 2880->5120 x{}", tokens),
          [&](std::size_t i) { ops::linear(b.ctx, x, weights[i % weights.size()], bias, out); });
  }
  const auto wide = layers(b, DType::kF32, {1024, kHidden});
  const Tensor x = b.make(DType::kF32, {256, kHidden}), out = b.make(DType::kF32, {256, 1024});
  b.row("linear f32 2880->1024 x256", [&](std::size_t i) { ops::linear(b.ctx, x, wide[i % wide.size()], {}, out); });
  b.release();
}

ops::ExpertProjection experts(CudaBench& b, std::int64_t out, std::int64_t in) {
  ops::ExpertProjection p;
  p.blocks = b.make(DType::kU8, {kExperts, out, in / 32, 16});
  p.scales = b.make(DType::kU8, {kExperts, out, in / 32});
  ops::fill_value(b.ctx, p.scales, 120);
  p.bias = b.make(DType::kBF16, {kExperts, out});
  p.moderate_scales = true;
  return p;
}

// Every token four different experts, all experts equally often.
Tensor spread_indices(CudaBench& b, std::int64_t tokens, std::int64_t first) {
  std::vector<std::int32_t> values;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t k = 0; k < kPerToken; ++k)
      values.push_back(static_cast<std::int32_t>((first + t * 5 + k * 8) % kExperts));
  }
  return b.integers(values, {tokens, kPerToken});
}

void bench_moe(CudaBench& b) {
  const ops::ExpertProjection gate_up = experts(b, 2 * kHidden, kHidden), down = experts(b, kHidden, kHidden);
  for (const std::int64_t tokens : {1, 8, 64, 256, 2048, 8192}) {
    const Tensor x = b.make(DType::kBF16, {tokens, kHidden}), out = b.make(DType::kF32, {tokens, kHidden});
    const Tensor weights = b.make(DType::kF32, {tokens, kPerToken});
    std::vector<Tensor> indices;
    for (std::int64_t i = 0; i < 8; ++i) indices.push_back(spread_indices(b, tokens, i));
    b.row(fmt::format("moe mxfp4 32 experts x{}", tokens), [&](std::size_t i) {
      ops::moe(b.ctx, x, indices[i % indices.size()], weights, gate_up, down, kAlpha, kLimit, out);
    });
  }
  b.release();
}

void bench_attention(CudaBench& b, std::int64_t sequences, std::int64_t queries, std::int64_t keys, int window) {
  constexpr std::int64_t kBlock = 64;
  const std::int64_t per = (keys + kBlock - 1) / kBlock, blocks = sequences * per;
  std::vector<std::int32_t> starts, lengths, table;
  for (std::int64_t s = 0; s <= sequences; ++s) starts.push_back(static_cast<std::int32_t>(s * queries));
  for (std::int64_t s = 0; s < sequences; ++s) lengths.push_back(static_cast<std::int32_t>(keys));
  for (std::int64_t i = 0; i < blocks; ++i) table.push_back(static_cast<std::int32_t>(i * 7919 % blocks));
  ops::AttentionArgs a;
  a.q = b.make(DType::kBF16, {sequences * queries, kHeads, kHeadDim});
  a.k_cache = b.make(DType::kBF16, {blocks, kKvHeads, kBlock, kHeadDim});
  a.v_cache = b.make(DType::kBF16, {blocks, kKvHeads, kBlock, kHeadDim});
  a.cu_seqlens = b.integers(starts, {sequences + 1});
  a.kv_lens = b.integers(lengths, {sequences});
  a.block_tables = b.integers(table, {sequences, per});
  a.sinks = b.make(DType::kBF16, {kHeads});
  a.scale = 0.125f;
  a.window = window;
  a.max_rows = queries;
  a.max_keys = keys;
  const Tensor out = b.make(DType::kBF16, a.q.shape);
  // Keys and values that any row sees, once; rows and results; two products for each visible pair.
  double pairs = 0;
  for (std::int64_t i = 0; i < queries; ++i) {
    const std::int64_t seen = keys - queries + i + 1;
    pairs += static_cast<double>(window > 0 ? std::min<std::int64_t>(seen, window) : seen);
  }
  const auto read = static_cast<double>(window > 0 ? std::min(keys, queries + window - 1) : keys);
  const auto rows = static_cast<double>(sequences);
  Counters once;
  once.bytes = rows * (read * 2 * kKvHeads + static_cast<double>(queries) * 2 * kHeads) * kHeadDim * 2;
  once.flops = rows * pairs * kHeads * kHeadDim * 4;
  b.row(
      fmt::format("attention {} x {} queries {} keys{}", sequences, queries, keys, window ? " window" : ""),
      [&](std::size_t) { ops::attention(b.ctx, a, out); }, once);
  b.release();
}

void bench_rows(CudaBench& b) {
  for (const std::int64_t tokens : {1, 64, 2048}) {
    const Tensor x = b.make(DType::kBF16, {tokens, kHidden}), out = b.make(DType::kBF16, {tokens, kHidden});
    const Tensor residual = b.make(DType::kF32, {tokens, kHidden}), h = b.make(DType::kBF16, {tokens, 2 * kHidden});
    const Tensor weight = b.make(DType::kBF16, {kHidden}), table = b.make(DType::kBF16, {kVocabulary, kHidden});
    const Tensor ids = b.make(DType::kI32, {tokens});
    b.row(fmt::format("embedding 2880 x{}", tokens), [&](std::size_t) { ops::embedding(b.ctx, table, ids, residual); });
    b.row(fmt::format("rms_norm 2880 x{}", tokens),
          [&](std::size_t) { ops::rms_norm(b.ctx, residual, weight, kEps, out); });
    b.row(fmt::format("layer_norm 2880 x{}", tokens),
          [&](std::size_t) { ops::layer_norm(b.ctx, x, weight, weight, kEps, out); });
    b.row(fmt::format("swiglu 2880 x{}", tokens), [&](std::size_t) { ops::swiglu(b.ctx, h, kAlpha, kLimit, out); });
    b.row(fmt::format("gelu erf 2880 x{}", tokens), [&](std::size_t) { ops::gelu(b.ctx, x, ops::Gelu::kErf, out); });
    const Tensor router_weight = b.make(DType::kBF16, {kExperts, kHidden}), bias = b.make(DType::kBF16, {kExperts});
    const Tensor logits = b.make(DType::kF32, {tokens, kExperts}), indices = b.make(DType::kI32, {tokens, kPerToken});
    const Tensor weights = b.make(DType::kF32, {tokens, kPerToken});
    b.row(fmt::format("router 32 experts x{}", tokens),
          [&](std::size_t) { ops::router(b.ctx, x, router_weight, bias, {}, {}, logits, indices, weights); });
    const Tensor qkv = b.make(DType::kBF16, {tokens, kQkv}), q = b.make(DType::kBF16, {tokens, kHeads, kHeadDim});
    const Tensor angles = b.make(DType::kF32, {tokens, kHeadDim / 2}), slots = b.make(DType::kI64, {tokens});
    const Tensor keys = b.make(DType::kBF16, {64, kKvHeads, 64, kHeadDim}), values = b.make(DType::kBF16, keys.shape);
    b.row(fmt::format("qkv_rope_append x{}", tokens),
          [&](std::size_t) { ops::qkv_rope_append(b.ctx, qkv, angles, angles, slots, q, keys, values); });
    b.release();
  }
}

void bench_sample(CudaBench& b) {
  for (const std::int64_t count : {1, 64}) {
    const Tensor logits = b.make(DType::kF32, {count, kVocabulary}, 3.f), tokens = b.make(DType::kI32, {count});
    const auto run = [&](const char* name, const ops::SamplingParams& params) {
      std::vector<ops::SampleRow> rows(static_cast<std::size_t>(count));
      for (auto& row : rows) row.params = params;
      ops::DeviceSampler sampler;
      sampler.upload(b.ctx, rows);
      synchronize(b.ctx.stream);
      b.row(fmt::format("sample {} V 201088 x{}", name, count),
            [&](std::size_t) { sampler.launch(b.ctx, logits, tokens); });
    };
    run("greedy", {.temperature = 0});
    run("plain", {});
    run("top_k 40", {.top_k = 40});
    run("top_p 0.9", {.temperature = 0.7f, .top_p = 0.9f});
    run("min_p 0.05", {.min_p = 0.05f});
    run("typical", {.typical_p = 0.9f});
    b.release();
  }
}

// The stages of one sequence's decode step.
void bench_fused(CudaBench& b) {
  if (!ops::decode_supported(b.ctx, {kHidden, kHeads, kKvHeads, kHeadDim, kHidden, kExperts, kPerToken})) return;
  const Tensor x = b.make(DType::kF32, {1, kHidden}), norm = b.make(DType::kBF16, {kHidden});
  const Tensor q = b.make(DType::kF32, {1, kHeads, kHeadDim}), angles = b.make(DType::kF32, {1, kHeadDim / 2});
  const Tensor slots = b.make(DType::kI64, {1});
  const Tensor keys = b.make(DType::kBF16, {4, kKvHeads, 64, kHeadDim}), values = b.make(DType::kBF16, keys.shape);
  const Tensor attended = b.make(DType::kF32, {1, kHeads * kHeadDim}), logits = b.make(DType::kF32, {1, kVocabulary});
  const Tensor h = b.make(DType::kI8, {kPerToken, 3, kHidden}), ticket = b.make(DType::kI32, {1});
  const Tensor router = b.make(DType::kBF16, {kExperts, kHidden}, 0.02f), bias = b.make(DType::kBF16, {kExperts});
  const Tensor scores = b.make(DType::kF32, {1, kExperts}), chosen = b.make(DType::kI32, {1, kPerToken}),
               weights = b.make(DType::kF32, {1, kPerToken});
  const auto matrices = [&](std::int64_t out, std::int64_t in, std::size_t count, bool eight_bit) {
    std::vector<ops::DecodeMatrix> all;
    for (const Tensor& w : layers(b, DType::kBF16, {out, in}, count)) {
      ops::DecodeMatrix m{w, {}, out == kVocabulary ? Tensor() : b.make(DType::kBF16, {out})};
      if (eight_bit) {
        m.weight = b.make(DType::kI8, {out, in});
        m.scales = b.make(DType::kF32, {out});
        ops::quantise_rows(b.ctx, w, m.weight, m.scales);
      }
      all.push_back(m);
    }
    return all;
  };
  for (const bool eight_bit : {false, true}) {
    const char* form = eight_bit ? "int8" : "bf16";
    const auto qkv = matrices(kQkv, kHidden, 8, eight_bit), o = matrices(kHidden, kHeads * kHeadDim, 8, eight_bit);
    const auto head = matrices(kVocabulary, kHidden, 1, eight_bit);
    b.row(fmt::format("decode_qkv {}", form), [&](std::size_t i) {
      ops::decode_qkv(b.ctx, x, norm, kEps, qkv[i % qkv.size()], angles, angles, slots, q, keys, values);
    });
    b.row(fmt::format("decode_out {}", form),
          [&](std::size_t i) { ops::decode_out(b.ctx, attended, o[i % o.size()], x); });
    b.row(fmt::format("decode_head {}", form),
          [&](std::size_t) { ops::decode_head(b.ctx, x, norm, kEps, head[0], logits); });
  }
  b.row("decode_router", [&](std::size_t) {
    ops::decode_router(b.ctx, x, norm, kEps, router, bias, {}, {}, scores, chosen, weights, ticket);
  });
  const ops::ExpertProjection gate_up = experts(b, 2 * kHidden, kHidden), down = experts(b, kHidden, kHidden);
  std::vector<Tensor> indices;
  for (std::int64_t i = 0; i < 8; ++i) indices.push_back(spread_indices(b, 1, i));
  // These two follow each other by contract; the second is their sum less the first.
  const auto both = [&](std::size_t i, bool also_down) {
    const Tensor& at = indices[i % indices.size()];
    ops::decode_gate_up(b.ctx, x, norm, kEps, at, gate_up, kAlpha, kLimit, h);
    if (also_down) ops::decode_down(b.ctx, h, at, weights, down, kAlpha, kLimit, x);
  };
  b.row("decode_gate_up", [&](std::size_t i) { both(i, false); });
  b.row("decode_gate_up and decode_down", [&](std::size_t i) { both(i, true); });
  b.release();
}

}  // namespace

void bench_cuda_ops(const CudaBenchOptions& options) {
  use_cuda_device(options.ordinal);
  const Stream stream = Stream::create();
  CudaBench b(options, stream.get());
  b.limits = ops::measure_cuda_limits(b.ctx);
  if (!options.json) {
    fmt::print("{}: {:.1f} GB/s read, {:.1f} GFLOP/s bf16\n", cuda_device_info(options.ordinal).name,
               b.limits.read_gbps, b.limits.fma_gflops);
  }
  bench_linear(b);
  bench_moe(b);
  bench_attention(b, 1, 1, 8192, 0);
  bench_attention(b, 1, 1, 131'072, 0);
  bench_attention(b, 64, 1, 1024, 0);
  bench_attention(b, 256, 1, 1024, 0);
  bench_attention(b, 64, 1, 1024, 128);
  bench_attention(b, 1, 2048, 2048, 0);
  bench_attention(b, 1, 2048, 2048, 128);
  bench_attention(b, 1, 4096, 32'768, 0);
  bench_rows(b);
  bench_sample(b);
  bench_fused(b);
  bench_backward_cuda(b);
}

}  // namespace gov
