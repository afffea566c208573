#pragma once
// Tests that run on a GPU, too, do so when GOV_TEST_DEVICE names one ("cuda", "cuda:1"), and are skipped without.

#include <cstdlib>
#include <string>

namespace gov::test {

inline std::string test_device() {
  const char* const name = std::getenv("GOV_TEST_DEVICE");
  return name == nullptr || std::string(name).rfind("cuda", 0) != 0 ? "" : name;
}

inline int test_ordinal() {
  const std::string name = test_device();
  return name.size() > 5 ? std::atoi(name.c_str() + 5) : 0;
}

}  // namespace gov::test

#define GOV_NEEDS_TEST_DEVICE() \
  if (gov::test::test_device().empty()) GTEST_SKIP() << "GOV_TEST_DEVICE names no GPU"
