#pragma once
// Markdown to ANSI text while it comes in: headings, emphasis, code, lists, quotes, rules and tables, wrapped to the
// terminal's width. Output is only ever appended. A line is shown word by word as soon as its kind is certain; a table
// waits for its end. The whole output does not depend on how the input was cut into pieces, and takes linear time.
//
// Not CommonMark to the letter: a line break in the source is one in the output, emphasis ends with its line, links and
// mathematics stay as they were written.

#include "cli/chat_glyph.h"
#include "cli/chat_inline.h"
#include "cli/chat_text.h"

namespace gov::cli {

class Markdown {
 public:
  // base: a style for everything, such as style::kDim.
  explicit Markdown(int width, std::uint8_t base = 0);
  // The input is sanitized here.
  std::string append(std::string_view text);
  std::string finish();  // what waited; ends with a line feed unless there was no text at all

 private:
  enum class State {
    kStart,      // the line's kind is not certain: line_ is what came
    kRule,       // so far it can be a thematic break
    kFenceLine,  // the line that opens a code block
    kTableLine,
    kText,
    kCodeStart,  // inside of a code block: the line can still be its end
    kCode,
  };

  void feed(char32_t c);
  void feed_line(char32_t c);  // outside of code blocks
  void end_line();             // of line_, whatever its state
  void end_held_line();
  void look_at_start();
  bool look_at_list(std::size_t indent);
  void begin_text(std::size_t indent, std::u32string_view marker, std::uint8_t style, std::size_t consumed);
  void begin_plain();
  void blank_line();
  void open_code();
  void feed_code(char32_t c);
  void end_code_line();
  void text(char32_t c);
  void write_gap();
  void flush_table();
  void verbatim(std::u32string_view text, std::uint8_t style);

  int width_;
  std::uint8_t base_;
  Sanitizer sanitizer_;
  InlineParser inline_;
  LineWrapper wrapper_;
  AnsiEncoder encoder_;
  Glyphs out_, glyphs_;
  State state_ = State::kStart;
  std::u32string line_;
  std::vector<std::u32string> table_;
  int quotes_ = 0;      // depth of '>' in this line
  char32_t fence_ = 0;  // of the open code block
  std::size_t fence_length_ = 0, fence_indent_ = 0;
  bool gap_ = false, written_ = false;
};

}  // namespace gov::cli
