// Rows of the derivatives, at the widths of gpt-oss-20b.
#include "bench/ops/bench_ops.h"

namespace gov::bench {
namespace {

void bench_products(Bench& bench) {
  constexpr std::int64_t kOut = 4096, kTokens = 512;
  Tensors memory;
  const Tensor x = memory.random(DType::kF32, {kTokens, kHidden}), dx = memory.make(DType::kF32, {kTokens, kHidden});
  const Tensor dout = memory.random(DType::kF32, {kTokens, kOut});
  const Tensor weight = memory.random(DType::kBF16, {kOut, kHidden}), dweight = memory.make(DType::kF32, weight.shape);
  const Tensor dbias = memory.make(DType::kF32, {kOut});
  bench.row("linear_backward dx x512", [&] { ops::linear_backward(bench.ctx, {}, weight, dout, dx, {}, {}); });
  bench.row("linear_backward dweight x512",
            [&] { ops::linear_backward(bench.ctx, x, weight, dout, {}, dweight, dbias); });
}

void bench_moe(Bench& bench) {
  constexpr std::int64_t kExperts = 4, kPerToken = 4, kTokens = 128;
  Tensors memory;
  const ops::ExpertProjection gate_up = mxfp4_projection(memory, kExperts, 2 * kHidden, kHidden);
  const ops::ExpertProjection down = mxfp4_projection(memory, kExperts, kHidden, kHidden);
  const Tensor x = memory.random(DType::kF32, {kTokens, kHidden}, 1.f), dout = memory.random(DType::kF32, x.shape);
  const Tensor dx = memory.make(DType::kF32, x.shape), weights = memory.random(DType::kF32, {kTokens, kPerToken});
  const Tensor dweights = memory.make(DType::kF32, weights.shape), indices = memory.make(DType::kI32, weights.shape);
  const Tensor h = memory.random(DType::kF32, {kTokens * kPerToken, 2 * kHidden}, 4.f);
  for (std::int64_t i = 0; i < indices.elements(); ++i)
    indices.as<std::int32_t>()[i] = static_cast<std::int32_t>(i % kPerToken);
  const auto run = [&](const ops::ExpertGradients& up, const ops::ExpertGradients& low) {
    ops::moe_backward(bench.ctx, x, indices, weights, gate_up, down, 1.702f, 7.f, h, dout, dx, dweights, up, low);
  };
  bench.row("moe_backward mxfp4 dx x128", [&] { run({}, {}); });
  const ops::ExpertGradients up{memory.make(DType::kF32, {kExperts, 2 * kHidden, kHidden}), {}};
  const ops::ExpertGradients low{memory.make(DType::kF32, {kExperts, kHidden, kHidden}), {}};
  bench.row("moe_backward mxfp4 all x128", [&] { run(up, low); });
}

void bench_attention(Bench& bench, int window) {
  constexpr std::int64_t kRows = 512;
  Tensors memory;
  const Shape queries{kRows, kHeads, kHeadDim}, keys{kRows, kKvHeads, kHeadDim};
  ops::AttentionArgs args;
  args.q = memory.random(DType::kF32, queries, 1.f);
  args.k = memory.random(DType::kF32, keys, 1.f);
  args.v = memory.random(DType::kF32, keys, 1.f);
  args.cu_seqlens = memory.integers({0, kRows});
  args.kv_lens = memory.integers({kRows});
  args.sinks = memory.random(DType::kBF16, {kHeads}, 1.f);
  args.lse = memory.make(DType::kF32, {kRows, kHeads});
  args.scale = 0.125f;
  args.window = window;
  const Tensor out = memory.make(DType::kF32, queries), dout = memory.random(DType::kF32, queries, 1.f);
  const Tensor dq = memory.make(DType::kF32, queries), dk = memory.make(DType::kF32, keys),
               dv = memory.make(DType::kF32, keys), dsinks = memory.make(DType::kF32, {kHeads});
  ops::attention(bench.ctx, args, out);
  bench.row(fmt::format("attention_backward 512{}", window ? " window" : ""),
            [&] { ops::attention_backward(bench.ctx, args, out, dout, dq, dk, dv, dsinks); });
}

void bench_rows(Bench& bench) {
  constexpr std::int64_t kTokens = 512, kExperts = 32, kPerToken = 4;
  Tensors memory;
  const Tensor x = memory.random(DType::kF32, {kTokens, kHidden}, 1.f), dout = memory.random(DType::kF32, x.shape);
  const Tensor dx = memory.make(DType::kF32, x.shape), weight = memory.random(DType::kBF16, {kHidden});
  const Tensor dweight = memory.make(DType::kF32, {kHidden}),
               h = memory.random(DType::kF32, {kTokens, 2 * kHidden}, 8.f);
  bench.row("rms_norm_backward 2880 x512",
            [&] { ops::rms_norm_backward(bench.ctx, x, weight, 1e-5f, dout, dx, dweight); });
  bench.row("layer_norm_backward 2880 x512",
            [&] { ops::layer_norm_backward(bench.ctx, x, weight, 1e-5f, dout, dx, dweight, dweight); });
  bench.row("swiglu_backward 2880 x512", [&] { ops::swiglu_backward(bench.ctx, h, 1.702f, 7.f, dout, h); });
  bench.row("gelu_backward erf 2880 x512", [&] { ops::gelu_backward(bench.ctx, x, ops::Gelu::kErf, dout, dx); });
  const Tensor router = memory.random(DType::kBF16, {kExperts, kHidden}),
               drouter = memory.make(DType::kF32, router.shape);
  const Tensor logits = memory.random(DType::kF32, {kTokens, kExperts}),
               dlogits = memory.make(DType::kF32, logits.shape);
  const Tensor weights = memory.random(DType::kF32, {kTokens, kPerToken}),
               indices = memory.make(DType::kI32, weights.shape), slopes = memory.random(DType::kF32, {kExperts});
  bench.row("router_backward 32 experts x512", [&] {
    ops::router_backward(bench.ctx, x, router, {}, logits, indices, weights, weights, slopes, 1e-3f,
                         {dlogits, dx, drouter, {}, {}});
  });
  const Tensor q = memory.random(DType::kF32, {kTokens, kHeads, kHeadDim}, 1.f),
               cos = memory.random(DType::kF32, {kTokens, kHeadDim / 2}, 1.f);
  bench.row("rope_backward 64 heads x512", [&] { ops::rope_backward(bench.ctx, cos, cos, q); });
  const Tensor ids = memory.integers(std::vector<std::int32_t>(kTokens, 7)),
               table = memory.make(DType::kF32, {16, kHidden});
  bench.row("embedding_backward 2880 x512", [&] { ops::embedding_backward(bench.ctx, ids, dout, table); });
}

void bench_head_and_optimizer(Bench& bench) {
  constexpr std::int64_t kRows = 32, kClasses = 32'768, kChunk = 32;
  Tensors memory;
  const Tensor x = memory.random(DType::kF32, {kRows, kHidden}),
               weight = memory.random(DType::kBF16, {kClasses, kHidden});
  const Tensor dx = memory.make(DType::kF32, x.shape), dweight = memory.make(DType::kF32, weight.shape);
  const Tensor logits = memory.make(DType::kF32, {kChunk, kClasses}), losses = memory.make(DType::kF32, {kRows});
  const Tensor targets = memory.integers(std::vector<std::int32_t>(kRows, 5)),
               row_weights = memory.random(DType::kF32, {kRows});
  bench.row("linear_cross_entropy V 32768 x32", [&] {
    ops::linear_cross_entropy(bench.ctx, x, weight, targets, row_weights, logits, losses, dx, dweight);
  });
  const Tensor m = memory.make(DType::kF32, weight.shape), v = memory.make(DType::kF32, weight.shape),
               master = memory.random(DType::kF32, weight.shape);
  bench.row("adamw 94M", [&] { ops::adamw(bench.ctx, {}, dweight, master, m, v, weight); });
  const Tensor sum = memory.make(DType::kF64, {1});
  bench.row("add_squares 94M", [&] { ops::add_squares(bench.ctx, dweight, sum); });
  const Tensor blocks = memory.make(DType::kU8, {kClasses, kHidden / 32, 16}),
               scales = memory.make(DType::kU8, {kClasses, kHidden / 32});
  bench.row("mxfp4_quantize 94M", [&] { ops::mxfp4_quantize(bench.ctx, master, blocks, scales); });
}

}  // namespace

void bench_backward(Bench& bench) {
  bench_products(bench);
  bench_moe(bench);
  bench_attention(bench, 0);
  bench_attention(bench, 128);
  bench_rows(bench);
  bench_head_and_optimizer(bench);
}

}  // namespace gov::bench
