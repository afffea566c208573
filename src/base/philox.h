#pragma once
// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// The value depends only on (key, counter), so a draw is the same whatever the batch, the thread or the device.

#include <array>
#include <cmath>
#include <cstdint>

namespace gov {

struct Philox {
  std::uint64_t key;

  // Four independent 32-bit words for one 128-bit counter.
  std::array<std::uint32_t, 4> operator()(std::uint64_t counter_low, std::uint64_t counter_high = 0) const {
    std::uint32_t c0 = static_cast<std::uint32_t>(counter_low), c1 = static_cast<std::uint32_t>(counter_low >> 32);
    std::uint32_t c2 = static_cast<std::uint32_t>(counter_high), c3 = static_cast<std::uint32_t>(counter_high >> 32);
    std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
      const std::uint32_t n0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
      const std::uint32_t n2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c1 = static_cast<std::uint32_t>(p1);
      c3 = static_cast<std::uint32_t>(p0);
      c0 = n0;
      c2 = n2;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
  }

  // Uniform in [0, 1) with 24 bits.
  float uniform(std::uint64_t counter_low, std::uint64_t counter_high = 0) const {
    return static_cast<float>((*this)(counter_low, counter_high)[0] >> 8) * 0x1p-24f;
  }

  // Uniform in [0, 1) with 53 bits: 24 would not reach the rare tokens of a vocabulary of 200,000.
  double uniform_double(std::uint64_t counter_low, std::uint64_t counter_high = 0) const {
    const auto words = (*this)(counter_low, counter_high);
    const std::uint64_t bits = (static_cast<std::uint64_t>(words[0]) << 32 | words[1]) >> 11;
    return static_cast<double>(bits) * 0x1p-53;
  }

  // Two standard normal values (Box-Muller) for one counter.
  std::array<float, 2> normal(std::uint64_t counter_low, std::uint64_t counter_high = 0) const {
    const auto words = (*this)(counter_low, counter_high);
    const float u = (static_cast<float>(words[0] >> 8) + 1.f) * 0x1p-24f;  // (0, 1]
    const float v = static_cast<float>(words[1] >> 8) * 0x1p-24f;
    const float radius = std::sqrt(-2.f * std::log(u)), angle = 6.28318530717958647692f * v;
    return {radius * std::cos(angle), radius * std::sin(angle)};
  }
};

}  // namespace gov
