#pragma once
// Arithmetic on sizes that come from files: every product and sum is checked, an overflow is an empty optional.

#include <cstdint>
#include <optional>

namespace gov {

// A non-negative 64-bit quantity read from a file. Any overflow makes it invalid, and it stays invalid.
class CheckedSize {
 public:
  CheckedSize(std::uint64_t value) : value_(value), valid_(true) {}  // NOLINT: implicit by design, for literals

  CheckedSize& operator+=(CheckedSize other) {
    valid_ = valid_ && other.valid_ && !__builtin_add_overflow(value_, other.value_, &value_);
    return *this;
  }
  CheckedSize& operator*=(CheckedSize other) {
    valid_ = valid_ && other.valid_ && !__builtin_mul_overflow(value_, other.value_, &value_);
    return *this;
  }
  friend CheckedSize operator+(CheckedSize a, CheckedSize b) { return a += b; }
  friend CheckedSize operator*(CheckedSize a, CheckedSize b) { return a *= b; }

  bool valid() const { return valid_; }
  std::optional<std::uint64_t> value() const { return valid_ ? std::optional(value_) : std::nullopt; }

 private:
  std::uint64_t value_;
  bool valid_;
};

}  // namespace gov
