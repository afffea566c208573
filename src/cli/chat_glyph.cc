#include "cli/chat_glyph.h"

#include <utility>

#include "base/utf8.h"
#include "cli/chat_text.h"

namespace gov::cli {

void append_glyphs(Glyphs& out, std::u32string_view text, std::uint8_t style) {
  for (const char32_t c : text) out.push_back({c, style});
}

int glyph_width(const Glyphs& glyphs) {
  int width = 0;
  for (const Glyph& glyph : glyphs) width += char_width(glyph.c);
  return width;
}

void AnsiEncoder::change_style(std::uint8_t to, std::string& out) {
  if (to == style_) return;
  out += "\033[0";
  if (to & style::kBold) out += ";1";
  if (to & style::kDim) out += ";2";
  if (to & style::kItalic) out += ";3";
  if (to & style::kUnderline) out += ";4";
  if (to & style::kStrike) out += ";9";
  if (to & style::kCode) out += ";36";
  out += 'm';
  style_ = to;
}

void AnsiEncoder::append(const Glyphs& glyphs, std::string& out) {
  for (const Glyph& glyph : glyphs) {
    change_style(glyph.c == '\n' ? std::uint8_t{0} : glyph.style, out);
    utf8_append(out, glyph.c);
  }
}

void LineWrapper::begin(const Glyphs& marker, Glyphs hanging, Glyphs& out) {
  hanging_ = std::move(hanging);
  hanging_width_ = glyph_width(hanging_);
  for (const Glyph& glyph : marker) emit(glyph, char_width(glyph.c), out);
}

void LineWrapper::emit(Glyph glyph, int width, Glyphs& out) {
  out.push_back(glyph);
  column_ += width;
}

void LineWrapper::wrap(Glyphs& out) {
  out.push_back({'\n', 0});
  column_ = 0;
  for (const Glyph& glyph : hanging_) emit(glyph, char_width(glyph.c), out);
}

void LineWrapper::put(Glyph glyph, Glyphs& out) {
  if (glyph.c == ' ') {
    flush_word(out);
    glued_ = false;
    spaces_.push_back(glyph);
    return;
  }
  const int width = char_width(glyph.c);
  if (width == 2) flush_word(out);
  word_.push_back(glyph);
  word_width_ += width;
  if (width == 2) {
    flush_word(out);
  } else if (word_width_ > width_ - hanging_width_) {
    flush_word(out);
    glued_ = true;
  }
}

void LineWrapper::flush_word(Glyphs& out) {
  if (word_.empty()) return;
  const int spaces = static_cast<int>(spaces_.size());
  if (!glued_ && column_ + spaces + word_width_ > width_ && column_ > hanging_width_) {
    wrap(out);
  } else {
    for (const Glyph& space : spaces_) emit(space, 1, out);
  }
  spaces_.clear();
  for (const Glyph& glyph : word_) {
    const int width = char_width(glyph.c);
    if (width > 0 && column_ + width > width_ && column_ > hanging_width_) wrap(out);
    emit(glyph, width, out);
  }
  word_.clear();
  word_width_ = 0;
}

void LineWrapper::end(Glyphs& out) {
  flush_word(out);
  spaces_.clear();
  glued_ = false;
  out.push_back({'\n', 0});
  column_ = 0;
}

}  // namespace gov::cli
