#pragma once
// Seeded generator of safetensors files: valid ones in every spelling that the format allows, and malformed ones in
// classes, each of which breaks exactly one rule at a known place.

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/safetensors.h"

namespace gov::test {

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t below(std::uint64_t count) { return engine_() % count; }
  bool flip() { return below(2) == 0; }
  template <class T>
  const T& pick(const std::vector<T>& items) {
    return items[static_cast<std::size_t>(below(items.size()))];
  }

 private:
  std::mt19937_64 engine_;
};

struct ValidCase {
  std::string file;
  std::vector<SafetensorsEntry> entries;  // by position; dtype is left empty
};

struct MalformedCase {
  std::string_view class_name;
  SafetensorsRule rule;
  std::string file;
  std::pair<std::uint64_t, std::uint64_t> where;  // the error's offset must lie in [first, second]
};

std::string file_of(std::string_view header, std::string_view data);  // length + header + data

ValidCase make_valid(Random& random);
std::size_t malformed_classes();
MalformedCase make_malformed(std::size_t class_index, Random& random);

}  // namespace gov::test
