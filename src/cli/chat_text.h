#pragma once
// Model output made safe for a terminal, and how wide it is there.

#include <string>
#include <string_view>

namespace gov::cli {

// Text of a model, piece by piece. Control bytes never pass: an escape sequence would otherwise rename the window, move
// the cursor or paste into the shell. Line feed and tab stay, a carriage return before a line feed is dropped, other
// controls become their visible picture (U+241B for escape), C1 controls, bidirectional overrides, invisible tag
// characters and bytes that are not UTF-8 become U+FFFD, line and paragraph separators become line feeds.
class Sanitizer {
 public:
  std::string append(std::string_view text);
  std::string flush();  // what waited for its rest

 private:
  void put(char32_t c, std::string& out);

  std::string pending_;  // at most 3 bytes: the start of a character
  bool carriage_return_ = false;
};

std::string sanitize(std::string_view text);

// Columns of a character on a terminal: 0 for combining marks, 2 for East Asian wide ones and emoji, otherwise 1.
int char_width(char32_t c);
int text_width(std::string_view utf8);

}  // namespace gov::cli
