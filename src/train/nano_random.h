#pragma once
// Draws of one sample: a counter under a key, so that a sample depends on the seed and its number only.

#include <cstdint>
#include <span>

#include "base/philox.h"

namespace gov::train {

class NanoRandom {
 public:
  NanoRandom(std::uint64_t seed, std::uint64_t sample) : philox_{seed}, sample_(sample) {}
  double uniform() { return static_cast<double>(philox_(count_++, sample_)[0]) * 0x1p-32; }  // [0, 1)
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  bool chance(double p) { return uniform() < p; }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(uniform() * static_cast<double>(n)); }
  template <class T>
  const T& pick(std::span<const T> items) {
    return items[below(items.size())];
  }
  template <class T, std::size_t N>
  const T& pick(const T (&items)[N]) {
    return items[below(N)];
  }
  template <class Container>
  void shuffle(Container& items) {
    for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

 private:
  Philox philox_;
  std::uint64_t sample_, count_ = 0;
};

}  // namespace gov::train
