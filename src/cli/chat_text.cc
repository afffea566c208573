#include "cli/chat_text.h"

#include <clocale>
#include <cwchar>

#include "base/utf8.h"

namespace gov::cli {
namespace {

// Characters that change how their neighbours are shown without being seen: what is read would not be what is there.
bool is_deceptive(char32_t c) {
  return (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || (c >= 0xE0000 && c <= 0xE007F);
}

}  // namespace

void Sanitizer::put(char32_t c, std::string& out) {
  if (carriage_return_ && c != '\n') utf8_append(out, 0x240D);
  carriage_return_ = c == '\r';
  if (carriage_return_) return;
  if (c == '\n' || c == '\t') out += static_cast<char>(c);
  else if (c < 0x20) utf8_append(out, 0x2400 + c);
  else if (c == 0x7F) utf8_append(out, 0x2421);
  else if (c == 0x2028 || c == 0x2029) out += '\n';
  else if ((c >= 0x80 && c < 0xA0) || is_deceptive(c)) utf8_append(out, 0xFFFD);
  else utf8_append(out, c);
}

std::string Sanitizer::append(std::string_view text) {
  std::string joined;
  if (!pending_.empty()) {
    joined = pending_ + std::string(text);
    pending_.clear();
    text = joined;
  }
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = utf8_next(text);
    if (c.incomplete) {
      pending_ = text;
      break;
    }
    put(c.code_point, out);
    text.remove_prefix(c.length);
  }
  return out;
}

std::string Sanitizer::flush() {
  std::string out;
  if (!pending_.empty()) put(0xFFFD, out);
  if (carriage_return_) utf8_append(out, 0x240D);
  pending_.clear();
  carriage_return_ = false;
  return out;
}

std::string sanitize(std::string_view text) {
  Sanitizer sanitizer;
  std::string out = sanitizer.append(text);
  return out + sanitizer.flush();
}

int char_width(char32_t c) {
  if (c >= 0x20 && c < 0x7F) return 1;
  if (c >= 0x1F3FB && c <= 0x1F3FF) return 0;  // skin tones join the emoji before them
  // The C library's table, whatever the user's locale is; a system without this locale counts every character as one.
  static const locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  if (utf8 == nullptr) return 1;
  const locale_t before = uselocale(utf8);
  const int width = wcwidth(static_cast<wchar_t>(c));
  uselocale(before);
  return width < 0 ? 1 : width;
}

int text_width(std::string_view utf8) {
  int width = 0;
  while (!utf8.empty()) {
    const Utf8Char c = utf8_next(utf8);
    width += char_width(c.code_point);
    utf8.remove_prefix(c.length);
  }
  return width;
}

}  // namespace gov::cli
