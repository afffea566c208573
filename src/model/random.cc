#include "model/random.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/philox.h"

namespace gov {
namespace {

// FNV-1a, 64 bits: spreads tensor names over Philox keys.
std::uint64_t hash_name(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const unsigned char c : name) hash = (hash ^ c) * 0x100000001b3ull;
  return hash;
}

void store(void* out, std::int64_t index, DType dtype, float value) {
  switch (dtype) {
    case DType::kF32: static_cast<float*>(out)[index] = value; break;
    case DType::kBF16: static_cast<bf16*>(out)[index] = to_bf16(value); break;
    case DType::kF16: static_cast<f16*>(out)[index] = to_f16(value); break;
    default: fail(ErrorCode::kInvalidArgument, "random weights cannot be {}", dtype_name(dtype));
  }
}

// Sixteen bytes of one Philox call fill one MXFP4 block; positions are bytes.
void fill_blocks(const Philox& random, std::int64_t begin, std::int64_t count, std::uint8_t* out) {
  std::int64_t done = 0;
  while (done < count) {
    const std::int64_t at = begin + done;
    const auto words = random(static_cast<std::uint64_t>(at / 16));
    const std::int64_t offset = at % 16, n = std::min<std::int64_t>(16 - offset, count - done);
    std::memcpy(out + done, reinterpret_cast<const std::uint8_t*>(words.data()) + offset, static_cast<std::size_t>(n));
    done += n;
  }
}

}  // namespace

std::uint64_t random_key(std::uint64_t seed, std::string_view tensor) { return seed ^ hash_name(tensor); }

int random_scale(const Config& config) {
  constexpr double kCodeRms = 2.9262;  // root mean square of the sixteen e2m1 values
  const double range = config.initializer_range;
  const double exponent = range > 0 ? std::round(std::log2(range / kCodeRms)) : -127;
  return static_cast<int>(std::fmin(std::fmax(exponent + 127, 0), 250));
}

void fill_random(const ParameterSpec& spec, const Config& config, std::uint64_t seed, DType dtype, std::int64_t begin,
                 std::int64_t count, void* out) {
  const Philox random{random_key(seed, spec.name)};
  const auto range = static_cast<float>(config.initializer_range);
  switch (spec.init) {
    case Init::kMxfp4Blocks: fill_blocks(random, begin, count, static_cast<std::uint8_t*>(out)); return;
    case Init::kMxfp4Scales: std::memset(out, random_scale(config), static_cast<std::size_t>(count)); return;
    case Init::kZero:
    case Init::kOne:
      for (std::int64_t i = 0; i < count; ++i) store(out, i, dtype, spec.init == Init::kOne ? 1.f : 0.f);
      return;
    case Init::kNormal:
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t at = begin + i;
        const auto pair = random.normal(static_cast<std::uint64_t>(at / 2));
        store(out, i, dtype, range * pair[static_cast<std::size_t>(at % 2)]);
        if (at % 2 == 0 && i + 1 < count) store(out, ++i, dtype, range * pair[1]);
      }
  }
}

}  // namespace gov
