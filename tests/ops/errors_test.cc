// Wrong shapes, dtypes, devices and values are refused with the op's and the tensor's name; cancellation stops at the
// next op.
#include "tensor/device.h"
#include "tests/ops/attention_setup.h"
#include "tests/ops/expert_setup.h"

namespace gov::test {
namespace {

class OpErrors : public testing::Test {
 protected:
  // Runs `call` and expects an Error of `code` whose message holds all of `words`.
  template <class Call>
  void refused(Call&& call, std::initializer_list<const char*> words, ErrorCode code = ErrorCode::kInvalidArgument) {
    try {
      call();
      ADD_FAILURE() << "accepted: " << *words.begin();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      for (const char* word : words) EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    }
  }
  Tensor f32(Shape shape) { return memory.normal(DType::kF32, shape); }
  TestContext test;
  Context& ctx = test.ctx;
  Memory memory;
};

TEST_F(OpErrors, ShapesAndTypes) {
  const Tensor x = f32({3, 8}), w = f32({5, 8}), out = f32({3, 5}), half = memory.normal(DType::kF16, {3, 8});
  refused([&] { ops::linear(ctx, x, f32({5, 7}), {}, out); }, {"linear", "weight", "[5, 8]", "[5, 7]"});
  refused([&] { ops::linear(ctx, x, w, f32({4}), out); }, {"linear", "bias"});
  refused([&] { ops::linear(ctx, x, w, {}, f32({3, 6})); }, {"linear", "out"});
  refused([&] { ops::linear(ctx, half, w, {}, out); }, {"linear", "x", "f32", "f16"});
  refused(
      [&] {
        ops::linear(ctx, x, memory.ints(std::vector<std::int32_t>(40), {5, 8}), {}, out);
      },
      {"linear", "weight", "i32"});
  refused([&] { ops::linear(ctx, x.view({3, 8, 1}), w, {}, out); }, {"linear", "x", "2 axes"});
  refused([&] { ops::rms_norm(ctx, x, f32({7}), 1e-5f, x); }, {"rms_norm", "weight"});
  refused([&] { ops::layer_norm(ctx, x, f32({8}), f32({9}), 1e-5f, x); }, {"layer_norm", "bias"});
  refused([&] { ops::swiglu(ctx, f32({3, 9}), 1.7f, 7.f, f32({3, 4})); }, {"swiglu", "h"});
  refused([&] { ops::gelu(ctx, x, ops::Gelu::kErf, f32({3, 9})); }, {"gelu", "out"});
  refused([&] { ops::add(ctx, x, f32({8, 3})); }, {"add", "out"});
  refused([&] { ops::rope(ctx, f32({3, 2}), f32({3, 2}), f32({3, 2, 5})); }, {"rope", "modulo 2"});
  refused([&] { ops::rope(ctx, f32({3, 2}), f32({3, 3}), f32({3, 2, 4})); }, {"rope", "sin"});
  refused(
      [&] {
        ops::rope_table(ctx, memory.ints({1}), f32({2}), 1, f32({1, 2}), f32({1, 3}));
      },
      {"rope_table", "sin"});
  refused(
      [&] {
        ops::patch_embed(ctx, f32({1, 3, 8, 8}), f32({4, 3, 2, 3}), {}, f32({1, 16, 4}));
      },
      {"patch_embed", "weight"});
  refused([&] { ops::cross_entropy(ctx, x, memory.ints({1, 2}), f32({3})); }, {"cross_entropy", "targets"});
}

TEST_F(OpErrors, IndicesOutOfRange) {
  const Tensor table = f32({10, 4}), out = f32({2, 4});
  refused([&] { ops::embedding(ctx, table, memory.ints({1, 10}), out); }, {"embedding", "10"});
  refused([&] { ops::embedding(ctx, table, memory.ints({-1, 1}), out); }, {"embedding", "-1"});
  refused([&] { ops::gather_rows(ctx, table, memory.ints({1, 11}), out); }, {"gather_rows", "11"});
  refused([&] { ops::scatter_rows(ctx, out, memory.ints({1, -3}), table); }, {"scatter_rows", "-3"});
  refused([&] { ops::cross_entropy(ctx, table, memory.ints(std::vector<std::int32_t>(10, 4)), f32({10})); },
          {"cross_entropy", "4"});
  const Tensor k = f32({1, 2, 4}), cache = f32({3, 2, 8, 4}), other = f32({3, 2, 8, 4});
  refused([&] { ops::kv_append(ctx, k, k, memory.longs({24}), cache, other); }, {"kv_append", "24"});
  refused([&] { ops::kv_append(ctx, k, k, memory.longs({0}), cache, memory.normal(DType::kBF16, cache.shape)); },
          {"kv_append", "v_cache"});
  refused([&] { ops::kv_append(ctx, k, k, memory.longs({0}), cache, cache); }, {"kv_append", "overlaps"});
}

TEST_F(OpErrors, DevicesAliasesAndEmptyTensors) {
  Tensor x = f32({3, 8}), w = f32({5, 8}), out = f32({3, 5});
  refused([&] { ops::linear(ctx, x, w, {}, x.view({3, 8}).slice(0, 3)); }, {"linear", "out"});
  const Tensor big = f32({6, 8});
  refused([&] { ops::linear(ctx, big.slice(0, 3), f32({8, 8}), {}, big.slice(2, 3)); }, {"linear", "overlaps x"});
  refused([&] { ops::rms_norm(ctx, big.slice(0, 3), f32({8}), 1e-5f, big.slice(1, 3)); }, {"rms_norm", "overlaps x"});
  const Tensor patches = f32({2, 3, 8});
  refused([&] { ops::prepend_token(ctx, f32({7}), patches, {}, f32({2, 4, 8})); }, {"prepend_token", "token"});
  refused(
      [&] {
        ops::prepend_token(ctx, f32({8}), patches, f32({3, 8}), f32({2, 4, 8}));
      },
      {"prepend_token", "positions"});
  refused([&] { ops::prepend_token(ctx, f32({8}), patches, {}, f32({2, 3, 8})); }, {"prepend_token", "out"});
  refused([&] { ops::prepend_token(ctx, {}, patches, {}, patches); }, {"prepend_token", "overlaps x"});
  w.device = DeviceKind::kCuda;
  refused([&] { ops::linear(ctx, x, w, {}, out); }, {"linear", "weight", "device"});
  x.data = nullptr;
  refused([&] { ops::rms_norm(ctx, x, f32({8}), 1e-5f, f32({3, 8})); }, {"rms_norm", "x", "empty"});
}

TEST_F(OpErrors, NoRowsIsNoError) {
  Tensor none(nullptr, DType::kF32, {0, 8}), out(nullptr, DType::kF32, {0, 5});
  ops::linear(ctx, none, f32({5, 8}), {}, out);
  ops::rms_norm(ctx, none, f32({8}), 1e-5f, none);
  ops::add(ctx, none, none);
  EXPECT_EQ(ctx.counters.ops, 3);
}

TEST_F(OpErrors, Attention) {
  const AttentionSetup setup(memory,
                             {.rows = {3, 2}, .keys = {40, 2}, .heads = 6, .kv_heads = 2, .dim = 8, .window = 4});
  const Tensor out = setup.output();
  const auto with = [&](auto change) {
    ops::AttentionArgs args = setup.args;
    change(args);
    ops::attention(ctx, args, out);
  };
  with([](auto&) {});  // the original is accepted
  refused([&] { with([&](auto& a) { a.cu_seqlens = memory.ints({0, 3, 4}); }); }, {"attention", "cu_seqlens"});
  refused([&] { with([&](auto& a) { a.cu_seqlens = memory.ints({0, -1, 5}); }); }, {"attention", "cu_seqlens"});
  refused([&] { with([&](auto& a) { a.kv_lens = memory.ints({2, 2}); }); }, {"attention", "3 queries and 2 keys"});
  refused([&] { with([&](auto& a) { a.kv_lens = memory.ints({49, 2}); }); }, {"attention", "blocks"});
  refused([&] { with([&](auto& a) { a.window = 0; }); },
          {"attention", "block 0", "-7"});  // now reads what was unmapped
  refused([&] { with([&](auto& a) { a.window = -1; }); }, {"attention", "window"});
  refused([&] { with([&](auto& a) { a.sinks = f32({5}); }); }, {"attention", "sinks"});
  refused(
      [&] {
        with([&](auto& a) {
          a.q = f32({5, 5, 8});
          a.sinks = {};
        });
      },
      {"attention", "5 heads", "2 kv heads"});
  refused([&] { with([&](auto& a) {
                  a.block_tables = memory.ints({99, 99, 99, 99, 99, 99}, {2, 3});
                }); },
          {"attention", "99"});
  refused(
      [&] {
        with([&](auto& a) {
          a.k = a.q;
          a.v = a.q;
        });
      },
      {"attention", "not both"});
  refused(
      [&] {
        with([&](auto& a) {
          a.k_cache = f32({4, 2, 12, 8});
          a.v_cache = a.k_cache;
        });
      },
      {"attention", "multiple of 8"});
  refused([&] { with([&](auto& a) { a.k_cache = f32({4, 2, 16, 10}); }); }, {"attention", "k_cache"});
}

TEST_F(OpErrors, Experts) {
  const MoeSetup setup(memory, {3, 2, 4, 32, 32, true, DType::kF32});
  const Tensor out = memory.zeros(DType::kF32, {3, 32});
  const auto run = [&](const Tensor& indices, const ops::ExpertProjection& up, const ops::ExpertProjection& down) {
    ops::moe(ctx, setup.x, indices, setup.weights, up, down, 1.7f, 7.f, out);
  };
  ops::ExpertProjection bad = setup.down;
  refused([&] { run(memory.ints({0, 1, 2, 3, 0, 4}, {3, 2}), setup.gate_up, setup.down); }, {"moe", "expert 4"});
  refused([&] { run(memory.ints({0, 1, 2, 3, 0, -1}, {3, 2}), setup.gate_up, setup.down); }, {"moe", "expert -1"});
  bad.scales = memory.bytes(std::vector<std::uint8_t>(64), {4, 16, 1});
  refused([&] { run(setup.indices, setup.gate_up, bad); }, {"moe", "down"});
  bad = setup.gate_up;
  bad.bias = f32({4, 63});
  refused([&] { run(setup.indices, bad, setup.down); }, {"moe", "gate_up"});
  refused(
      [&] {
        ops::router(ctx, f32({2, 4}), f32({6, 4}), f32({6}), {}, {}, f32({2, 6}),
                    memory.ints({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {2, 7}), f32({2, 7}));
      },
      {"router", "7 of 6"});
}

TEST_F(OpErrors, Sampling) {
  const Tensor logits = f32({2, 8});
  std::vector<ops::SampleRow> rows(2);
  std::vector<ops::SampleResult> results(2);
  const auto bad = [&](auto change, const char* what) {
    std::vector<ops::SampleRow> changed(2);
    change(changed[1]);
    refused([&] { ops::sample(ctx, logits, changed, results); }, {"sample", what, "row 1"});
  };
  bad([](auto& r) { r.params.temperature = -1; }, "temperature");
  bad([](auto& r) { r.params.temperature = NAN; }, "temperature");
  bad([](auto& r) { r.params.top_k = -1; }, "top_k");
  bad([](auto& r) { r.params.top_p = 1.5f; }, "top_p");
  bad([](auto& r) { r.params.min_p = -0.1f; }, "min_p");
  bad([](auto& r) { r.params.typical_p = 2; }, "typical_p");
  bad([](auto& r) { r.params.repetition_penalty = 0; }, "repetition_penalty");
  bad([](auto& r) { r.params.frequency_penalty = INFINITY; }, "frequency_penalty");
  bad([](auto& r) { r.top_logprobs = 21; }, "top_logprobs");
  refused([&] { ops::sample(ctx, logits, std::span(rows).first(1), results); }, {"sample"});
  refused([&] { ops::sample(ctx, logits, rows, std::span(results).first(1)); }, {"sample"});
}

TEST_F(OpErrors, CancellationStopsBeforeTheWork) {
  std::atomic<bool> cancel = false;
  ctx.cancel = &cancel;
  const Tensor x = f32({3, 8}), out = f32({3, 8});
  ops::add(ctx, x, out);
  const Doubles before = values(out);
  cancel = true;
  refused([&] { ops::add(ctx, x, out); }, {"cancelled"}, ErrorCode::kCancelled);
  EXPECT_TRUE(same_bits(values(out), before));
  cancel = false;
  ops::add(ctx, x, out);
  EXPECT_FALSE(same_bits(values(out), before));
}

TEST_F(OpErrors, CudaIsRefusedInABuildWithoutIt) {
  if (built_with_cuda()) GTEST_SKIP() << "this build has CUDA";
  ctx.device = DeviceKind::kCuda;
  Tensor x = f32({3, 8}), out = f32({3, 8});
  x.device = out.device = DeviceKind::kCuda;
  refused([&] { ops::add(ctx, x, out); }, {"built without CUDA", "add"}, ErrorCode::kUnsupported);
}

TEST_F(OpErrors, CountersFollowTheFormulas) {
  const Tensor x = f32({3, 8}), w = memory.normal(DType::kBF16, {5, 8}), out = f32({3, 5});
  ops::linear(ctx, x, w, {}, out);
  EXPECT_EQ(ctx.counters.flops, 2 * 3 * 5 * 8);
  EXPECT_EQ(ctx.counters.bytes, 3 * 8 * 4 + 5 * 8 * 2 + 3 * 5 * 4);
  ctx.counters = {};
  const MoeSetup setup(memory, {1, 2, 4, 32, 32, true, DType::kF32});
  ops::moe(ctx, setup.x, setup.indices, setup.weights, setup.gate_up, setup.down, 1.7f, 7.f,
           memory.zeros(DType::kF32, {1, 32}));
  EXPECT_EQ(ctx.counters.flops, 2 * (2 * 32 * 64 + 2 * 32 * 32));
  EXPECT_EQ(ctx.counters.bytes, 2 * (96 * 17 + 96 * 4) + 3 * 32 * 4 + 2 * (4 + 4));  // two experts of four, in full
}

}  // namespace
}  // namespace gov::test
