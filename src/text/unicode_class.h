#pragma once
// The pre-tokenizer's view of a character: which of its eight classes a code point is in (Unicode 16.0, as the
// reference tokenizers have it). The table is generated: scripts/generate_unicode_classes.py.

#include <cstddef>
#include <cstdint>

namespace gov {

enum class CharClass : std::uint8_t {
  kOther,    // none of the below
  kSpace,    // White_Space without CR and LF
  kNewline,  // CR, LF
  kNumber,   // N
  kMark,     // M
  kUpper,    // Lu, Lt
  kLower,    // Ll
  kLetter,   // Lm, Lo
};

inline constexpr std::size_t kUnicodeBlockCount = 7172;  // blocks of 128 code points; all above are kOther
extern const std::uint8_t kUnicodeBlockIndex[kUnicodeBlockCount];
extern const std::uint64_t kUnicodeBlockWords[];  // per block eight words of sixteen 4-bit classes

inline CharClass char_class(char32_t c) {
  const std::size_t block = c >> 7;
  if (block >= kUnicodeBlockCount) return CharClass::kOther;
  const std::size_t word = std::size_t{kUnicodeBlockIndex[block]} * 8 + ((c >> 4) & 7);
  return static_cast<CharClass>((kUnicodeBlockWords[word] >> (4 * (c & 15))) & 15);
}

// A set of classes as bits: class_bits(a, b, ...) holds class c when bit c is set.
template <class... Classes>
constexpr unsigned class_bits(Classes... classes) {
  return ((1u << static_cast<unsigned>(classes)) | ...);
}
constexpr bool in_classes(CharClass c, unsigned bits) { return ((bits >> static_cast<unsigned>(c)) & 1u) != 0; }

}  // namespace gov
