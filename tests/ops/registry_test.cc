// Every op case on every instruction set with 1, 2 and 3 threads, and on a GPU, where there is one, twice: each run is
// compared with the reference inside the case, and the runs must agree bit for bit.
#include "tests/ops/harness.h"

namespace gov::test {
namespace {

struct Run {
  CpuIsa isa;
  OpCase op;
};
void PrintTo(const Run& run, std::ostream* out) { *out << run.op.name; }

std::vector<OpCase> all_cases() {
  std::vector<OpCase> all;
  for (const auto& cases : {linear_cases(), row_cases(), attention_cases(), attention_cuda_cases(), expert_cases(),
                            moe_cuda_cases(), backward_row_cases(), backward_linear_cases(), backward_attention_cases(),
                            backward_expert_cases(), optimizer_cases()})
    all.insert(all.end(), cases.begin(), cases.end());
  return all;
}

std::vector<Run> all_runs() {
  std::vector<Run> runs;
  for (const CpuIsa isa : available_isas())
    for (const OpCase& op : all_cases())
      if (!op.cuda_only) runs.push_back({isa, op});
  return runs;
}

class OpRegistry : public testing::TestWithParam<Run> {};

TEST_P(OpRegistry, MatchesReferenceOnAnyThreadCount) {
  Doubles first;
  for (const int threads : {1, 2, 3}) {
    SCOPED_TRACE(fmt::format("{} threads", threads));
    TestContext test(GetParam().isa, threads);
    const Doubles out = GetParam().op.run(test.ctx);
    ASSERT_FALSE(out.empty());
    if (threads == 1) first = out;
    EXPECT_TRUE(same_bits(out, first));
  }
}

INSTANTIATE_TEST_SUITE_P(All, OpRegistry, testing::ValuesIn(all_runs()), [](const testing::TestParamInfo<Run>& info) {
  return fmt::format("{}_{}", info.param.op.name, cpu_isa_name(info.param.isa));
});

class OpRegistryCuda : public testing::TestWithParam<OpCase> {};

TEST_P(OpRegistryCuda, MatchesReferenceTwice) {
  if (const std::string reason = no_cuda_reason(); !reason.empty()) GTEST_SKIP() << reason;
  const Doubles first = GetParam().run(cuda_context());
  ASSERT_FALSE(first.empty());
  if (HasFailure()) return;
  EXPECT_TRUE(same_bits(GetParam().run(cuda_context()), first));
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(OpRegistryCuda);
INSTANTIATE_TEST_SUITE_P(All, OpRegistryCuda,
                         testing::ValuesIn(built_with_cuda() ? all_cases() : std::vector<OpCase>{}),
                         [](const testing::TestParamInfo<OpCase>& info) { return info.param.name; });

}  // namespace

void PrintTo(const OpCase& op, std::ostream* out) { *out << op.name; }

}  // namespace gov::test
