#pragma once
// What the op tests share: tensors between guard bands, comparisons with derived tolerances, and the registry of cases.
//
// A case makes its tensors in host memory and calls ops through call(). On the CPU that is the plain call. On a GPU it
// runs the op on twins of the tensors, guard bands included, and copies them back: cases look the same on both.

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ops/backward.h"
#include "tensor/device.h"

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
  explicit Memory(std::uint64_t seed = 1);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  Tensor make(DType dtype, Shape shape);  // every byte 0xff: floats are NaN until an op writes them
  Tensor zeros(DType dtype, Shape shape);
  Tensor normal(DType dtype, Shape shape, double scale = 1, double mean = 0);
  Tensor floats(const Doubles& values, Shape shape, DType dtype = DType::kF32);  // F32 or BF16
  Tensor ints(const std::vector<std::int32_t>& values, Shape shape);
  Tensor ints(const std::vector<std::int32_t>& values) { return ints(values, {std::int64_t(values.size())}); }
  Tensor longs(const std::vector<std::int64_t>& values);
  Tensor bytes(const std::vector<std::uint8_t>& values, Shape shape);
  void check_guards() const;

  Random random;
  // True: tensors start at multiples of 256 bytes, as arenas and checkpoints have them. False: at odd elements.
  bool aligned = false;

  struct Block {
    std::unique_ptr<unsigned char[]> memory;
    std::size_t offset, size, total;
    Buffer twin;  // on the device, made by call()
  };
  // The block of any Memory alive that holds this address.
  static Block& block_of(const void* data);

 private:
  std::vector<Block> blocks_;
};

// The twins of one call. translate() gives a tensor's, and brings its block to the device the first time.
class Twins {
 public:
  explicit Twins(Context& ctx) : ctx_(ctx) {}
  Tensor translate(const Tensor& t);
  ops::AttentionArgs translate(ops::AttentionArgs args);
  ops::ExpertProjection translate(ops::ExpertProjection p);
  ops::ExpertGradients translate(const ops::ExpertGradients& g) { 
    return {translate(g.dweight), translate(g.dbias), g.accumulate};
  }
  ops::RouterGradients translate(ops::RouterGradients g);
  // What an op takes in place of this argument.
  template <class T>
  decltype(auto) operator()(T& argument) {
    using Bare = std::remove_const_t<T>;
    if constexpr (std::is_same_v<Bare, Tensor> || std::is_same_v<Bare, ops::AttentionArgs> ||
                  std::is_same_v<Bare, ops::ExpertProjection> || std::is_same_v<Bare, ops::ExpertGradients> ||
                  std::is_same_v<Bare, ops::RouterGradients>)
      return translate(argument);
    else return (argument);
  }
  void bring_back();

 private:
  Context& ctx_;
  std::vector<Memory::Block*> used_;
};

// op(ctx, args...), wherever ctx is.
template <class... Parameters, class... Args>
void call(Context& ctx, void (*op)(Context&, Parameters...), Args&&... args) {
  if (!ctx.on_cuda()) {
    op(ctx, args...);
    return;
  }
  Twins twins(ctx);
  try {
    op(ctx, twins(args)...);
  } catch (...) {
    twins.bring_back();
    throw;
  }
  twins.bring_back();
}

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

// For results of this type: rounded once more to its digits.
Tolerance rounded(Tolerance tolerance, DType type, const Doubles& want);

testing::AssertionResult close(const Doubles& got, const Doubles& want, Tolerance tolerance);
// Bit equality, element by element.
testing::AssertionResult same_bits(const Doubles& got, const Doubles& want);

// Two ways to one result: equal bits on the CPU; on a GPU, where the number of rows chooses the kernel, close.
testing::AssertionResult agree(const Context& ctx, const Doubles& got, const Doubles& want, Tolerance tolerance);

double norm(const Doubles& v);
double largest(const Doubles& v);

// One case: runs an op in the given context, compares it with the reference and returns everything the op wrote.
struct OpCase {
  std::string name;
  std::function<Doubles(Context&)> run;
  bool cuda_only = false;  // BF16 activations, and sizes for the fast kernels
};
void PrintTo(const OpCase& op, std::ostream* out);
std::vector<OpCase> linear_cases();
std::vector<OpCase> row_cases();
std::vector<OpCase> attention_cases();
std::vector<OpCase> attention_cuda_cases();
std::vector<OpCase> expert_cases();
std::vector<OpCase> moe_cuda_cases();
std::vector<OpCase> backward_row_cases();
std::vector<OpCase> backward_linear_cases();
std::vector<OpCase> backward_attention_cases();
std::vector<OpCase> backward_expert_cases();
std::vector<OpCase> optimizer_cases();

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

// A test of ops that runs on the CPU (each instruction set) and on a GPU. The parameter is true for the GPU.
class OnDevices : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override;
  std::vector<Context*> contexts();  // all of the device
  Context& context() { return *contexts().back(); }

 private:
  std::vector<std::unique_ptr<TestContext>> cpu_;
};
// For INSTANTIATE_TEST_SUITE_P.
inline std::vector<bool> test_devices() {
  return built_with_cuda() ? std::vector<bool>{false, true} : std::vector<bool>{false};
}
inline std::string device_name(const testing::TestParamInfo<bool>& info) { return info.param ? "cuda" : "cpu"; }

// Why tests do not run on a GPU here, or nothing. GOV_TEST_DEVICE=cpu leaves them out; with GOV_TEST_DEVICE=cuda or
// cuda:1 a missing GPU is a failure.
std::string no_cuda_reason();
// That GPU's context, one for all tests; the first GPU's by default.
Context& cuda_context();

}  // namespace gov::test
