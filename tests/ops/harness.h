#pragma once
// What the op tests share: tensors between guard bands, comparisons with derived tolerances, and the registry of cases.

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace gov::test {

using Doubles = std::vector<double>;

// Uniform and normal numbers from a counter, the same on every machine.
struct Random {
  std::uint64_t seed = 1, counter = 0;
  double uniform();  // [0, 1)
  double normal();
  std::int64_t below(std::int64_t limit);
};

// Tensors of one test. Each has a band of known bytes before and after it; check_guards() says whether an op left them
// alone.
class Memory {
 public:
  explicit Memory(std::uint64_t seed = 1) { random.seed = seed; }
  ~Memory() { check_guards(); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  Tensor make(DType dtype, Shape shape);  // every byte 0xff: floats are NaN until an op writes them
  Tensor zeros(DType dtype, Shape shape);
  Tensor normal(DType dtype, Shape shape, double scale = 1, double mean = 0);
  Tensor floats(const Doubles& values, Shape shape);
  Tensor ints(const std::vector<std::int32_t>& values, Shape shape);
  Tensor ints(const std::vector<std::int32_t>& values) { return ints(values, {std::int64_t(values.size())}); }
  Tensor longs(const std::vector<std::int64_t>& values);
  Tensor bytes(const std::vector<std::uint8_t>& values, Shape shape);
  void check_guards() const;

  Random random;

 private:
  struct Block {
    std::unique_ptr<unsigned char[]> memory;
    std::size_t offset, size, total;
  };
  std::vector<Block> blocks_;
};

// The elements, widened exactly.
Doubles values(const Tensor& t);
std::vector<std::int32_t> ints_of(const Tensor& t);

inline constexpr double kEps = 0x1p-24;  // half the spacing of binary32 at 1: the largest relative rounding error

// Both bounds must hold. The error of a sum of n rounded terms grows like eps sqrt(n) times the norm of what is summed.
struct Tolerance {
  double relative_l2;
  double absolute;
};
Tolerance sum_tolerance(double terms, double norm, double k = 2);

testing::AssertionResult close(const Doubles& got, const Doubles& want, Tolerance tolerance);
// Bit equality, element by element.
testing::AssertionResult same_bits(const Doubles& got, const Doubles& want);

double norm(const Doubles& v);
double largest(const Doubles& v);

// One case: runs an op in the given context, compares it with the reference and returns everything the op wrote.
struct OpCase {
  std::string name;
  std::function<Doubles(Context&)> run;
};
std::vector<OpCase> linear_cases();
std::vector<OpCase> row_cases();
std::vector<OpCase> attention_cases();
std::vector<OpCase> expert_cases();

std::vector<CpuIsa> available_isas();

// A context with its own pool.
struct TestContext {
  explicit TestContext(CpuIsa isa = cpu_info().best, int threads = 2) : pool(threads) {
    ctx.pool = &pool;
    ctx.isa = isa;
  }
  ThreadPool pool;
  Context ctx;
};

}  // namespace gov::test
