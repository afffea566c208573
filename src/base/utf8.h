#pragma once
// UTF-8 by the Unicode Standard (table 3-7): overlong forms, surrogates and values above U+10FFFF are invalid.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace gov {

struct Utf8Char {
  char32_t code_point;  // U+FFFD when invalid
  std::uint8_t length;  // bytes taken, at least 1; an invalid sequence takes its maximal valid prefix (Unicode 3.9,
                        // U+FFFD practice)
  bool valid;
  bool incomplete;  // invalid only because the text ends inside a sequence
};

// The first character of a non-empty text.
inline Utf8Char utf8_next(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1, true, false};
  int need;
  unsigned char low = 0x80, high = 0xBF;
  char32_t value;
  if (lead >= 0xC2 && lead <= 0xDF) {
    need = 1;
    value = lead & 0x1Fu;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    need = 2;
    value = lead & 0x0Fu;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    need = 3;
    value = lead & 0x07u;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {0xFFFD, 1, false, false};
  }
  for (int i = 1; i <= need; ++i) {
    if (static_cast<std::size_t>(i) >= text.size()) return {0xFFFD, static_cast<std::uint8_t>(i), false, true};
    const unsigned char c = byte(static_cast<std::size_t>(i));
    if (c < low || c > high) return {0xFFFD, static_cast<std::uint8_t>(i), false, false};
    value = (value << 6) | (c & 0x3Fu);
    low = 0x80;
    high = 0xBF;
  }
  return {value, static_cast<std::uint8_t>(need + 1), true, false};
}

inline void utf8_append(std::string& out, char32_t c) {
  const auto push = [&](char32_t b) { out += static_cast<char>(static_cast<unsigned char>(b)); };
  if (c < 0x80) {
    push(c);
  } else if (c < 0x800) {
    push(0xC0 | (c >> 6));
    push(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    push(0xE0 | (c >> 12));
    push(0x80 | ((c >> 6) & 0x3F));
    push(0x80 | (c & 0x3F));
  } else {
    push(0xF0 | (c >> 18));
    push(0x80 | ((c >> 12) & 0x3F));
    push(0x80 | ((c >> 6) & 0x3F));
    push(0x80 | (c & 0x3F));
  }
}

inline bool utf8_valid(std::string_view text) {
  while (!text.empty()) {
    const Utf8Char c = utf8_next(text);
    if (!c.valid) return false;
    text.remove_prefix(c.length);
  }
  return true;
}

// Characters of a valid text.
inline std::size_t utf8_count(std::string_view text) {
  std::size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

// Takes the whole characters off `bytes` as valid UTF-8, every maximal invalid sequence as U+FFFD; an unfinished
// character at the end stays, unless `is_last`.
inline std::string utf8_take(std::string& bytes, bool is_last) {
  std::string out;
  std::size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Char c = utf8_next(std::string_view(bytes).substr(at));
    if (c.incomplete && !is_last) break;
    if (c.valid) out.append(bytes, at, c.length);
    else utf8_append(out, 0xFFFD);
    at += c.length;
  }
  bytes.erase(0, at);
  return out;
}

}  // namespace gov
