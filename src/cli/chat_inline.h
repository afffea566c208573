#pragma once
// Markdown inside of a line: **bold**, *italic*, ***both***, `code`, ~~struck~~ and backslashes before these. The text
// comes character by character; what stands behind an opening mark waits for the closing one, at most kMostHeld
// characters, so that a lone mark is shown as it is. Every character is looked at a bounded number of times.

#include <deque>

#include "cli/chat_glyph.h"

namespace gov::cli {

class InlineParser {
 public:
  static constexpr std::size_t kMostHeld = 400;

  // base: the style of plain text in this line.
  void begin(std::uint8_t base) { base_ = base; }
  void append(char32_t c, Glyphs& out);
  void finish(Glyphs& out);  // the line ends: marks that are still open are text

 private:
  struct Held {
    char32_t c;
    std::int32_t count;   // repetitions: a run of marks is one entry
    std::uint8_t toggle;  // a mark that has its partner: style bits to change
    bool open;            // a mark that waits for its partner
  };

  void text(char32_t c, std::int32_t count = 1);
  void close_run(char32_t next);
  void close_ticks();
  bool match(char32_t c, std::int32_t length);
  void resolve(std::size_t at, std::uint8_t toggle);
  void flush(Glyphs& out);
  void give_up_first();
  Held& held_at(std::size_t index) { return held_[index - first_]; }

  std::deque<Held> held_;
  std::size_t first_ = 0;         // index of held_.front(); indices only grow
  std::deque<std::size_t> open_;  // indices of the marks that wait
  char32_t run_ = 0, previous_ = ' ', before_run_ = ' ';
  std::int32_t run_length_ = 0;
  std::int32_t ticks_ = 0;  // inside of code: the length of its opening run
  bool escaped_ = false;
  std::uint8_t base_ = 0, style_ = 0;
};

}  // namespace gov::cli
