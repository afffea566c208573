#pragma once
// Styled characters: what the markdown renderer hands from one of its layers to the next.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gov::cli {

namespace style {
constexpr std::uint8_t kBold = 1, kItalic = 2, kCode = 4, kStrike = 8, kUnderline = 16, kDim = 32;
}

struct Glyph {
  char32_t c;
  std::uint8_t style;
  friend bool operator==(const Glyph&, const Glyph&) = default;
};
using Glyphs = std::vector<Glyph>;

void append_glyphs(Glyphs& out, std::u32string_view text, std::uint8_t style);
int glyph_width(const Glyphs& glyphs);

// Glyphs to text with ANSI styles. A line never ends inside a style, so that what follows starts clean.
class AnsiEncoder {
 public:
  void append(const Glyphs& glyphs, std::string& out);

 private:
  void change_style(std::uint8_t to, std::string& out);
  std::uint8_t style_ = 0;
};

// Breaks lines at spaces, and between wide characters, so that none is wider than `width`; a longer word is cut. What
// comes out depends on the characters alone, not on how they were grouped.
class LineWrapper {
 public:
  explicit LineWrapper(int width) : width_(width) {}
  // Begins a line: the marker as it is; lines that wrapping adds begin with `hanging`.
  void begin(const Glyphs& marker, Glyphs hanging, Glyphs& out);
  void put(Glyph glyph, Glyphs& out);
  void end(Glyphs& out);  // the line is complete, with its line feed
  bool at_start() const { return column_ == 0 && word_.empty(); }

 private:
  void flush_word(Glyphs& out);
  void wrap(Glyphs& out);
  void emit(Glyph glyph, int width, Glyphs& out);

  int width_;
  Glyphs hanging_, spaces_, word_;
  int hanging_width_ = 0, column_ = 0, word_width_ = 0;
  bool glued_ = false;  // the word goes on from what was already written
};

}  // namespace gov::cli
