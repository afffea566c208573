#include "train/toml.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/utf8.h"

namespace gov::train {
namespace {

constexpr std::size_t kMostNesting = 32;
using Made = TomlValue::Made;

bool is_bare(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

class Parser {
 public:
  Parser(std::string_view text, std::string_view file) : text_(text), file_(file) {}

  TomlTable document() {
    check_text();
    TomlTable* table = &root_;
    while (true) {
      skip_blank_lines();
      if (at_end()) return std::move(root_);
      if (peek() == '[') table = header();
      else key_value(*table, 0);
      end_of_line();
    }
  }

  TomlValue value_alone() {
    check_text();
    skip_space();
    TomlValue out = value(0);
    skip_space();
    if (!at_end()) refuse("something follows the value");
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail(ErrorCode::kInvalidArgument, "{}:{}: {}", file_, line_, what);
  }

  void check_text() {
    for (std::string_view rest = text_; !rest.empty();) {
      const Utf8Char c = utf8_next(rest);
      if (!c.valid) refuse("not valid UTF-8");
      if ((c.code_point < 0x20 && c.code_point != '\t' && c.code_point != '\n' && c.code_point != '\r') ||
          c.code_point == 0x7f)
        refuse("a control character");
      line_ += c.code_point == '\n' ? 1 : 0;
      rest.remove_prefix(c.length);
    }
    line_ = 1;
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;
  }

  bool at_end() const { return at_ >= text_.size(); }
  char peek(std::size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool take(char c) {
    if (peek() != c || at_end()) return false;
    ++at_;
    return true;
  }
  void need(char c, const char* where) {
    if (!take(c)) refuse(fmt::format("expected '{}' {}", c, where));
  }
  void skip_space() {
    while (peek() == ' ' || peek() == '\t') ++at_;
  }
  void skip_comment() {
    if (peek() == '#')
      while (!at_end() && peek() != '\n') ++at_;
  }
  bool take_newline() {
    if (peek() == '\r' && peek(1) == '\n') ++at_;
    if (!take('\n')) return false;
    ++line_;
    return true;
  }
  void skip_blank_lines() {
    do {
      skip_space();
      skip_comment();
    } while (take_newline());
  }
  void end_of_line() {
    skip_space();
    skip_comment();
    if (!at_end() && !take_newline()) refuse(fmt::format("'{}' is not expected here", printable(text_.substr(at_, 1))));
  }

  std::vector<std::string> key() {
    std::vector<std::string> parts;
    do {
      skip_space();
      if (peek() == '"' || peek() == '\'') {
        parts.push_back(text_value());
      } else {
        const std::size_t begin = at_;
        while (is_bare(peek())) ++at_;
        if (at_ == begin) refuse("expected a key");
        parts.emplace_back(text_.substr(begin, at_ - begin));
      }
      if (parts.size() > kMostNesting) refuse("a key of too many parts");
      skip_space();
    } while (take('.'));
    return parts;
  }

  // The table that a header names, and all above it.
  TomlTable* header() {
    ++at_;
    const bool is_list = take('[');
    const std::vector<std::string> parts = key();
    need(']', "behind the name of a table");
    if (is_list) need(']', "behind the name of a table");
    TomlTable* table = &root_;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) table = &step(*table, parts[i]);
    const auto [it, is_new] = table->try_emplace(parts.back());
    TomlValue& entry = it->second;
    if (is_list) return &add_element(entry, is_new, parts.back());
    TomlTable* const own = entry.as<TomlTable>();
    if (!is_new && (!own || entry.made != Made::kImplied))
      refuse(fmt::format("'{}' is defined twice", printable(parts.back())));
    entry.made = Made::kHeader;
    entry.line = line_;
    return own;
  }

  TomlTable& add_element(TomlValue& entry, bool is_new, const std::string& name) {
    if (is_new) entry = {TomlList{}, line_}, entry.made = Made::kHeader;
    TomlList* const list = entry.as<TomlList>();
    if (!list || entry.made != Made::kHeader) refuse(fmt::format("'{}' is defined twice", printable(name)));
    list->push_back({TomlTable{}, line_});
    return *list->back().as<TomlTable>();
  }

  // One part of a header's path: a table, made if need be, or the last table of a list.
  TomlTable& step(TomlTable& table, const std::string& part) {
    const auto [it, is_new] = table.try_emplace(part);
    TomlValue& entry = it->second;
    if (is_new) {
      entry.made = Made::kImplied;
      entry.line = line_;
    }
    if (TomlList* list = entry.as<TomlList>(); list && entry.made == Made::kHeader)
      return *list->back().as<TomlTable>();
    TomlTable* const own = entry.as<TomlTable>();
    if (!own || entry.made == Made::kValue) refuse(fmt::format("'{}' is no table", printable(part)));
    return *own;
  }

  void key_value(TomlTable& to, std::size_t depth) {
    const int line = line_;
    const std::vector<std::string> parts = key();
    need('=', "behind a key");
    skip_space();
    TomlTable* table = &to;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto [it, is_new] = table->try_emplace(parts[i]);
      if (is_new) {
        it->second.made = Made::kDotted;
        it->second.line = line;
      }
      if (it->second.made != Made::kDotted) refuse(fmt::format("'{}' is defined twice", printable(parts[i])));
      table = it->second.as<TomlTable>();
    }
    if (table->contains(parts.back())) refuse(fmt::format("'{}' is defined twice", printable(parts.back())));
    TomlValue made = value(depth);
    made.line = line;
    table->emplace(parts.back(), std::move(made));
  }

  TomlValue value(std::size_t depth) {
    if (depth > kMostNesting) refuse("nested too deeply");
    const int line = line_;
    switch (peek()) {
      case '"':
      case '\'': return {text_value(), line};
      case '[': return {list(depth), line};
      case '{': return {inline_table(depth), line};
      default: return scalar();
    }
  }

  TomlList list(std::size_t depth) {
    ++at_;
    TomlList out;
    while (true) {
      skip_blank_lines();
      if (take(']')) return out;
      out.push_back(value(depth + 1));
      skip_blank_lines();
      if (take(']')) return out;
      need(',', "between the entries of a list");
    }
  }

  TomlTable inline_table(std::size_t depth) {
    ++at_;
    TomlTable out;
    skip_space();
    if (take('}')) return out;
    while (true) {
      skip_space();
      key_value(out, depth + 1);
      skip_space();
      if (take('}')) return out;
      need(',', "between the entries of a table");
    }
  }

  std::string text_value() {
    const char quote = text_[at_++];
    if (peek() == quote && peek(1) == quote) refuse("texts of several lines are not read");
    std::string out;
    while (true) {
      if (at_end() || peek() == '\n' || peek() == '\r') refuse("a text does not end");
      const char c = text_[at_++];
      if (c == quote) return out;
      if (c == '\\' && quote == '"') escape(out);
      else out += c;
    }
  }

  void escape(std::string& out) {
    static constexpr std::string_view kFrom = "btnfr\"\\", kTo = "\b\t\n\f\r\"\\";
    const char c = peek();
    ++at_;
    if (const std::size_t i = kFrom.find(c); i != std::string_view::npos && c != '\0') {
      out += kTo[i];
      return;
    }
    const std::size_t digits = c == 'u' ? 4 : c == 'U' ? 8 : 0;
    std::uint32_t code = 0;
    const std::string_view hex = at_ <= text_.size() ? text_.substr(at_, digits) : std::string_view();
    const auto result = std::from_chars(hex.data(), hex.data() + hex.size(), code, 16);
    if (digits == 0 || hex.size() != digits || result.ec != std::errc() || result.ptr != hex.data() + digits ||
        code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
      refuse("an escape that is not known");
    at_ += digits;
    utf8_append(out, code);
  }

  TomlValue scalar() {
    const std::size_t begin = at_;
    while (is_bare(peek()) || peek() == '+' || peek() == '.') ++at_;
    const std::string_view word = text_.substr(begin, at_ - begin);
    if (word == "true" || word == "false") return {word == "true", line_};
    std::string_view digits = word;
    const bool negative = digits.starts_with('-');
    if (negative || digits.starts_with('+')) digits.remove_prefix(1);
    if (digits == "inf") {
      constexpr double kInfinity = std::numeric_limits<double>::infinity();
      return {negative ? -kInfinity : kInfinity, line_};
    }
    if (digits == "nan") return {std::numeric_limits<double>::quiet_NaN(), line_};
    if (word.empty() || digits.empty() || digits[0] < '0' || digits[0] > '9')
      refuse(fmt::format("\"{}\" is no value; texts stand in quotes",
                         printable(word.empty() ? text_.substr(begin, 1) : word, 40)));
    return number(word, digits, negative);
  }

  // `digits`: the word without its sign.
  TomlValue number(std::string_view word, std::string_view digits, bool negative) const {
    std::string plain = negative ? "-" : "";
    for (std::size_t i = 0; i < digits.size(); ++i) {
      const auto is_digit = [&](std::size_t k) {
        return k < digits.size() && std::isxdigit(static_cast<unsigned char>(digits[k]));
      };
      if (digits[i] != '_') plain += digits[i];
      else if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) refuse_number(word);
    }
    const char *const begin = plain.data(), *const end = begin + plain.size();
    if (digits.size() > 2 && digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'o' || digits[1] == 'b')) {
      std::int64_t value = 0;
      const int base = digits[1] == 'x' ? 16 : digits[1] == 'o' ? 8 : 2;
      const bool is_signed = word.size() != digits.size() || plain[2] == '-';
      const auto result = std::from_chars(begin + 2, end, value, base);
      if (is_signed || result.ec != std::errc() || result.ptr != end) refuse_number(word);
      return {value, line_};
    }
    const std::size_t first = negative ? 1 : 0;
    if (plain.size() > first + 1 && plain[first] == '0' && std::isdigit(static_cast<unsigned char>(plain[first + 1])))
      refuse_number(word);
    if (plain.find_first_of(".eE") == std::string::npos) {
      std::int64_t value = 0;
      const auto result = std::from_chars(begin, end, value);
      if (result.ec != std::errc() || result.ptr != end) refuse_number(word);
      return {value, line_};
    }
    const std::size_t dot = plain.find('.');  // a digit stands on both sides
    if (dot != std::string::npos &&
        (dot + 1 == plain.size() || !std::isdigit(static_cast<unsigned char>(plain[dot + 1]))))
      refuse_number(word);
    double value = 0;
    const auto result = std::from_chars(begin, end, value);
    if (result.ec != std::errc() || result.ptr != end) refuse_number(word);
    return {value, line_};
  }

  [[noreturn]] void refuse_number(std::string_view word) const {
    refuse(fmt::format("\"{}\" is no number", printable(word, 40)));
  }

  std::string_view text_, file_;
  std::size_t at_ = 0;
  int line_ = 1;
  TomlTable root_;
};

}  // namespace

TomlTable parse_toml(std::string_view text, std::string_view file) { return Parser(text, file).document(); }
TomlValue parse_toml_value(std::string_view text) { return Parser(text, "value").value_alone(); }

}  // namespace gov::train
