#include "cli/chat_inline.h"

#include <algorithm>

namespace gov::cli {
namespace {

constexpr std::size_t kMostOpen = 16;  // nested marks; more are text

bool is_mark(char32_t c) { return c == '*' || c == '_' || c == '~' || c == '`'; }
bool is_space(char32_t c) { return c == ' ' || c == '\n' || c == 0xA0 || c == 0x3000; }
bool is_punctuation(char32_t c) {
  if (c < 0x80) return c > ' ' && !((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'));
  return (c >= 0x2010 && c <= 0x205E) || (c >= 0x3001 && c <= 0x3003) || (c >= 0x3008 && c <= 0x3011) || c == 0xAB ||
         c == 0xBB || c == 0xA1 || c == 0xBF || (c >= 0xFF01 && c <= 0xFF0F) || c == 0xFF1A || c == 0xFF1B;
}

std::uint8_t style_of(char32_t c, std::int32_t length) {
  if (c == '~') return length == 2 ? style::kStrike : 0;
  if (length == 1) return style::kItalic;
  if (length == 2) return style::kBold;
  return length == 3 ? style::kBold | style::kItalic : 0;
}

}  // namespace

void InlineParser::text(char32_t c, std::int32_t count) {
  held_.push_back({c, count, 0, false});
  previous_ = c;
}

void InlineParser::append(char32_t c, Glyphs& out) {
  if (run_length_ > 0 && c == run_ && !escaped_) {
    ++run_length_;
    return;
  }
  if (run_length_ > 0) close_run(c);
  if (escaped_) {
    escaped_ = false;
    if (is_mark(c)) {
      text(c);
      flush(out);
      return;
    }
    text('\\');
  }
  if (ticks_ > 0 ? c == '`' : is_mark(c)) {
    run_ = c;
    run_length_ = 1;
    before_run_ = previous_;
  } else if (c == '\\' && ticks_ == 0) {
    escaped_ = true;
  } else {
    text(c);
  }
  while (held_.size() > kMostHeld && !open_.empty()) {
    give_up_first();
    flush(out);
  }
  flush(out);
}

// The run of marks before `next` is complete.
void InlineParser::close_run(char32_t next) {
  const char32_t c = run_;
  const std::int32_t length = run_length_;
  run_length_ = 0;
  run_ = 0;
  if (c == '`') {
    run_length_ = length;
    close_ticks();
    run_length_ = 0;
    return;
  }
  // CommonMark's flanking rules.
  const bool before_space = is_space(before_run_), before_punctuation = is_punctuation(before_run_);
  const bool after_space = is_space(next), after_punctuation = is_punctuation(next);
  const bool left = !after_space && (!after_punctuation || before_space || before_punctuation);
  const bool right = !before_space && (!before_punctuation || after_space || after_punctuation);
  const bool opens = left && (c != '_' || !right || before_punctuation);
  const bool closes = right && (c != '_' || !left || after_punctuation);
  if (closes && match(c, length)) {
    previous_ = c;
    return;
  }
  const bool waits = opens && style_of(c, length) != 0 && open_.size() < kMostOpen;
  text(c, length);
  if (!waits) return;
  held_.back().open = true;
  open_.push_back(first_ + held_.size() - 1);
}

void InlineParser::close_ticks() {
  const std::int32_t length = run_length_;
  if (ticks_ == 0) {
    text('`', length);
    held_.back().open = true;
    open_.push_back(first_ + held_.size() - 1);
    ticks_ = length;
  } else if (length == ticks_) {
    resolve(open_.size() - 1, style::kCode);
    held_.push_back({'`', length, style::kCode, false});
    previous_ = '`';
    ticks_ = 0;
  } else {
    text('`', length);
  }
}

// The mark open_[at] and the one that is being closed belong together; marks between them are text.
void InlineParser::resolve(std::size_t at, std::uint8_t toggle) {
  for (std::size_t i = at; i < open_.size(); ++i) held_at(open_[i]).open = false;
  held_at(open_[at]).toggle = toggle;
  open_.resize(at);
}

bool InlineParser::match(char32_t c, std::int32_t length) {
  const auto find = [&](std::int32_t wanted) {
    for (std::size_t i = open_.size(); i-- > 0;) {
      if (held_at(open_[i]).c == c && held_at(open_[i]).count == wanted) return i;
    }
    return open_.size();
  };
  const std::uint8_t toggle = style_of(c, length);
  if (toggle == 0) return false;
  const std::size_t whole = find(length);
  if (whole < open_.size()) {
    resolve(whole, toggle);
    held_.push_back({c, length, toggle, false});
    return true;
  }
  if (length != 3) return false;
  const std::size_t one = find(1), two = find(2);  // "**bold *both***"
  if (one == open_.size() || two == open_.size()) return false;
  resolve(std::max(one, two), one > two ? style::kItalic : style::kBold);
  resolve(std::min(one, two), one > two ? style::kBold : style::kItalic);
  held_.push_back({c, length, toggle, false});
  return true;
}

void InlineParser::give_up_first() {
  Held& mark = held_at(open_.front());
  mark.open = false;
  if (mark.c == '`') ticks_ = 0;
  open_.pop_front();
}

void InlineParser::flush(Glyphs& out) {
  while (!held_.empty() && !held_.front().open) {
    const Held& held = held_.front();
    if (held.toggle != 0) style_ ^= held.toggle;
    else
      for (std::int32_t i = 0; i < held.count; ++i) out.push_back({held.c, static_cast<std::uint8_t>(base_ | style_)});
    held_.pop_front();
    ++first_;
  }
}

void InlineParser::finish(Glyphs& out) {
  if (run_length_ > 0) close_run('\n');
  if (escaped_) text('\\');
  escaped_ = false;
  while (!open_.empty()) give_up_first();
  flush(out);
  ticks_ = 0;
  style_ = 0;
  previous_ = ' ';
}

}  // namespace gov::cli
