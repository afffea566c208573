// The coarse ops of the decode step against the composition of fine ops that they stand for, on the CPU.
#include "ops/fused.h"

#include "base/mxfp4.h"
#include "tensor/device.h"
#include "tests/ops/harness.h"

namespace gov::test {
namespace {

// A context on the first GPU, and device twins of host tensors.
struct Gpu {
  Gpu() {
    use_cuda_device(0);
    stream = Stream::create();
    ctx = Context(0, stream.get());
  }
  Tensor up(const Tensor& host) {
    buffers.emplace_back(host.bytes(), DeviceKind::kCuda, "a test");
    copy_bytes(buffers.back().data(), DeviceKind::kCuda, host.data, DeviceKind::kCpu, host.bytes(), ctx.stream);
    synchronize(ctx.stream);
    return Tensor(buffers.back().data(), host.dtype, host.shape, host.name, DeviceKind::kCuda);
  }
  // Copies the device's values over the host's.
  void down(const Tensor& device, const Tensor& host) {
    copy_bytes(host.data, DeviceKind::kCpu, device.data, DeviceKind::kCuda, host.bytes(), ctx.stream);
    synchronize(ctx.stream);
  }
  Stream stream;
  Context ctx;
  std::vector<Buffer> buffers;
};

struct Sizes {
  std::int64_t hidden, heads, kv_heads, dim, inner, experts, chosen;
};
void PrintTo(const Sizes& s, std::ostream* out) { *out << "hidden " << s.hidden << ", inner " << s.inner; }

class Fused : public testing::TestWithParam<Sizes> {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no GPU";
    gpu = std::make_unique<Gpu>();
    const Sizes& s = GetParam();
    if (!ops::decode_supported(gpu->ctx, {s.hidden, s.heads, s.kv_heads, s.dim, s.inner, s.experts, s.chosen}))
      GTEST_SKIP() << "the fused kernels need compute capability 9.0";
  }
  ops::ExpertProjection projection(std::int64_t out, std::int64_t in) {
    const Sizes& s = GetParam();
    ops::ExpertProjection p;
    std::vector<std::uint8_t> blocks(std::size_t(s.experts * out * in / 2)),
        scales(std::size_t(s.experts * out * in / 32));
    for (auto& b : blocks) b = std::uint8_t(memory.random.below(256));
    for (auto& b : scales) b = std::uint8_t(117 + memory.random.below(8));
    p.blocks = memory.bytes(blocks, {s.experts, out, in / 32, 16});
    p.scales = memory.bytes(scales, {s.experts, out, in / 32});
    p.bias = memory.normal(DType::kBF16, {s.experts, out});
    p.moderate_scales = true;
    return p;
  }
  ops::ExpertProjection up(const ops::ExpertProjection& p) {
    ops::ExpertProjection d = p;
    d.blocks = gpu->up(p.blocks);
    d.scales = gpu->up(p.scales);
    d.bias = gpu->up(p.bias);
    return d;
  }
  std::unique_ptr<Gpu> gpu;
  TestContext cpu;
  Memory memory{3};
};

// Sums of n terms whose vector has 24, 22 or 16 exact bits.
Tolerance fused_tolerance(const Doubles& want, std::int64_t terms, double vector_error) {
  const double relative = 8 * kEps * std::sqrt(double(terms)) + vector_error;
  return {relative, 6 * relative * norm(want) / std::sqrt(double(want.size())) + 1e-7};
}

TEST_P(Fused, QkvRotatesAndAppends) {
  const Sizes& s = GetParam();
  const std::int64_t rows = (s.heads + 2 * s.kv_heads) * s.dim, block = 16, blocks = 4;
  const Tensor x = memory.normal(DType::kF32, {1, s.hidden}, 3), gain = memory.normal(DType::kBF16, {s.hidden}, 0.2, 1);
  const Tensor weight = memory.normal(DType::kBF16, {rows, s.hidden}, 0.05), bias = memory.normal(DType::kBF16, {rows});
  const Tensor positions = memory.ints({77}), inv_freq = memory.normal(DType::kF32, {s.dim / 2});
  const Tensor cos = memory.make(DType::kF32, {1, s.dim / 2}), sin = memory.make(DType::kF32, {1, s.dim / 2});
  ops::rope_table(cpu.ctx, positions, inv_freq, 1.25f, cos, sin);
  for (const bool rotate : {true, false}) {
    for (const DType cache : {DType::kF32, DType::kBF16}) {
      const Tensor n = memory.make(DType::kF32, {1, s.hidden}), qkv = memory.make(DType::kF32, {1, rows});
      ops::rms_norm(cpu.ctx, x, gain, 1e-5f, n);
      ops::linear(cpu.ctx, n, weight, bias, qkv);
      const Tensor all = qkv.view({rows / s.dim, s.dim});
      const Tensor q = all.slice(0, s.heads).view({1, s.heads, s.dim});
      const Tensor k = all.slice(s.heads, s.kv_heads).view({1, s.kv_heads, s.dim});
      const Tensor v = all.slice(s.heads + s.kv_heads, s.kv_heads).view({1, s.kv_heads, s.dim});
      if (rotate) {
        ops::rope(cpu.ctx, cos, sin, q);
        ops::rope(cpu.ctx, cos, sin, k);
      }
      const Tensor k_cache = memory.zeros(cache, {blocks, s.kv_heads, block, s.dim});
      const Tensor v_cache = memory.zeros(cache, {blocks, s.kv_heads, block, s.dim});
      const Tensor slots = memory.longs({37});
      const Tensor dk = gpu->up(k_cache), dv = gpu->up(v_cache), dq = gpu->up(memory.make(DType::kF32, q.shape));
      ops::kv_append(cpu.ctx, k, v, slots, k_cache, v_cache);
      const ops::DecodeMatrix m{gpu->up(weight), {}, gpu->up(bias)};
      ops::decode_qkv(gpu->ctx, gpu->up(x), gpu->up(gain), 1e-5f, m, rotate ? gpu->up(cos) : Tensor(),
                      rotate ? gpu->up(sin) : Tensor(), gpu->up(slots), dq, dk, dv);
      const Doubles want_q = values(q), want_k = values(k_cache), want_v = values(v_cache);
      const Tensor got_q = memory.make(DType::kF32, q.shape), got_k = memory.make(cache, k_cache.shape),
                   got_v = memory.make(cache, k_cache.shape);
      gpu->down(dq, got_q);
      gpu->down(dk, got_k);
      gpu->down(dv, got_v);
      EXPECT_TRUE(close(values(got_q), want_q, fused_tolerance(want_q, s.hidden, 0)));
      const double rounding = cache == DType::kBF16 ? 0x1p-8 : 0;  // a value beside a tie may round the other way
      const double largest_k = largest(want_k), largest_v = largest(want_v);
      EXPECT_TRUE(close(values(got_k), want_k, {1e-6 + rounding / 8, 1e-5 + rounding * largest_k}));
      EXPECT_TRUE(close(values(got_v), want_v, {1e-6 + rounding / 8, 1e-5 + rounding * largest_v}));
    }
  }
}

TEST_P(Fused, OutAddsToTheResidual) {
  const Sizes& s = GetParam();
  const std::int64_t in = s.heads * s.dim;
  const Tensor attended = memory.normal(DType::kF32, {1, in}), x = memory.normal(DType::kF32, {1, s.hidden}, 3);
  const Tensor weight = memory.normal(DType::kBF16, {s.hidden, in}, 0.05),
               bias = memory.normal(DType::kBF16, {s.hidden});
  const Tensor dx = gpu->up(x);
  ops::decode_out(gpu->ctx, gpu->up(attended), {gpu->up(weight), {}, gpu->up(bias)}, dx);
  ops::linear(cpu.ctx, attended, weight, bias, x, /*accumulate=*/true);
  const Tensor got = memory.make(DType::kF32, x.shape);
  gpu->down(dx, got);
  EXPECT_TRUE(close(values(got), values(x), fused_tolerance(values(x), in, 0)));
}

TEST_P(Fused, HeadInBothForms) {
  const Sizes& s = GetParam();
  const std::int64_t vocabulary = 4 * 16 * 150 + 16;
  const Tensor x = memory.normal(DType::kF32, {1, s.hidden}, 3), gain = memory.normal(DType::kBF16, {s.hidden}, 0.2, 1);
  const Tensor weight = memory.normal(DType::kBF16, {vocabulary, s.hidden}, 0.05);
  const Tensor n = memory.make(DType::kF32, {1, s.hidden}), want = memory.make(DType::kF32, {1, vocabulary});
  ops::rms_norm(cpu.ctx, x, gain, 1e-5f, n);
  ops::linear(cpu.ctx, n, weight, {}, want);
  const Tensor dx = gpu->up(x), dgain = gpu->up(gain), dweight = gpu->up(weight);
  const Tensor got = memory.make(DType::kF32, want.shape), dlogits = gpu->up(got);
  ops::decode_head(gpu->ctx, dx, dgain, 1e-5f, {dweight, {}, {}}, dlogits);
  gpu->down(dlogits, got);
  EXPECT_TRUE(close(values(got), values(want), fused_tolerance(values(want), s.hidden, 0)));

  // Eight bits: the same as a dense product with the rounded weights.
  const Tensor bytes = memory.make(DType::kI8, weight.shape), scales = memory.make(DType::kF32, {vocabulary});
  const Tensor dbytes = gpu->up(bytes), dscales = gpu->up(scales);
  ops::quantise_rows(gpu->ctx, dweight, dbytes, dscales);
  gpu->down(dbytes, bytes);
  gpu->down(dscales, scales);
  const Tensor rounded = memory.make(DType::kF32, weight.shape);
  const Doubles exact = values(weight);
  for (std::int64_t r = 0; r < vocabulary; ++r) {
    for (std::int64_t i = r * s.hidden; i < (r + 1) * s.hidden; ++i) {
      const double step = double(scales.as<float>()[r]);
      rounded.as<float>()[i] = float(bytes.as<std::int8_t>()[i] * step);
      ASSERT_LE(std::fabs(double(rounded.as<float>()[i]) - exact[std::size_t(i)]), 0.501 * step) << r << " " << i;
    }
  }
  ops::linear(cpu.ctx, n, rounded, {}, want);
  ops::decode_head(gpu->ctx, dx, dgain, 1e-5f, {dbytes, dscales, {}}, dlogits);
  gpu->down(dlogits, got);
  EXPECT_TRUE(close(values(got), values(want), fused_tolerance(values(want), s.hidden, 0x1p-20)));
}

TEST_P(Fused, RouterChoosesTheSameExperts) {
  const Sizes& s = GetParam();
  const Tensor x = memory.normal(DType::kF32, {1, s.hidden}, 3), gain = memory.normal(DType::kBF16, {s.hidden}, 0.2, 1);
  const Tensor weight = memory.normal(DType::kBF16, {s.experts, s.hidden}, 0.05),
               bias = memory.normal(DType::kBF16, {s.experts}), vision = memory.normal(DType::kBF16, {s.experts}, 3);
  const Tensor n = memory.make(DType::kF32, x.shape), logits = memory.make(DType::kF32, {1, s.experts}),
               indices = memory.make(DType::kI32, {1, s.chosen}), weights = memory.make(DType::kF32, {1, s.chosen});
  const Tensor dlogits = gpu->up(logits), dindices = gpu->up(indices), dweights = gpu->up(weights);
  const Tensor ticket = gpu->up(memory.zeros(DType::kI32, {1})), dweight = gpu->up(weight);
  ops::rms_norm(cpu.ctx, x, gain, 1e-5f, n);
  for (const std::uint8_t image : {std::uint8_t{0}, std::uint8_t{1}}) {
    const Tensor modality = memory.bytes({image}, {1});
    for (int run = 0; run < 2; ++run) {  // the ticket is free again
      ops::router(cpu.ctx, n, weight, bias, vision, modality, logits, indices, weights);
      const Doubles want = values(logits), want_weights = values(weights);
      const auto want_indices = ints_of(indices);
      ops::decode_router(gpu->ctx, gpu->up(x), gpu->up(gain), 1e-5f, dweight, gpu->up(bias), gpu->up(vision),
                         gpu->up(modality), dlogits, dindices, dweights, ticket);
      gpu->down(dlogits, logits);
      gpu->down(dindices, indices);
      gpu->down(dweights, weights);
      EXPECT_TRUE(close(values(logits), want, fused_tolerance(want, s.hidden, 0)));
      EXPECT_EQ(ints_of(indices), want_indices);
      EXPECT_TRUE(close(values(weights), want_weights, {1e-5, 1e-5}));
    }
  }
}

TEST_P(Fused, ExpertsOfOneToken) {
  const Sizes& s = GetParam();
  const Tensor x = memory.normal(DType::kF32, {1, s.hidden}, 3), gain = memory.normal(DType::kBF16, {s.hidden}, 0.2, 1);
  const ops::ExpertProjection gate_up = projection(2 * s.inner, s.hidden), down = projection(s.hidden, s.inner);
  std::vector<std::int32_t> chosen;
  for (std::int64_t k = 0; k < s.chosen; ++k) chosen.push_back(std::int32_t((k * 2 + 1) % s.experts));
  const Tensor indices = memory.ints(chosen, {1, s.chosen});
  Doubles shares(std::size_t(s.chosen), 0.0);
  for (std::size_t k = 0; k < shares.size(); ++k) shares[k] = 0.1 + 0.15 * double(k);
  const Tensor weights = memory.floats(shares, {1, s.chosen});
  const Tensor n = memory.make(DType::kF32, x.shape), dx = gpu->up(x);
  ops::rms_norm(cpu.ctx, x, gain, 1e-5f, n);
  const Doubles before = values(x);
  ops::moe(cpu.ctx, n, indices, weights, gate_up, down, 1.702f, 7.f, x);
  const Tensor h = memory.make(DType::kI8, {s.chosen, 3, s.inner}), dh = gpu->up(h);
  const Tensor dindices = gpu->up(indices), dweights = gpu->up(weights);
  const ops::ExpertProjection dgate_up = up(gate_up), ddown = up(down);
  Doubles first;
  for (int run = 0; run < 2; ++run) {
    if (run == 1)
      copy_bytes(dx.data, DeviceKind::kCuda, memory.floats(before, x.shape).data, DeviceKind::kCpu, x.bytes(),
                 gpu->ctx.stream);
    ops::decode_gate_up(gpu->ctx, dx, gpu->up(gain), 1e-5f, dindices, dgate_up, 1.702f, 7.f, dh);
    ops::decode_down(gpu->ctx, dh, dindices, dweights, ddown, 1.702f, 7.f, dx);
    const Tensor got = memory.make(DType::kF32, x.shape);
    gpu->down(dx, got);
    Doubles change = values(got), want = values(x);
    for (std::size_t i = 0; i < change.size(); ++i) {
      change[i] -= before[i];
      want[i] -= before[i];
    }
    EXPECT_TRUE(close(change, want, fused_tolerance(want, s.hidden, 0x1p-18)));
    if (run == 0) first = values(got);
    else EXPECT_TRUE(same_bits(values(got), first));
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Fused,
                         testing::Values(Sizes{2880, 64, 8, 64, 2880, 8, 4}, Sizes{192, 6, 2, 32, 128, 5, 3},
                                         Sizes{1024, 16, 2, 128, 448, 130, 8}, Sizes{64, 4, 4, 16, 64, 1, 1}));

}  // namespace
}  // namespace gov::test
