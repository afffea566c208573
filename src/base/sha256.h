#pragma once
// SHA-256 (FIPS 180-4), for keys that must not collide. Own code: the lean builds have no cryptographic library.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace gov {

using Sha256Digest = std::array<std::uint8_t, 32>;

class Sha256 {
 public:
  Sha256& update(std::span<const std::byte> bytes);
  // Of everything taken so far; the object takes no more.
  Sha256Digest digest();

 private:
  void compress(const std::byte* block);

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> block_{};  // the first `length_ % 64` bytes wait for the rest
  std::uint64_t length_ = 0;           // bytes
};

inline Sha256Digest sha256(std::span<const std::byte> bytes) { return Sha256().update(bytes).digest(); }

}  // namespace gov
