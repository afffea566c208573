#include "cli/chat_markdown.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"
#include "cli/chat_table.h"

namespace gov::cli {
namespace {

constexpr std::size_t kMostIndent = 40;  // more leading spaces are shown as they are
constexpr int kMostQuotes = 8;
constexpr std::size_t kMostDigits = 9;

std::size_t run_of(std::u32string_view line, std::size_t at, char32_t c) {
  std::size_t n = 0;
  while (at + n < line.size() && line[at + n] == c) ++n;
  return n;
}

bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }

// At least three of the same mark, nothing else but spaces.
bool is_rule(std::u32string_view line) {
  const std::size_t indent = run_of(line, 0, ' ');
  if (indent == line.size()) return false;
  const auto marks = static_cast<std::size_t>(std::count(line.begin(), line.end(), line[indent]));
  return marks >= 3 && marks + static_cast<std::size_t>(std::count(line.begin(), line.end(), U' ')) == line.size();
}

}  // namespace

Markdown::Markdown(int width, std::uint8_t base) : width_(std::max(width, 20)), base_(base), wrapper_(width_) {}

std::string Markdown::append(std::string_view text) {
  const std::string clean = sanitizer_.append(text);
  for (std::string_view rest = clean; !rest.empty();) {
    const Utf8Char c = utf8_next(rest);
    feed(c.code_point);
    rest.remove_prefix(c.length);
  }
  std::string out;
  encoder_.append(out_, out);
  out_.clear();
  return out;
}

std::string Markdown::finish() {
  std::string out = append(sanitizer_.flush());
  const bool started = state_ != State::kStart && state_ != State::kCodeStart;
  if (started || !line_.empty() || quotes_ > 0) end_line();
  flush_table();
  encoder_.append(out_, out);
  out_.clear();
  fence_ = 0;
  gap_ = written_ = false;
  state_ = State::kStart;
  return out;
}

void Markdown::feed(char32_t c) {
  if (c == '\t') {
    for (int i = 0; i < 4; ++i) feed(' ');
  } else if (c == '\n') {
    end_line();
  } else if (fence_ != 0) {
    feed_code(c);
  } else {
    feed_line(c);
  }
}

void Markdown::feed_line(char32_t c) {
  if (state_ == State::kText) return text(c);
  line_ += c;
  if (state_ == State::kStart) look_at_start();
  else if (state_ == State::kRule && c != ' ' && c != line_[run_of(line_, 0, ' ')]) begin_plain();
}

// Decides what kind of line begins with line_, or waits for more. line_ is short here: every branch that can take long
// has a state of its own.
void Markdown::look_at_start() {
  const std::size_t indent = run_of(line_, 0, ' ');
  if (indent == line_.size()) {
    if (indent > kMostIndent) begin_text(0, U"", base_, 0);
    return;
  }
  const char32_t c = line_[indent];
  const std::size_t run = run_of(line_, indent, c);
  const bool more = indent + run == line_.size();  // the run of c can grow
  if (c == '>' && quotes_ < kMostQuotes) {
    ++quotes_;
    line_.clear();
  } else if (c == '`' || c == '~') {
    if (run >= 3 && quotes_ == 0) state_ = State::kFenceLine;
    else if (!more || run >= 3) begin_text(indent, U"", base_, indent);
  } else if (c == '#') {
    if (run > 6) return begin_text(indent, U"", base_, indent);
    if (more) return;
    if (line_[indent + run] != ' ') return begin_text(indent, U"", base_, indent);
    const auto heading = static_cast<std::uint8_t>(base_ | style::kBold | (run <= 2 ? style::kUnderline : 0));
    begin_text(0, U"", heading, indent + run + 1);
  } else if (c == '|' && quotes_ == 0) {
    state_ = State::kTableLine;
  } else if (!look_at_list(indent)) {
    begin_text(indent, U"", base_, indent);
  }
}

// False if the line is no list item and no rule, and cannot become one.
bool Markdown::look_at_list(std::size_t indent) {
  const std::u32string_view rest = std::u32string_view(line_).substr(indent);
  const char32_t c = rest[0];
  if (c == '-' || c == '*' || c == '_' || c == '+') {
    if (rest.size() == 1) return true;
    if (c != '+' && rest[1] == c) {
      state_ = State::kRule;
      return true;
    }
    if (c == '_' || rest[1] != ' ') return false;
    const std::size_t spaces = run_of(rest, 1, ' ');
    if (1 + spaces == rest.size() && spaces < 4) return true;  // "* * *" is a rule
    if (c != '+' && 1 + spaces < rest.size() && rest[1 + spaces] == c) state_ = State::kRule;
    else begin_text(indent, U"• ", base_, indent + 1 + spaces);
    return true;
  }
  std::size_t digits = 0;
  while (digits < rest.size() && is_digit(rest[digits])) ++digits;
  if (digits == 0 || digits > kMostDigits) return false;
  if (digits == rest.size()) return true;
  if (rest[digits] != '.' && rest[digits] != ')') return false;
  if (digits + 1 == rest.size()) return true;
  if (rest[digits + 1] != ' ') return false;
  begin_text(indent, std::u32string(rest.substr(0, digits + 2)), base_, indent + digits + 2);
  return true;
}

// A line that looked like a rule is none: it is a list item or plain text.
void Markdown::begin_plain() {
  const std::size_t indent = run_of(line_, 0, ' ');
  const char32_t c = line_[indent];
  const bool item = (c == '-' || c == '*') && indent + 1 < line_.size() && line_[indent + 1] == ' ';
  if (!item) return begin_text(indent, U"", base_, indent);
  begin_text(indent, U"• ", base_, indent + 1 + run_of(line_, indent + 1, ' '));
}

// The line's kind is certain: shows its marker, and what is left of line_ as text.
void Markdown::begin_text(std::size_t indent, std::u32string_view marker, std::uint8_t style, std::size_t consumed) {
  const std::u32string rest = line_.substr(std::min(consumed, line_.size()));
  line_.clear();
  write_gap();
  if (quotes_ > 0 && indent > 0) --indent;  // the space behind '>' belongs to it
  Glyphs first;
  for (int i = 0; i < quotes_; ++i) append_glyphs(first, U"│ ", base_ | style::kDim);
  const std::size_t most = static_cast<std::size_t>(width_) / 2;
  append_glyphs(first, std::u32string(std::min(indent, most), U' '), 0);
  Glyphs hanging = first;
  append_glyphs(first, marker, base_);
  append_glyphs(hanging, std::u32string(marker.size(), U' '), 0);
  wrapper_.begin(first, std::move(hanging), out_);
  inline_.begin(style);
  state_ = State::kText;
  for (const char32_t c : rest) text(c);
}

void Markdown::text(char32_t c) {
  glyphs_.clear();
  inline_.append(c, glyphs_);
  for (const Glyph& glyph : glyphs_) wrapper_.put(glyph, out_);
}

void Markdown::end_line() {
  if (fence_ != 0) return end_code_line();
  if (state_ == State::kText) {
    glyphs_.clear();
    inline_.finish(glyphs_);
    for (const Glyph& glyph : glyphs_) wrapper_.put(glyph, out_);
    wrapper_.end(out_);
  } else {
    end_held_line();
  }
  if (fence_ == 0) state_ = State::kStart;
  line_.clear();
  quotes_ = 0;
}

void Markdown::end_held_line() {
  if (state_ == State::kTableLine) {
    table_.push_back(std::exchange(line_, {}));
    if (table_.size() == 2 && !is_table_rule(table_[1])) flush_table();
    return;
  }
  if (state_ == State::kFenceLine) return open_code();
  if (state_ == State::kRule && is_rule(line_)) {
    write_gap();
    verbatim(std::u32string(static_cast<std::size_t>(std::min(width_, 40)), U'─'), base_ | style::kDim);
    return;
  }
  if (state_ == State::kStart && run_of(line_, 0, ' ') == line_.size() && quotes_ == 0) return blank_line();
  const bool waiting = state_ == State::kRule;
  if (waiting) begin_plain();
  else begin_text(run_of(line_, 0, ' '), U"", base_, run_of(line_, 0, ' '));
  end_line();
}

// Blank lines between blocks are one; those at the beginning and the end are none.
void Markdown::blank_line() {
  flush_table();
  gap_ = written_;
}

void Markdown::write_gap() {
  flush_table();
  if (std::exchange(gap_, false)) out_.push_back({'\n', 0});
  written_ = true;
}

void Markdown::verbatim(std::u32string_view text, std::uint8_t style) {
  append_glyphs(out_, text, style);
  out_.push_back({'\n', 0});
}

void Markdown::open_code() {
  const std::size_t indent = run_of(line_, 0, ' ');
  const char32_t c = line_[indent];
  const std::size_t run = run_of(line_, indent, c);
  if (c == '`' && line_.find(c, indent + run) != std::u32string::npos) {  // ```code``` in a line of text
    begin_text(indent, U"", base_, indent);
    return end_line();
  }
  write_gap();
  fence_ = c;
  fence_length_ = run;
  fence_indent_ = indent;
  verbatim(line_, base_ | style::kDim);
  line_.clear();
  state_ = State::kCodeStart;
}

void Markdown::feed_code(char32_t c) {
  const auto code = static_cast<std::uint8_t>(base_ | style::kCode);
  if (state_ == State::kCode) {
    out_.push_back({c, code});
    return;
  }
  line_ += c;
  if (c == ' ' || c == fence_) return;
  append_glyphs(out_, std::exchange(line_, {}), code);
  state_ = State::kCode;
}

void Markdown::end_code_line() {
  const std::size_t indent = run_of(line_, 0, ' ');
  const std::size_t run = run_of(line_, indent, fence_);
  const bool closes = state_ == State::kCodeStart && run >= fence_length_ && indent <= fence_indent_ + 3 &&
                      line_.find_first_not_of(U' ', indent + run) == std::u32string::npos;
  if (closes) {
    verbatim(line_, base_ | style::kDim);
    fence_ = 0;
    state_ = State::kStart;
  } else {
    verbatim(line_, base_ | style::kCode);
    state_ = State::kCodeStart;
  }
  line_.clear();
}

void Markdown::flush_table() {
  if (table_.empty()) return;
  const std::vector<std::u32string> rows = std::exchange(table_, {});
  if (std::exchange(gap_, false)) out_.push_back({'\n', 0});
  written_ = true;
  if (rows.size() >= 2 && is_table_rule(rows[1])) return write_table(rows, width_, base_, out_);
  for (const std::u32string& row : rows) {
    wrapper_.begin({}, {}, out_);
    inline_.begin(base_);
    for (const char32_t c : row) text(c);
    glyphs_.clear();
    inline_.finish(glyphs_);
    for (const Glyph& glyph : glyphs_) wrapper_.put(glyph, out_);
    wrapper_.end(out_);
  }
}

}  // namespace gov::cli
