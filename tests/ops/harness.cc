#include "tests/ops/harness.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>

#include "base/philox.h"
#include "tests/test_device.h"

namespace gov::test {
namespace {
constexpr std::size_t kGuardBytes = 256;
constexpr unsigned char kGuardByte = 0xA5;

std::vector<Memory*>& living() {
  static std::vector<Memory*> all;
  return all;
}
}  // namespace

Memory::Memory(std::uint64_t seed) {
  random.seed = seed;
  living().push_back(this);
}

Memory::~Memory() {
  check_guards();
  std::erase(living(), this);
}

Memory::Block& Memory::block_of(const void* data) {
  const std::less<const void*> before;
  for (Memory* memory : living())
    for (Block& b : memory->blocks_) {
      if (!before(data, b.memory.get()) && before(data, b.memory.get() + b.total)) return b;
    }
  throw std::logic_error("a tensor of no Memory");
}

Tensor Twins::translate(const Tensor& t) {
  if (!t.data) return t;
  Memory::Block& block = Memory::block_of(t.data);
  if (!block.twin.data()) block.twin = Buffer(block.total, DeviceKind::kCuda, "a test");
  if (std::find(used_.begin(), used_.end(), &block) == used_.end()) {
    used_.push_back(&block);
    copy_bytes(block.twin.data(), DeviceKind::kCuda, block.memory.get(), DeviceKind::kCpu, block.total, ctx_.stream);
  }
  Tensor twin = t;
  twin.device = DeviceKind::kCuda;
  twin.data =
      static_cast<unsigned char*>(block.twin.data()) + (static_cast<unsigned char*>(t.data) - block.memory.get());
  return twin;
}

ops::AttentionArgs Twins::translate(ops::AttentionArgs args) {
  for (Tensor* t : {&args.q, &args.cu_seqlens, &args.kv_lens, &args.k, &args.v, &args.k_cache, &args.v_cache,
                    &args.block_tables, &args.sinks, &args.lse})
    *t = translate(*t);
  return args;
}

ops::ExpertProjection Twins::translate(ops::ExpertProjection p) {
  for (Tensor* t : {&p.weight, &p.blocks, &p.scales, &p.bias, &p.expanded}) *t = translate(*t);
  return p;
}

ops::RouterGradients Twins::translate(ops::RouterGradients g) {
  for (Tensor* t : {&g.dlogits, &g.dx, &g.dweight, &g.dbias, &g.dvision_bias}) *t = translate(*t);
  return g;
}

void Twins::bring_back() {
  for (Memory::Block* b : used_)
    copy_bytes(b->memory.get(), DeviceKind::kCpu, b->twin.data(), DeviceKind::kCuda, b->total, ctx_.stream);
  synchronize(ctx_.stream);
}

double Random::uniform() { return static_cast<double>(Philox{seed}(counter++)[0]) * 0x1p-32; }

double Random::normal() {
  const double radius = std::sqrt(-2 * std::log(1 - uniform()));
  return radius * std::cos(2 * M_PI * uniform());
}

std::int64_t Random::below(std::int64_t limit) {
  return static_cast<std::int64_t>(uniform() * static_cast<double>(limit));
}

Tensor Memory::make(DType dtype, Shape shape) {
  const std::size_t size = static_cast<std::size_t>(shape.elements()) * dtype_size(dtype);
  // Odd offsets by whole elements: kernels may not rely on more than the element's own alignment.
  const std::size_t shift = aligned ? 0 : (blocks_.size() % 3) * dtype_size(dtype), offset = kGuardBytes + shift,
                    total = offset + size + kGuardBytes;
  auto memory = std::make_unique<unsigned char[]>(total);
  std::memset(memory.get(), kGuardByte, total);
  std::memset(memory.get() + offset, 0xff, size);
  void* data = memory.get() + offset;
  blocks_.push_back({std::move(memory), offset, size, total, {}});
  return Tensor(data, dtype, shape);
}

Tensor Memory::zeros(DType dtype, Shape shape) {
  const Tensor t = make(dtype, shape);
  std::memset(t.data, 0, t.bytes());
  return t;
}

Tensor Memory::normal(DType dtype, Shape shape, double scale, double mean) {
  const Tensor t = make(dtype, shape);
  for (std::int64_t i = 0; i < t.elements(); ++i) {
    const float x = static_cast<float>(mean + scale * random.normal());
    if (dtype == DType::kF32) t.as<float>()[i] = x;
    if (dtype == DType::kBF16) t.as<bf16>()[i] = to_bf16(x);
    if (dtype == DType::kF16) t.as<f16>()[i] = to_f16(x);
  }
  return t;
}

Tensor Memory::floats(const Doubles& v, Shape shape, DType dtype) {
  const Tensor t = make(dtype, shape);
  for (std::size_t i = 0; i < v.size(); ++i) {
    if (dtype == DType::kBF16) t.as<bf16>()[i] = to_bf16(static_cast<float>(v[i]));
    else t.as<float>()[i] = static_cast<float>(v[i]);
  }
  return t;
}

Tensor Memory::ints(const std::vector<std::int32_t>& v, Shape shape) {
  const Tensor t = make(DType::kI32, shape);
  std::memcpy(t.data, v.data(), t.bytes());
  return t;
}

Tensor Memory::longs(const std::vector<std::int64_t>& v) {
  const Tensor t = make(DType::kI64, {static_cast<std::int64_t>(v.size())});
  std::memcpy(t.data, v.data(), t.bytes());
  return t;
}

Tensor Memory::bytes(const std::vector<std::uint8_t>& v, Shape shape) {
  const Tensor t = make(DType::kU8, shape);
  std::memcpy(t.data, v.data(), t.bytes());
  return t;
}

void Memory::check_guards() const {
  for (const Block& b : blocks_) {
    for (std::size_t i = 0; i < b.total; ++i) {
      if (i == b.offset) i += b.size;
      if (i < b.total && b.memory[i] != kGuardByte) {
        ADD_FAILURE() << "a guard byte was overwritten, " << (i < b.offset ? "before" : "after") << " a tensor of "
                      << b.size << " bytes";
        break;
      }
    }
  }
}

Doubles values(const Tensor& t) {
  Doubles out(static_cast<std::size_t>(t.elements()));
  for (std::size_t i = 0; i < out.size(); ++i) {
    switch (t.dtype) {
      case DType::kF32: out[i] = static_cast<double>(t.as<float>()[i]); break;
      case DType::kBF16: out[i] = static_cast<double>(to_f32(t.as<bf16>()[i])); break;
      case DType::kF16: out[i] = static_cast<double>(to_f32(t.as<f16>()[i])); break;
      case DType::kF64: out[i] = t.as<double>()[i]; break;
      case DType::kI32: out[i] = t.as<std::int32_t>()[i]; break;
      default: ADD_FAILURE() << "values() of " << dtype_name(t.dtype);
    }
  }
  return out;
}

std::vector<std::int32_t> ints_of(const Tensor& t) {
  return std::vector<std::int32_t>(t.as<std::int32_t>(), t.as<std::int32_t>() + t.elements());
}

Tolerance sum_tolerance(double terms, double norm, double k) {
  const double growth = k * kEps * std::sqrt(std::max(terms, 1.0));
  return {growth, 3 * growth * norm};  // the largest of many errors is a few standard deviations out
}

Tolerance rounded(Tolerance tolerance, DType type, const Doubles& want) {
  if (type != DType::kBF16) return tolerance;
  constexpr double kRounding = 0x1p-8;  // half the spacing of bf16 at 1
  return {tolerance.relative_l2 + kRounding, tolerance.absolute + kRounding * largest(want)};
}

testing::AssertionResult close(const Doubles& got, const Doubles& want, Tolerance tolerance) {
  if (got.size() != want.size())
    return testing::AssertionFailure() << got.size() << " elements, expected " << want.size();
  double errors = 0, total = 0, worst = 0;
  std::size_t at = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::fabs(got[i] - want[i]);
    errors += error * error;
    total += want[i] * want[i];
    if (!(error <= worst)) {
      worst = error;
      at = i;
    }
  }
  const double relative = errors == 0 ? 0 : std::sqrt(errors / total);
  if (relative <= tolerance.relative_l2 && worst <= tolerance.absolute) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "relative L2 " << relative << " (at most " << tolerance.relative_l2
                                     << "), largest error " << worst << " at " << at << " (at most "
                                     << tolerance.absolute << "): " << got[at] << " for " << want[at];
}

testing::AssertionResult same_bits(const Doubles& got, const Doubles& want) {
  if (got.size() != want.size())
    return testing::AssertionFailure() << got.size() << " elements, expected " << want.size();
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::memcmp(&got[i], &want[i], sizeof(double)) != 0) {
      return testing::AssertionFailure() << "element " << i << " is " << got[i] << ", expected " << want[i];
    }
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult agree(const Context& ctx, const Doubles& got, const Doubles& want, Tolerance tolerance) {
  return ctx.on_cuda() ? close(got, want, tolerance) : same_bits(got, want);
}

double norm(const Doubles& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}

double largest(const Doubles& v) {
  double most = 0;
  for (const double x : v) most = std::max(most, std::fabs(x));
  return most;
}

std::vector<CpuIsa> available_isas() {
  std::vector<CpuIsa> isas = {CpuIsa::kBaseline};
  if (cpu_info().best >= CpuIsa::kAvx2) isas.push_back(CpuIsa::kAvx2);
  if (cpu_info().best >= CpuIsa::kAvx512) isas.push_back(CpuIsa::kAvx512);
  return isas;
}

void OnDevices::SetUp() {
  if (!GetParam()) return;
  if (const std::string reason = no_cuda_reason(); !reason.empty()) GTEST_SKIP() << reason;
}

std::vector<Context*> OnDevices::contexts() {
  if (GetParam()) return {&cuda_context()};
  if (cpu_.empty()) {
    for (const CpuIsa isa : available_isas()) cpu_.push_back(std::make_unique<TestContext>(isa));
  }
  std::vector<Context*> all;
  for (const auto& test : cpu_) all.push_back(&test->ctx);
  return all;
}

std::string no_cuda_reason() {
  const char* const wanted = std::getenv("GOV_TEST_DEVICE");
  if (wanted && std::string_view(wanted) == "cpu") return "GOV_TEST_DEVICE=cpu";
  if (built_with_cuda() && cuda_device_count() > 0) return "";
  if (!test_device().empty()) ADD_FAILURE() << "GOV_TEST_DEVICE=" << wanted << ", and there is no GPU";
  return built_with_cuda() ? "this machine has no GPU" : "built without CUDA";
}

Context& cuda_context() {
  // Never destroyed: the driver may be gone by the time static objects are.
  static Context& shared = *[] {
    use_cuda_device(test_ordinal());
    static Stream* const stream = new Stream(Stream::create());
    return new Context(test_ordinal(), stream->get());
  }();
  return shared;
}

}  // namespace gov::test
