#include "io/json_string.h"

#include "base/utf8.h"

namespace gov {
namespace {

// The bytes of a valid JSON string (without its quotes), escapes decoded, one at a time: comparing and hashing long
// names needs no memory.
class DecodedString {
 public:
  explicit DecodedString(std::string_view raw) : raw_(raw) {}

  // The next byte, or -1 at the end.
  int next() {
    if (used_ < pending_.size()) return static_cast<unsigned char>(pending_[used_++]);
    if (raw_.empty()) return -1;
    if (raw_[0] != '\\') return take();
    raw_.remove_prefix(1);
    const char escape = static_cast<char>(take());
    switch (escape) {
      case 'b': return '\b';
      case 'f': return '\f';
      case 'n': return '\n';
      case 'r': return '\r';
      case 't': return '\t';
      case 'u': break;
      default: return escape;  // quote, backslash, slash
    }
    char32_t c = hex4();
    if (c >= 0xD800 && c < 0xDC00) {
      raw_.remove_prefix(2);  // the scanner has checked that the low half follows
      c = 0x10000 + ((c - 0xD800) << 10) + (hex4() - 0xDC00);
    }
    pending_.clear();
    utf8_append(pending_, c);
    used_ = 1;
    return static_cast<unsigned char>(pending_[0]);
  }

 private:
  int take() {
    const int byte = static_cast<unsigned char>(raw_[0]);
    raw_.remove_prefix(1);
    return byte;
  }
  char32_t hex4() {
    char32_t value = 0;
    for (int i = 0; i < 4; ++i) {
      const int c = take();
      value = value * 16 + static_cast<char32_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return value;
  }

  std::string_view raw_;
  std::string pending_;  // at most 4 bytes, so never on the heap
  std::size_t used_ = 0;
};

bool has_escape(std::string_view raw) { return raw.find('\\') != std::string_view::npos; }

}  // namespace

int compare_json_strings(std::string_view a, std::string_view b) {
  if (!has_escape(a) && !has_escape(b)) return a.compare(b);
  DecodedString left(a), right(b);
  for (;;) {
    const int x = left.next(), y = right.next();
    if (x != y) return x - y;
    if (x < 0) return 0;
  }
}

std::uint64_t hash_json_string(std::string_view raw) {  // FNV-1a
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto mix = [&](int byte) { hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3u; };
  if (!has_escape(raw)) {
    for (const char c : raw) mix(static_cast<unsigned char>(c));
  } else {
    DecodedString bytes(raw);
    for (int byte = bytes.next(); byte >= 0; byte = bytes.next()) mix(byte);
  }
  return hash;
}

std::string decode_json_string(std::string_view raw) {
  if (!has_escape(raw)) return std::string(raw);
  std::string text;
  DecodedString bytes(raw);
  for (int byte = bytes.next(); byte >= 0; byte = bytes.next()) text += static_cast<char>(byte);
  return text;
}

}  // namespace gov
