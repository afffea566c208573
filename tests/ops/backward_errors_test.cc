// Wrong shapes, dtypes and values of the derivatives are refused with the op's and the tensor's name.
#include "tests/ops/backward_setup.h"

namespace gov::test {
namespace {

class BackwardErrors : public testing::Test {
 protected:
  template <class Call>
  void refused(Call&& call, std::initializer_list<const char*> words) {
    try {
      call();
      ADD_FAILURE() << "accepted: " << *words.begin();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << error.what();
      for (const char* word : words) EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    }
  }
  Tensor f32(Shape shape) { return memory.normal(DType::kF32, shape); }
  TestContext test;
  Context& ctx = test.ctx;
  Memory memory;
};

TEST_F(BackwardErrors, Rows) {
  const Tensor x = f32({3, 8}), w = f32({8}), d = f32({3, 8});
  refused([&] { ops::rms_norm_backward(ctx, x, w, 1e-5f, d, f32({3, 7}), {}); }, {"rms_norm_backward", "dx"});
  refused([&] { ops::rms_norm_backward(ctx, x, w, 1e-5f, d, {}, f32({7})); }, {"rms_norm_backward", "dweight"});
  refused([&] { ops::rms_norm_backward(ctx, x, w, 1e-5f, d, x, {}); }, {"rms_norm_backward", "overlaps x"});
  refused([&] { ops::layer_norm_backward(ctx, x, w, 1e-5f, d, {}, {}, f32({9})); }, {"layer_norm_backward", "dbias"});
  refused([&] { ops::swiglu_backward(ctx, f32({3, 15}), 1, 7, d, f32({3, 16})); }, {"swiglu_backward", "h"});
  refused([&] { ops::gelu_backward(ctx, x, ops::Gelu::kErf, f32({3, 9}), d); }, {"gelu_backward", "dout"});
  refused([&] { ops::rope_backward(ctx, f32({3, 2}), f32({3, 2}), f32({3, 2, 5})); }, {"rope_backward", "modulo 2"});
  refused([&] { ops::embedding_backward(ctx, memory.ints({1, 9, 2}), d, f32({9, 8})); }, {"embedding_backward", "9"});
  refused([&] { ops::gather_rows_backward(ctx, memory.ints({1, -1, 2}), d, f32({9, 8})); }, {"gather_rows", "-1"});
  refused(
      [&] {
        ops::prepend_token_backward(ctx, false, f32({2, 3, 4}), f32({4}), {}, {});
      },
      {"prepend_token_backward", "dtoken"});
  refused(
      [&] {
        ops::prepend_token_backward(ctx, true, f32({2, 3, 4}), f32({4}), f32({2, 3, 4}), {});
      },
      {"prepend_token_backward", "dx", "[2, 2, 4]"});
}

TEST_F(BackwardErrors, Products) {
  const Tensor x = f32({3, 8}), w = f32({5, 8}), d = f32({3, 5});
  refused([&] { ops::linear_backward(ctx, x, w, f32({3, 6}), f32({3, 8}), {}, {}); }, {"linear_backward", "dout"});
  refused([&] { ops::linear_backward(ctx, {}, w, d, {}, f32({5, 8}), {}); }, {"linear_backward", "x"});
  refused(
      [&] {
        ops::linear_backward(ctx, x, w, d, {}, memory.normal(DType::kBF16, {5, 8}), {});
      },
      {"linear_backward", "dweight", "f32"});
  refused(
      [&] {
        ops::patch_embed_backward(ctx, f32({1, 3, 8, 8}), 0, f32({1, 16, 4}), {}, {});
      },
      {"patch_embed_backward", "patch"});
  const Tensor losses = f32({3}), logits = f32({2, 5});
  const auto head = [&](const Tensor& targets, const Tensor& chunk, const Tensor& dx, const Tensor& dweight) {
    ops::linear_cross_entropy(ctx, x, w, targets, f32({3}), chunk, losses, dx, dweight);
  };
  refused([&] { head(memory.ints({0, 5, 1}), logits, {}, {}); }, {"linear_cross_entropy", "target 5"});
  refused([&] { head(memory.ints({0, 1, 1}), f32({2, 6}), {}, {}); }, {"linear_cross_entropy", "logits"});
  refused([&] { head(memory.ints({0, 1, 1}), logits, {}, f32({5, 8})); }, {"linear_cross_entropy", "dweight"});
}

TEST_F(BackwardErrors, Attention) {
  ops::AttentionArgs args;
  args.q = f32({4, 4, 8});
  args.k = f32({4, 2, 8});
  args.v = f32({4, 2, 8});
  args.lse = f32({4, 4});
  args.cu_seqlens = memory.ints({0, 4});
  args.kv_lens = memory.ints({4});
  const Tensor out = f32({4, 4, 8}), dq = f32({4, 4, 8}), dk = f32({4, 2, 8}), dv = f32({4, 2, 8});
  const auto run = [&](const ops::AttentionArgs& a, const Tensor& k, const Tensor& sinks) {
    ops::attention_backward(ctx, a, out, out, dq, k, dv, sinks);
  };
  run(args, dk, {});
  refused([&] { run(args, dk, f32({4})); }, {"attention_backward", "sinks"});
  refused([&] { run(args, dv, {}); }, {"attention_backward", "overlaps dk"});
  ops::AttentionArgs bad = args;
  bad.lse = {};
  refused([&] { run(bad, dk, {}); }, {"attention_backward", "lse"});
  bad = args;
  bad.kv_lens = memory.ints({5});
  refused([&] { run(bad, dk, {}); }, {"attention_backward", "4 queries and 5 keys"});
  bad.lse = f32({4, 3});
  refused([&] { ops::attention(ctx, bad, out); }, {"attention", "lse"});
}

TEST_F(BackwardErrors, ExpertsAndOptimizer) {
  ops::ExpertProjection up, down;
  up.weight = f32({3, 12, 8});
  down.weight = f32({3, 8, 6});
  const Tensor x = f32({2, 8}), weights = f32({2, 2}), indices = memory.ints({0, 1, 2, 3}, {2, 2});
  const auto moe = [&](const Tensor& h, const ops::ExpertGradients& g) {
    ops::moe_backward(ctx, x, indices, weights, up, down, 1.702f, 7.f, h, x, {}, f32({2, 2}), g, {});
  };
  refused([&] { moe({}, {}); }, {"moe_backward", "expert 3"});
  refused([&] { moe(f32({2, 12}), {}); }, {"moe_backward", "h", "[4, 12]"});
  refused([&] { moe({}, {f32({3, 8, 12}), {}}); }, {"moe_backward", "gate_up"});
  const Tensor logits = f32({2, 3}), counts = f32({2, 3}), probabilities = f32({2, 3});
  refused([&] { ops::router_load(ctx, logits, indices, {}, counts, probabilities, f32({1})); }, {"router_load", "3"});
  refused([&] { ops::router_load(ctx, logits, indices, {}, f32({3}), probabilities, f32({1})); },
          {"router_load", "counts"});
  const Tensor p = f32({4});
  refused([&] { ops::adamw(ctx, {.step = 0}, f32({4}), p, f32({4}), f32({4}), {}); }, {"adamw", "steps"});
  refused([&] { ops::adamw(ctx, {}, f32({4}), p, f32({5}), f32({4}), {}); }, {"adamw", "m"});
  refused([&] { ops::add_squares(ctx, p, f32({1})); }, {"add_squares", "f64"});
  const Tensor blocks = memory.make(DType::kU8, {2, 1, 16}), scales = memory.make(DType::kU8, {2, 1});
  refused([&] { ops::mxfp4_quantize(ctx, f32({2, 33}), blocks, scales); }, {"mxfp4_quantize", "modulo 32"});
}

}  // namespace
}  // namespace gov::test
