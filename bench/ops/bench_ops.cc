// Times every op at the widths of gpt-oss-20b: median milliseconds, GB/s and GFLOP/s by the op's own formula, and the
// share of what the machine was measured to do (the larger of the two shares: the limit that binds).
//
//   bench_ops [--threads N] [--isa baseline|avx2|avx512] [--only TEXT] [--seconds S]
//   bench_ops --device cuda[:N] [--only TEXT] [--json yes]

#include "bench/ops/bench_ops.h"

#include <cmath>
#include <cstdlib>
#include <string_view>

#include "bench/ops/bench_ops_cuda.h"

namespace {

using namespace gov;
using namespace gov::bench;

void bench_linear(Bench& bench, DType dtype) {
  // Enough layers that their weights, read in turn, come from memory as they do in a model.
  constexpr std::int64_t kOut = 4096, kLayers = 8;
  Tensors memory;
  std::vector<Tensor> weights;
  for (int i = 0; i < kLayers; ++i) weights.push_back(memory.random(dtype, {kOut, kHidden}));
  const Tensor bias = memory.random(dtype, {kOut});
  for (const std::int64_t tokens : {1, 4, 64, 512}) {
    const Tensor x = memory.random(DType::kF32, {tokens, kHidden}), out = memory.make(DType::kF32, {tokens, kOut});
    std::size_t layer = 0;
    bench.row(fmt::format("linear {} 2880->4096 x{}", dtype_name(dtype), tokens),
              [&] { ops::linear(bench.ctx, x, weights[layer++ % weights.size()], bias, out); });
  }
}

void bench_moe(Bench& bench) {
  constexpr std::int64_t kExperts = 8, kPerToken = 4;
  Tensors memory;
  const ops::ExpertProjection gate_up = mxfp4_projection(memory, kExperts, 2 * kHidden, kHidden);
  const ops::ExpertProjection down = mxfp4_projection(memory, kExperts, kHidden, kHidden);
  for (const std::int64_t tokens : {1, 4, 64, 512}) {
    const Tensor x = memory.random(DType::kF32, {tokens, kHidden}, 1.f),
                 out = memory.make(DType::kF32, {tokens, kHidden});
    const Tensor indices = memory.make(DType::kI32, {tokens, kPerToken}),
                 weights = memory.random(DType::kF32, {tokens, kPerToken});
    std::int32_t turn = 0;
    bench.row(fmt::format("moe mxfp4 8 experts x{}", tokens), [&] {
      for (std::int64_t i = 0; i < indices.elements();
           ++i) {  // each token four different experts, other ones each time
        indices.as<std::int32_t>()[i] =
            static_cast<std::int32_t>((turn + i % kPerToken + i / kPerToken * 3) % kExperts);
      }
      turn += 4;
      ops::moe(bench.ctx, x, indices, weights, gate_up, down, 1.702f, 7.f, out);
    });
  }
}

void bench_attention(Bench& bench, std::int64_t queries, std::int64_t keys, int window) {
  constexpr std::int64_t kBlock = 16;
  Tensors memory;
  const std::int64_t blocks = (keys + kBlock - 1) / kBlock;
  ops::AttentionArgs args;
  args.q = memory.random(DType::kF32, {queries, kHeads, kHeadDim}, 1.f);
  args.k_cache = memory.random(DType::kBF16, {blocks, kKvHeads, kBlock, kHeadDim}, 1.f);
  args.v_cache = memory.random(DType::kBF16, {blocks, kKvHeads, kBlock, kHeadDim}, 1.f);
  args.cu_seqlens = memory.integers({0, static_cast<std::int32_t>(queries)});
  args.kv_lens = memory.integers({static_cast<std::int32_t>(keys)});
  std::vector<std::int32_t> table(static_cast<std::size_t>(blocks));
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>((i * 7919) % table.size());
  args.block_tables = memory.integers(table).view({1, blocks});
  args.sinks = memory.random(DType::kBF16, {kHeads}, 1.f);
  args.scale = 0.125f;
  args.window = window;
  const Tensor out = memory.make(DType::kF32, {queries, kHeads, kHeadDim});
  bench.row(fmt::format("attention {} queries {} keys{}", queries, keys, window ? " window" : ""),
            [&] { ops::attention(bench.ctx, args, out); });
}

void bench_rows(Bench& bench) {
  Tensors memory;
  for (const std::int64_t tokens : {1, 64}) {
    const Tensor x = memory.random(DType::kF32, {tokens, kHidden}, 1.f),
                 out = memory.make(DType::kF32, {tokens, kHidden});
    const Tensor weight = memory.random(DType::kBF16, {kHidden}),
                 h = memory.random(DType::kF32, {tokens, 2 * kHidden}, 8.f);
    const Tensor router_weight = memory.random(DType::kBF16, {32, kHidden}),
                 router_bias = memory.random(DType::kBF16, {32});
    const Tensor logits = memory.make(DType::kF32, {tokens, 32}), indices = memory.make(DType::kI32, {tokens, 4});
    const Tensor weights = memory.make(DType::kF32, {tokens, 4});
    bench.row(fmt::format("rms_norm 2880 x{}", tokens), [&] { ops::rms_norm(bench.ctx, x, weight, 1e-5f, out); });
    bench.row(fmt::format("layer_norm 2880 x{}", tokens),
              [&] { ops::layer_norm(bench.ctx, x, weight, weight, 1e-5f, out); });
    bench.row(fmt::format("swiglu 2880 x{}", tokens), [&] { ops::swiglu(bench.ctx, h, 1.702f, 7.f, out); });
    bench.row(fmt::format("gelu erf 2880 x{}", tokens), [&] { ops::gelu(bench.ctx, x, ops::Gelu::kErf, out); });
    bench.row(fmt::format("router 32 experts x{}", tokens),
              [&] { ops::router(bench.ctx, x, router_weight, router_bias, {}, {}, logits, indices, weights); });
    const Tensor q = memory.random(DType::kF32, {tokens, kHeads, kHeadDim}, 1.f);
    const Tensor cos = memory.random(DType::kF32, {tokens, kHeadDim / 2}, 1.f);
    bench.row(fmt::format("rope 64 heads x{}", tokens), [&] { ops::rope(bench.ctx, cos, cos, q); });
  }
}

void bench_sample(Bench& bench) {
  constexpr std::int64_t kRows = 8;
  Tensors memory;
  const Tensor source = memory.random(DType::kF32, {kRows, kVocabulary}, 8.f),
               logits = memory.make(DType::kF32, source.shape);
  std::vector<ops::SampleResult> results(kRows);
  const auto run = [&](const char* name, const ops::SamplingParams& params) {
    std::vector<ops::SampleRow> rows(kRows);
    for (auto& row : rows) row.params = params;
    bench.row(fmt::format("sample {} V 201088 x8", name), [&] {
      std::memcpy(logits.data, source.data, source.bytes());
      ops::sample(bench.ctx, logits, rows, results);
    });
  };
  run("greedy", {.temperature = 0});
  run("plain", {});
  run("top_k 40", {.top_k = 40});
  run("top_p 0.9", {.temperature = 0.7f, .top_p = 0.9f});
  run("typical", {.typical_p = 0.9f});
  const Tensor targets = memory.integers(std::vector<std::int32_t>(kRows, 5)),
               losses = memory.make(DType::kF32, {kRows});
  bench.row("cross_entropy V 201088 x8", [&] { ops::cross_entropy(bench.ctx, source, targets, losses); });
}

}  // namespace

int main(int argc, char** argv) {
  Bench bench;
  int threads = 0;
  bool cuda = false;
  CudaBenchOptions cuda_options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view option = argv[i], value = argv[i + 1];
    if (option == "--threads") threads = std::atoi(argv[i + 1]);
    if (option == "--only") bench.only = value;
    if (option == "--device" && value.starts_with("cuda")) {
      cuda = true;
      if (value.size() > 5) cuda_options.ordinal = std::atoi(argv[i + 1] + 5);
    }
    if (option == "--json") cuda_options.json = value == "yes";
    if (option == "--seconds") bench.seconds = std::atof(argv[i + 1]);
    for (const CpuIsa isa : {CpuIsa::kBaseline, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
      if (option == "--isa" && value == cpu_isa_name(isa)) bench.ctx.isa = std::min(isa, cpu_info().best);
    }
  }
  ThreadPool pool(threads);
  bench.ctx.pool = &pool;
  try {
    if (cuda) {
      cuda_options.only = bench.only;
      bench_cuda_ops(cuda_options);
      return 0;
    }
    bench.limits = ops::measure_device_limits(pool, bench.ctx.isa);
    fmt::print("{}, {} threads, {}: {:.1f} GB/s read, {:.1f} GFLOP/s\n", cpu_info().model, pool.size(),
               cpu_isa_name(bench.ctx.isa), bench.limits.read_gbps, bench.limits.fma_gflops);
    for (const DType dtype : {DType::kBF16, DType::kF32, DType::kF16}) bench_linear(bench, dtype);
    bench_moe(bench);
    bench_attention(bench, 1, 8192, 0);
    bench_attention(bench, 1, 8192, 128);
    bench_attention(bench, 512, 512, 0);
    bench_attention(bench, 512, 512, 128);
    bench_rows(bench);
    bench_sample(bench);
    bench_backward(bench);
  } catch (const Error& error) {
    fmt::print(stderr, "bench_ops: {}\n", error.what());
    return 1;
  }
  return 0;
}
