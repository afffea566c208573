#include "tests/ops/attention_setup.h"

namespace gov::test {
namespace {

Doubles attention_case(Context& ctx, const AttentionProblem& problem) {
  Memory memory(31);
  memory.aligned = problem.act == DType::kBF16;
  const AttentionSetup setup(memory, problem);
  const Tensor out = setup.output();
  call(ctx, ops::attention, setup.args, out);
  EXPECT_TRUE(close(values(out), setup.reference(), setup.tolerance()));
  return values(out);
}

// Prefill in one call, in chunks, and token by token: the same bits. Causal and paged.
Doubles chunked_case(Context& ctx, AttentionProblem problem) {
  Memory memory(32);
  const AttentionSetup setup(memory, problem);
  const Tensor out = setup.output();
  call(ctx, ops::attention, setup.args, out);
  const Doubles whole = values(out);
  EXPECT_TRUE(close(whole, setup.reference(), setup.tolerance()));
  const std::int32_t rows = problem.rows[0];
  const std::size_t width = std::size_t(problem.heads * problem.dim);
  for (const std::int32_t step : {1, 3, 40}) {
    for (std::int32_t begin = 0; begin < rows; begin += step) {
      const std::int32_t count = std::min(step, rows - begin);
      const std::vector<std::int32_t> skip(problem.rows.size(), begin), counts(problem.rows.size(), count);
      Memory scratch(33);
      const ops::AttentionArgs part = setup.last_rows(skip, counts);
      const Tensor piece = scratch.make(problem.act, part.q.shape);
      call(ctx, ops::attention, part, piece);
      Doubles want;
      for (std::size_t s = 0; s < problem.rows.size(); ++s) {
        const std::size_t at = (s * std::size_t(rows) + std::size_t(begin)) * width;
        want.insert(want.end(), whole.begin() + std::ptrdiff_t(at),
                    whole.begin() + std::ptrdiff_t(at + std::size_t(count) * width));
      }
      EXPECT_TRUE(agree(ctx, values(piece), want, setup.tolerance())) << "rows " << begin << " + " << count;
    }
  }
  return whole;
}

}  // namespace

std::vector<OpCase> attention_cases() {
  std::vector<OpCase> cases;
  const auto add = [&](std::string name, AttentionProblem p) {
    cases.push_back({"attention_" + name, [p](Context& ctx) { return attention_case(ctx, p); }});
    p.act = DType::kBF16;
    cases.push_back({"attention_" + name + "_act_bf16", [p](Context& ctx) { return attention_case(ctx, p); }, true});
  };
  add("contiguous_causal", {.rows = {5, 1, 70}, .keys = {5, 1, 70}, .contiguous = true});
  add("contiguous_bidirectional", {.rows = {66, 3},
                                   .keys = {66, 3},
                                   .heads = 2,
                                   .kv_heads = 2,
                                   .dim = 16,
                                   .contiguous = true,
                                   .causal = false,
                                   .sinks = false});
  for (const std::int64_t dim : {2, 6, 18, 64, 80, 100, 128, 256}) {
    add(fmt::format("dim_{}", dim), {.rows = {9, 1}, .keys = {77, 130}, .dim = dim});
    add(fmt::format("dim_{}_bf16", dim), {.rows = {2, 1}, .keys = {64, 65}, .dim = dim, .cache = DType::kBF16});
  }
  for (const std::int64_t block : {8, 16, 24, 64, 128}) {
    add(fmt::format("block_{}", block),
        {.rows = {1, 7, 3}, .keys = {200, 63, 129}, .cache = DType::kBF16, .block_size = block});
  }
  add("multi_query_71_heads", {.rows = {3, 1}, .keys = {66, 5}, .heads = 71, .kv_heads = 1, .dim = 8});
  add("groups_of_3", {.rows = {30, 1}, .keys = {70, 9}, .heads = 6, .kv_heads = 2, .dim = 32});
  add("groups_of_8_released_heads",
      {.rows = {1, 1, 20}, .keys = {1, 300, 150}, .heads = 64, .kv_heads = 8, .cache = DType::kBF16});
  add("no_sinks", {.rows = {4, 1}, .keys = {140, 64}, .sinks = false});
  add("empty_sequence", {.rows = {3, 0, 2}, .keys = {10, 4, 9}});
  for (const int window : {1, 8, 63, 64, 65, 128}) {
    add(fmt::format("window_{}", window), {.rows = {1, 20, 150, 1}, .keys = {300, 131, 150, 128}, .window = window});
  }
  add("window_128_after_4096",
      {.rows = {1, 3}, .keys = {4300, 4229}, .heads = 8, .kv_heads = 1, .cache = DType::kBF16, .window = 128});
  add("full_after_4096", {.rows = {1, 3}, .keys = {4300, 4229}, .heads = 8, .kv_heads = 1, .cache = DType::kBF16});
  add("window_bidirectional", {.rows = {100}, .keys = {100}, .contiguous = true, .causal = false, .window = 10});
  cases.push_back(
      {"attention_chunks_full", [](Context& c) {
         return chunked_case(c, {.rows = {90, 90}, .keys = {150, 90}, .heads = 8, .kv_heads = 1, .dim = 32});
       }});
  cases.push_back({"attention_chunks_window", [](Context& c) {
                     return chunked_case(c, {.rows = {90, 90},
                                             .keys = {150, 91},
                                             .heads = 3,
                                             .kv_heads = 1,
                                             .dim = 32,
                                             .cache = DType::kBF16,
                                             .window = 20});
                   }});
  return cases;
}

}  // namespace gov::test
