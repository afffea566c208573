// Rows of the derivatives and of the optimizer on a GPU, for full training at the widths of gpt-oss-20b.
#include "bench/ops/bench_cuda.h"
#include "ops/backward.h"

namespace gov {
namespace {

constexpr std::int64_t kHidden = 2880, kHeads = 64, kKvHeads = 8, kHeadDim = 64, kPerToken = 4;
constexpr std::int64_t kQkv = (kHeads + 2 * kKvHeads) * kHeadDim, kTokens = 8192;
constexpr float kEps = 1e-5f, kAlpha = 1.702f, kLimit = 7.f, kScale = 1e-3f;

void bench_products(CudaBench& b) {
  const auto linear = [&](const char* name, std::int64_t in, std::int64_t out, DType dout_type) {
    const Tensor x = b.make(DType::kBF16, {kTokens, in}), weight = b.make(DType::kBF16, {out, in}, 0.05f);
    const Tensor dout = b.make(dout_type, {kTokens, out}, kScale), dx = b.make(DType::kBF16, {kTokens, in});
    const Tensor dweight = b.make(DType::kF32, {out, in}), dbias = b.make(DType::kF32, {out});
    b.row(fmt::format("linear_backward {} x{}", name, kTokens),
          [&](std::size_t) { ops::linear_backward(b.ctx, x, weight, dout, dx, dweight, dbias); });
    b.release();
  };
  linear("2880->5120", kHidden, kQkv, DType::kBF16);
  linear("4096->2880 dout f32", kHeads * kHeadDim, kHidden, DType::kF32);
  const auto head = [&](std::int64_t vocabulary, std::int64_t chunk) {
    const Tensor x = b.make(DType::kBF16, {kTokens, kHidden}),
                 weight = b.make(DType::kBF16, {vocabulary, kHidden}, 0.02f);
    std::vector<std::int32_t> targets;
    for (std::int64_t i = 0; i < kTokens; ++i) targets.push_back(static_cast<std::int32_t>(i * 7919 % vocabulary));
    const Tensor target = b.integers(targets, {kTokens}), row_weights = b.make(DType::kF32, {kTokens}, kScale);
    const Tensor logits = b.make(DType::kF32, {chunk, vocabulary}), losses = b.make(DType::kF32, {kTokens});
    const Tensor dx = b.make(DType::kBF16, {kTokens, kHidden}), dweight = b.make(DType::kF32, {vocabulary, kHidden});
    b.row(fmt::format("linear_cross_entropy V {} x{} by {}", vocabulary, kTokens, chunk), [&](std::size_t) {
      ops::linear_cross_entropy(b.ctx, x, weight, target, row_weights, logits, losses, dx, dweight);
    });
    b.row(fmt::format("linear_cross_entropy V {} x{} by {} loss only", vocabulary, kTokens, chunk), [&](std::size_t) {
      ops::linear_cross_entropy(b.ctx, x, weight, target, row_weights, logits, losses, {}, {});
    });
    b.release();
  };
  head(32'768, 8192);
  head(201'088, 4096);
}

void bench_attention(CudaBench& b, std::int64_t sequences, int window) {
  const std::int64_t rows = kTokens / sequences;
  std::vector<std::int32_t> starts, lengths;
  for (std::int64_t s = 0; s <= sequences; ++s) starts.push_back(static_cast<std::int32_t>(s * rows));
  for (std::int64_t s = 0; s < sequences; ++s) lengths.push_back(static_cast<std::int32_t>(rows));
  ops::AttentionArgs a;
  a.q = b.make(DType::kBF16, {kTokens, kHeads, kHeadDim});
  a.k = b.make(DType::kBF16, {kTokens, kKvHeads, kHeadDim});
  a.v = b.make(DType::kBF16, a.k.shape);
  a.cu_seqlens = b.integers(starts, {sequences + 1});
  a.kv_lens = b.integers(lengths, {sequences});
  a.sinks = b.make(DType::kBF16, {kHeads});
  a.lse = b.make(DType::kF32, {kTokens, kHeads});
  a.scale = 0.125f;
  a.window = window;
  a.max_rows = a.max_keys = rows;
  const Tensor out = b.make(DType::kBF16, a.q.shape), dout = b.make(DType::kBF16, a.q.shape, kScale);
  const Tensor dq = b.make(DType::kBF16, a.q.shape), dk = b.make(DType::kBF16, a.k.shape);
  const Tensor dv = b.make(DType::kBF16, a.k.shape), dsinks = b.make(DType::kF32, {kHeads});
  double pairs = 0;
  for (std::int64_t i = 0; i < rows; ++i)
    pairs += static_cast<double>(window > 0 ? std::min<std::int64_t>(i + 1, window) : i + 1);
  pairs *= static_cast<double>(sequences * kHeads);
  Counters forward, backward;  // two products of a visible pair forward, five backward
  const double vector = static_cast<double>(kTokens) * kHeadDim * 2;
  forward.flops = pairs * kHeadDim * 4;
  forward.bytes = vector * (2 * kHeads + 2 * kKvHeads);
  backward.flops = pairs * kHeadDim * 10;
  backward.bytes = vector * (4 * kHeads + 4 * kKvHeads);
  const std::string name = fmt::format("{} x {}{}", sequences, rows, window ? " window" : "");
  b.row(
      fmt::format("attention {} lse", name), [&](std::size_t) { ops::attention(b.ctx, a, out); }, forward);
  ops::attention(b.ctx, a, out);
  b.row(
      fmt::format("attention_backward {}", name),
      [&](std::size_t) { ops::attention_backward(b.ctx, a, out, dout, dq, dk, dv, dsinks); }, backward);
  b.release();
}

void bench_experts(CudaBench& b, std::int64_t experts, bool mxfp4) {
  const auto projection = [&](std::int64_t out, std::int64_t in) {
    ops::ExpertProjection p;
    if (mxfp4) {
      p.blocks = b.make(DType::kU8, {experts, out, in / 32, 16});
      p.scales = b.make(DType::kU8, {experts, out, in / 32});
      ops::fill_value(b.ctx, p.scales, 120);
      p.moderate_scales = true;
    } else {
      p.weight = b.make(DType::kBF16, {experts, out, in}, 0.02f);
    }
    p.bias = b.make(DType::kBF16, {experts, out});
    return p;
  };
  const ops::ExpertProjection gate_up = projection(2 * kHidden, kHidden), down = projection(kHidden, kHidden);
  // Random choices: experts are not equally full.
  std::vector<std::int32_t> chosen;
  std::uint64_t state = 1;
  for (std::int64_t t = 0; t < kTokens; ++t) {
    std::vector<std::int32_t> own;
    while (static_cast<std::int64_t>(own.size()) < kPerToken) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      const auto e = static_cast<std::int32_t>((state >> 33) % static_cast<std::uint64_t>(experts));
      if (std::find(own.begin(), own.end(), e) == own.end()) own.push_back(e);
    }
    chosen.insert(chosen.end(), own.begin(), own.end());
  }
  const Tensor indices = b.integers(chosen, {kTokens, kPerToken});
  const Tensor x = b.make(DType::kBF16, {kTokens, kHidden}), out = b.make(DType::kF32, {kTokens, kHidden});
  const Tensor weights = b.make(DType::kF32, {kTokens, kPerToken});
  const Tensor h = b.make(DType::kBF16, {kTokens * kPerToken, 2 * kHidden});
  const Tensor dout = b.make(DType::kF32, {kTokens, kHidden}, kScale), dx = b.make(DType::kBF16, {kTokens, kHidden});
  const Tensor dweights = b.make(DType::kF32, {kTokens, kPerToken});
  const std::string name = fmt::format("{} {} experts x{}", mxfp4 ? "mxfp4" : "bf16", experts, kTokens);
  const auto forward = [&](const Tensor& kept) {
    ops::moe_forward(b.ctx, x, indices, weights, gate_up, down, kAlpha, kLimit, out, kept);
  };
  const auto backward = [&](const Tensor& kept, const Tensor& to, const ops::ExpertGradients& up_gradients,
                            const ops::ExpertGradients& down_gradients) {
    ops::moe_backward(b.ctx, x, indices, weights, gate_up, down, kAlpha, kLimit, kept, dout, to, dweights, up_gradients,
                      down_gradients);
  };
  b.row("moe_forward " + name, [&](std::size_t) { forward(h); });
  forward(h);
  b.row("moe_backward frozen " + name, [&](std::size_t) { backward(h, dx, {}, {}); });
  b.row("moe_backward frozen, h again " + name, [&](std::size_t) { backward({}, dx, {}, {}); });
  if (!mxfp4) {
    const ops::ExpertGradients dgate_up{b.make(DType::kF32, {experts, 2 * kHidden, kHidden}),
                                        b.make(DType::kF32, {experts, 2 * kHidden})};
    const ops::ExpertGradients ddown{b.make(DType::kF32, {experts, kHidden, kHidden}),
                                     b.make(DType::kF32, {experts, kHidden})};
    b.row("moe_backward " + name, [&](std::size_t) { backward(h, dx, dgate_up, ddown); });
    b.row("moe_backward overwriting " + name, [&](std::size_t) {
      backward(h, dx, {dgate_up.dweight, dgate_up.dbias, false}, {ddown.dweight, ddown.dbias, false});
    });
    b.row("moe_backward no biases " + name, [&](std::size_t) {
      backward(h, dx, {dgate_up.dweight, {}}, {ddown.dweight, {}});
    });
  }
  b.release();
}

void bench_small(CudaBench& b) {
  constexpr std::int64_t kExperts = 32;
  const Tensor x = b.make(DType::kF32, {kTokens, kHidden}), narrow = b.make(DType::kBF16, {kTokens, kHidden});
  const Tensor dout = b.make(DType::kBF16, {kTokens, kHidden}), dx = b.make(DType::kF32, {kTokens, kHidden});
  const Tensor weight = b.make(DType::kBF16, {kHidden}), dweight = b.make(DType::kF32, {kHidden});
  const Tensor dbias = b.make(DType::kF32, {kHidden});
  const std::string rows = fmt::format(" 2880 x{}", kTokens);
  b.row("rms_norm_backward" + rows,
        [&](std::size_t) { ops::rms_norm_backward(b.ctx, x, weight, kEps, dout, dx, dweight); });
  b.row("layer_norm_backward" + rows,
        [&](std::size_t) { ops::layer_norm_backward(b.ctx, narrow, weight, kEps, dout, dx, dweight, dbias); });
  const Tensor h = b.make(DType::kBF16, {kTokens, 2 * kHidden}), dh = b.make(DType::kBF16, {kTokens, 2 * kHidden});
  b.row("swiglu_backward" + rows, [&](std::size_t) { ops::swiglu_backward(b.ctx, h, kAlpha, kLimit, dout, dh); });
  const Tensor to = b.make(DType::kBF16, {kTokens, kHidden});
  b.row("gelu_backward erf" + rows, [&](std::size_t) { ops::gelu_backward(b.ctx, narrow, ops::Gelu::kErf, dout, to); });
  const Tensor dq = b.make(DType::kBF16, {kTokens, kHeads, kHeadDim});
  const Tensor angles = b.make(DType::kF32, {kTokens, kHeadDim / 2});
  b.row(fmt::format("rope_backward 64 heads x{}", kTokens),
        [&](std::size_t) { ops::rope_backward(b.ctx, angles, angles, dq); });
  const auto ids = [&](std::int64_t distinct) {
    std::vector<std::int32_t> values;
    for (std::int64_t i = 0; i < kTokens; ++i) values.push_back(static_cast<std::int32_t>(i * 7919 % distinct));
    return b.integers(values, {kTokens});
  };
  const Tensor many = ids(32'768), one = ids(1), table = b.make(DType::kF32, {32'768, kHidden});
  b.row("embedding_backward" + rows, [&](std::size_t) { ops::embedding_backward(b.ctx, many, dout, table); });
  b.row("embedding_backward one id" + rows, [&](std::size_t) { ops::embedding_backward(b.ctx, one, dout, table); });
  const Tensor row_numbers = ids(kTokens);
  b.row("gather_rows_backward" + rows, [&](std::size_t) { ops::gather_rows_backward(b.ctx, row_numbers, dout, dx); });

  const Tensor router = b.make(DType::kBF16, {kExperts, kHidden}, 0.02f);
  const Tensor logits = b.make(DType::kF32, {kTokens, kExperts}), weights = b.make(DType::kF32, {kTokens, kPerToken});
  std::vector<std::int32_t> chosen;
  for (std::int64_t t = 0; t < kTokens; ++t)
    for (std::int64_t k = 0; k < kPerToken; ++k)
      chosen.push_back(static_cast<std::int32_t>((t * 5 + k * 8) % kExperts));
  const Tensor indices = b.integers(chosen, {kTokens, kPerToken});
  const Tensor counts = b.make(DType::kF32, {2, kExperts}), sums = b.make(DType::kF32, {2, kExperts});
  const Tensor z = b.make(DType::kF32, {1}), slopes = b.make(DType::kF32, {kExperts});
  b.row(fmt::format("router_load 32 experts x{}", kTokens),
        [&](std::size_t) { ops::router_load(b.ctx, logits, indices, {}, counts, sums, z); });
  const ops::RouterGradients out{b.make(DType::kF32, {kTokens, kExperts}),
                                 dx,
                                 b.make(DType::kF32, router.shape),
                                 b.make(DType::kF32, {kExperts}),
                                 {}};
  b.row(fmt::format("router_backward 32 experts x{}", kTokens), [&](std::size_t) {
    ops::router_backward(b.ctx, narrow, router, {}, logits, indices, weights, weights, slopes, 1e-6f, out);
  });
  b.release();

  const Shape big{32, 2 * kHidden, kHidden};
  const Tensor grad = b.make(DType::kF32, big, kScale), param = b.make(DType::kF32, big), m = b.make(DType::kF32, big);
  const Tensor v = b.make(DType::kF32, big), copy = b.make(DType::kBF16, big), norm = b.make(DType::kF64, {1});
  ops::fill_value(b.ctx, v, 1);
  b.row("adamw 531M", [&](std::size_t) { ops::adamw(b.ctx, {.lr = 1e-5f}, grad, param, m, v, copy); });
  b.row("add_squares 531M", [&](std::size_t) { ops::add_squares(b.ctx, grad, norm); });
  const Tensor blocks = b.make(DType::kU8, {32, 2 * kHidden, kHidden / 32, 16});
  const Tensor scales = b.make(DType::kU8, {32, 2 * kHidden, kHidden / 32});
  b.row("mxfp4_quantize 531M", [&](std::size_t) { ops::mxfp4_quantize(b.ctx, param, blocks, scales); });
  b.release();
}

}  // namespace

void bench_backward_cuda(CudaBench& b) {
  bench_products(b);
  for (const std::int64_t sequences : {1, 2, 8}) bench_attention(b, sequences, 0);
  bench_attention(b, 2, 128);
  bench_experts(b, 8, false);
  bench_experts(b, 32, false);
  bench_experts(b, 32, true);
  bench_small(b);
}

}  // namespace gov
