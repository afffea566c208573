#include "train/schedule.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace gov::train {
namespace {

using Table = std::vector<std::pair<std::int64_t, double>>;

void expect(const Schedule& schedule, const Table& table) {
  for (const auto& [step, lr] : table) EXPECT_NEAR(schedule.lr(step), lr, 1e-12) << step;
}

TEST(Schedule, Constant) {
  expect({ScheduleKind::kConstant, 2, 4, 10}, {{0, 0.5}, {1, 1}, {3, 2}, {4, 2}, {9, 2}, {100, 2}});
}
TEST(Schedule, Linear) {
  expect({ScheduleKind::kLinear, 2, 2, 12, 0.5},
         {{0, 1}, {1, 2}, {2, 2}, {3, 1.9}, {7, 1.5}, {11, 1.1}, {12, 1}, {99, 1}});
}
TEST(Schedule, Cosine) {
  expect(
      {ScheduleKind::kCosine, 1, 0, 8, 0.2},
      {{0, 1}, {1, 0.969551813004515}, {2, 0.882842712474619}, {4, 0.6}, {6, 0.317157287525381}, {8, 0.2}, {9, 0.2}});
}
TEST(Schedule, WarmupStableDecay) {
  expect({ScheduleKind::kWsd, 1, 2, 20, 0.1, 0.2},
         {{0, 0.5}, {1, 1}, {15, 1}, {16, 1}, {17, 0.55}, {20, 0.1}, {30, 0.1}});
}
TEST(Schedule, WarmupLongerThanTheRun) { expect({ScheduleKind::kCosine, 1, 10, 5, 0}, {{0, 0.1}, {4, 0.5}, {9, 1}}); }

}  // namespace
}  // namespace gov::train
