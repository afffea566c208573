#include "train/permutation.h"

#include "base/error.h"

namespace gov::train {

Permutation::Permutation(std::int64_t size, std::uint64_t seed, std::uint64_t epoch, std::uint32_t stream)
    : size_(static_cast<std::uint64_t>(size)),
      random_{seed ^ (std::uint64_t{stream} << 40)},
      counter_high_(epoch),
      half_bits_(1) {
  GOV_DCHECK(size >= 1);
  while ((std::uint64_t{1} << (2 * half_bits_)) < size_) ++half_bits_;
}

std::int64_t Permutation::operator()(std::int64_t i) const {
  constexpr std::uint64_t kRounds = 4;  // four rounds of a random function are enough (Luby and Rackoff, 1988)
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  auto value = static_cast<std::uint64_t>(i);
  do {
    std::uint64_t left = value >> half_bits_, right = value & mask;
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      const std::uint64_t mixed = random_((round << 32) | right, counter_high_)[0] & mask;
      const std::uint64_t swapped = left ^ mixed;
      left = right;
      right = swapped;
    }
    value = (left << half_bits_) | right;
  } while (value >= size_);
  return static_cast<std::int64_t>(value);
}

}  // namespace gov::train
