// Attention for the fast kernels of CUDA (src/ops/attention_*_cuda.cu), which want aligned tensors, heads of 64 or 128
// and enough rows or keys: lengths around their tiles, splits and blocks, every type of cache, what a batch may hold.
#include <algorithm>

#include "tests/ops/attention_setup.h"

namespace gov::test {
namespace {

// With the lengths' bounds known, as the engine knows them, or unknown.
Doubles fast_case(Context& ctx, const AttentionProblem& problem, bool bounds_known) {
  Memory memory(61);
  memory.aligned = true;
  AttentionSetup setup(memory, problem);
  if (bounds_known) {
    setup.args.max_rows = *std::max_element(problem.rows.begin(), problem.rows.end());
    setup.args.max_keys = *std::max_element(problem.keys.begin(), problem.keys.end());
  }
  const Tensor out = setup.output();
  call(ctx, ops::attention, setup.args, out);
  EXPECT_TRUE(close(values(out), setup.reference(), setup.tolerance()));
  return values(out);
}

}  // namespace

std::vector<OpCase> attention_cuda_cases() {
  std::vector<OpCase> cases;
  const auto add = [&](const std::string& name, const AttentionProblem& p, bool known = true) {
    cases.push_back({"attention_fast_" + name, [=](Context& ctx) { return fast_case(ctx, p, known); }, true});
  };
  const DType f32 = DType::kF32, bf16 = DType::kBF16, f8 = DType::kF8E4M3;
  const std::int64_t heads = 16, kv_heads = 2;
  for (const DType act : {f32, bf16})
    for (const DType cache : {bf16, f8})
      for (const int window : {0, 128}) {
        const std::string name = fmt::format("{}_{}_window_{}", dtype_name(act), dtype_name(cache), window);
        AttentionProblem p{
            .rows = {}, .keys = {}, .heads = heads, .kv_heads = kv_heads, .cache = cache, .window = window, .act = act};
        p.rows = {1};
        p.keys = {4300};
        add("decode_one_" + name, p);
        p.rows = {1, 1, 1, 0, 1, 1, 2};
        p.keys = {1, 128, 300, 4, 2049, 0, 129};  // a row without keys is padding
        add("decode_batch_" + name, p);
        add("decode_unknown_" + name, p, false);
        p.rows = {1, 70, 0, 24, 200};
        p.keys = {1, 70, 5, 300, 513};
        add("mixed_" + name, p);
      }
  add("decode_dim_128", {.rows = {1, 1, 4},
                         .keys = {77, 1500, 4},
                         .heads = 12,
                         .kv_heads = 3,
                         .dim = 128,
                         .cache = bf16,
                         .block_size = 8});
  add("decode_20_heads_a_kv_head", {.rows = {1, 1}, .keys = {200, 1000}, .heads = 20, .kv_heads = 1, .cache = bf16});
  add("decode_long", {.rows = {1}, .keys = {20'000}, .heads = 8, .kv_heads = 1, .cache = bf16, .block_size = 64});
  for (const std::int64_t block : {8, 24, 64, 128, 256})
    add(fmt::format("block_{}", block), {.rows = {1, 40, 130},
                                         .keys = {200, 63, 400},
                                         .heads = heads,
                                         .kv_heads = kv_heads,
                                         .cache = bf16,
                                         .block_size = block,
                                         .act = bf16});
  for (const std::int64_t group : {1, 3, 24, 200})
    add(fmt::format("group_{}", group),
        {.rows = {50, 3}, .keys = {180, 5}, .heads = group, .kv_heads = 1, .cache = bf16, .act = bf16});
  for (const int window : {1, 63, 129, 200})
    add(fmt::format("window_{}", window), {.rows = {20, 150, 1},
                                           .keys = {131, 150, 300},
                                           .heads = heads,
                                           .kv_heads = kv_heads,
                                           .cache = bf16,
                                           .window = window,
                                           .act = bf16});
  for (const std::int32_t tokens : {16, 95, 257})
    add(fmt::format("image_{}", tokens), {.rows = {tokens, tokens, tokens},
                                          .keys = {tokens, tokens, tokens},
                                          .heads = 3,
                                          .kv_heads = 3,
                                          .contiguous = true,
                                          .causal = false,
                                          .sinks = false,
                                          .act = bf16});
  add("contiguous_causal", {.rows = {5, 1, 300}, .keys = {5, 1, 300}, .heads = 4, .contiguous = true, .act = bf16});
  add("dim_80", {.rows = {70, 9}, .keys = {70, 200}, .dim = 80, .cache = bf16, .act = bf16});
  AttentionProblem many{.rows = {}, .keys = {}, .heads = heads, .kv_heads = kv_heads, .cache = bf16, .act = bf16};
  for (std::int32_t i = 0; i < 100; ++i) {
    many.rows.push_back(i % 7 == 3 ? 0 : 1 + i % 9);
    many.keys.push_back(2 * i + 9);
  }
  add("many_sequences", many);
  return cases;
}

namespace {

// A decode step is recorded once for many lengths: kernels read these in device memory.
TEST(AttentionCuda, OneGraphServesEveryLength) {
  if (const std::string reason = no_cuda_reason(); !reason.empty()) GTEST_SKIP() << reason;
  Context& ctx = cuda_context();
  for (const int window : {0, 128}) {
    Memory memory(62);
    memory.aligned = true;
    AttentionProblem problem{.rows = {1, 1}, .keys = {3000, 700}, .heads = 8, .kv_heads = 1, .cache = DType::kBF16};
    const AttentionSetup setup(memory, problem);
    const Tensor out = setup.output();
    Twins twins(ctx);
    ops::AttentionArgs args = twins.translate(setup.args);
    args.window = window;
    args.max_rows = 1;
    args.max_keys = 4096;
    const Tensor device_out = twins.translate(out);
    ops::attention(ctx, args, device_out);
    synchronize(ctx.stream);
    ctx.workspace.compact();
    const Graph graph = Graph::capture(ctx.stream, [&] { ops::attention(ctx, args, device_out); });
    for (const std::vector<std::int32_t>& keys :
         {std::vector<std::int32_t>{1, 0}, {128, 16}, {129, 700}, {2999, 1}, {3000, 699}}) {
      copy_bytes(args.kv_lens.data, DeviceKind::kCuda, keys.data(), DeviceKind::kCpu, keys.size() * sizeof(keys[0]),
                 ctx.stream);
      ops::attention(ctx, args, device_out);
      twins.bring_back();
      const Doubles want = values(out);
      fill_bytes(device_out.data, DeviceKind::kCuda, 0xff, device_out.bytes(), ctx.stream);
      graph.launch(ctx.stream);
      twins.bring_back();
      EXPECT_TRUE(same_bits(values(out), want)) << keys[0] << " and " << keys[1] << " keys, window " << window;
    }
  }
}

}  // namespace
}  // namespace gov::test
