#include "text/byte_level.h"

#include <array>
#include <cstdint>

#include "base/utf8.h"

namespace gov {
namespace {

// Bytes that print as themselves in Latin-1; the other 68 are numbered from U+0100 on, in order.
constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<char16_t, 256> character{};
  std::array<std::int16_t, 0x144> byte{};  // by character, -1: not in the alphabet
};

constexpr Alphabet make_alphabet() {
  Alphabet out;
  out.byte.fill(-1);
  unsigned next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const unsigned c = stands_for_itself(b) ? b : next++;
    out.character[b] = static_cast<char16_t>(c);
    out.byte[c] = static_cast<std::int16_t>(b);
  }
  return out;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

std::optional<std::string> bytes_from_byte_level(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Char c = utf8_next(text.substr(i));
    if (!c.valid || c.code_point >= kAlphabet.byte.size() || kAlphabet.byte[c.code_point] < 0) return std::nullopt;
    out += static_cast<char>(kAlphabet.byte[c.code_point]);
    i += c.length;
  }
  return out;
}

std::string byte_level_from_bytes(std::string_view bytes) {
  std::string out;
  for (const char b : bytes) utf8_append(out, kAlphabet.character[static_cast<unsigned char>(b)]);
  return out;
}

}  // namespace gov
