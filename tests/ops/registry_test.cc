// Every op case on every instruction set with 1, 2 and 3 threads: each run is compared with the reference inside the
// case, and the three runs must agree bit for bit.
#include "tests/ops/harness.h"

namespace gov::test {
namespace {

struct Run {
  CpuIsa isa;
  OpCase op;
};
void PrintTo(const Run& run, std::ostream* out) { *out << run.op.name << " on " << cpu_isa_name(run.isa); }

std::vector<Run> all_runs() {
  std::vector<Run> runs;
  for (const CpuIsa isa : available_isas())
    for (const auto& cases : {linear_cases(), row_cases(), attention_cases(), expert_cases()})
      for (const OpCase& op : cases) runs.push_back({isa, op});
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

}  // namespace
}  // namespace gov::test
