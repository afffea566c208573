#pragma once
// A pseudo-random order of 0..n-1 that is computed, not stored: entry i costs the same for any n.

#include <cstdint>

#include "base/philox.h"

namespace gov::train {

// A Feistel network over the next power of four, walked until it lands below n (Black and Rogaway, "Ciphers with
// arbitrary finite domains", 2002). The same key gives the same order on every machine.
class Permutation {
 public:
  // size >= 1. Different (seed, epoch, stream) give unrelated orders.
  Permutation(std::int64_t size, std::uint64_t seed, std::uint64_t epoch, std::uint32_t stream);
  std::int64_t operator()(std::int64_t i) const;  // 0 <= i < size

 private:
  std::uint64_t size_;
  Philox random_;
  std::uint64_t counter_high_;
  int half_bits_;
};

}  // namespace gov::train
