#include "text/pretokenize.h"

#include <cstdint>

#include "base/error.h"
#include "base/utf8.h"
#include "text/unicode_class.h"

namespace gov {
namespace {

constexpr std::string_view kO200kText =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt2Text = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

using enum CharClass;
constexpr unsigned kUpperSet = class_bits(kUpper, kLetter, kMark);  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
constexpr unsigned kLowerSet = class_bits(kLower, kLetter, kMark);  // [\p{Ll}\p{Lm}\p{Lo}\p{M}]
constexpr unsigned kBothSets = kUpperSet & kLowerSet;
constexpr unsigned kLetters = class_bits(kUpper, kLower, kLetter);  // \p{L}
constexpr unsigned kSpaces = class_bits(kSpace, kNewline);          // \s
constexpr unsigned kPrefix = class_bits(kOther, kSpace, kMark);     // [^\r\n\p{L}\p{N}]
constexpr unsigned kSymbols = class_bits(kOther, kMark);            // [^\s\p{L}\p{N}]
constexpr unsigned kNumbers = class_bits(kNumber);

struct Char {
  CharClass cls;
  std::size_t length;
};

Char char_at(std::string_view text, std::size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  if (lead < 0x80) return {char_class(lead), 1};
  const Utf8Char c = utf8_next(text.substr(at));
  return {char_class(c.code_point), c.length};
}

// End of the run of characters of these classes that starts at `at`; `at` itself when there is none.
std::size_t skip(std::string_view text, std::size_t at, unsigned classes) {
  while (at < text.size()) {
    const Char c = char_at(text, at);
    if (!in_classes(c.cls, classes)) break;
    at += c.length;
  }
  return at;
}

bool is_letter_ignoring_case(char c, char lower) { return (static_cast<unsigned char>(c) | 0x20) == lower; }

// (?i:'s|'t|'re|'ve|'m|'ll|'d)? : end of the contraction at `at`, or `at`. Simple case folding also equates s and
// U+017F.
std::size_t skip_contraction(std::string_view text, std::size_t at) {
  if (at + 1 >= text.size() || text[at] != '\'') return at;
  const char first = text[at + 1];
  for (const char single : {'s', 't', 'm', 'd'}) {
    if (is_letter_ignoring_case(first, single)) return at + 2;
  }
  if (at + 2 >= text.size()) return at;
  const char second = text[at + 2];
  if (first == '\xC5' && second == '\xBF') return at + 3;  // U+017F
  const bool is_double = (is_letter_ignoring_case(first, 'r') && is_letter_ignoring_case(second, 'e')) ||
                         (is_letter_ignoring_case(first, 'v') && is_letter_ignoring_case(second, 'e')) ||
                         (is_letter_ignoring_case(first, 'l') && is_letter_ignoring_case(second, 'l'));
  return is_double ? at + 3 : at;
}

// UPPER* LOWER+ from `at`, with the regular expression's backtracking: when nothing of the lower set follows the greedy
// UPPER* run, the run gives characters back until its last one that is in both sets. `at` when it does not match;
// `upper_end` is then the end of the UPPER* run.
std::size_t match_lower_word(std::string_view text, std::size_t at, std::size_t& upper_end) {
  std::size_t last_both = at, k = at;  // last_both: end of the last character in both sets
  while (k < text.size()) {
    const Char c = char_at(text, k);
    if (!in_classes(c.cls, kUpperSet)) break;
    k += c.length;
    if (in_classes(c.cls, kBothSets)) last_both = k;
  }
  upper_end = k;
  const std::size_t end = skip(text, k, kLowerSet);
  return end > k ? end : last_both;
}

// The first two alternatives: a word with at most one character of something else in front and a contraction behind.
std::size_t match_word(std::string_view text, std::size_t begin, Char first) {
  const bool has_prefix = in_classes(first.cls, kPrefix);
  const std::size_t start = has_prefix ? begin + first.length : begin;
  std::size_t upper_end = start;
  std::size_t end = match_lower_word(text, start, upper_end);
  if (end == start && first.cls == kMark) {
    // The optional prefix is given back: a mark can be the word's first character instead.
    std::size_t ignored;
    end = match_lower_word(text, begin, ignored);
    return skip_contraction(text, end);
  }
  if (end == start) end = upper_end;  // second alternative: UPPER+ alone, no lower can follow
  return end == start ? begin : skip_contraction(text, end);
}

// \s*[\r\n]+|\s+(?!\S)|\s+ at a white space character.
std::size_t match_o200k_space(std::string_view text, std::size_t begin) {
  std::size_t end = begin, last = begin, after_newline = begin;
  while (end < text.size()) {
    const Char c = char_at(text, end);
    if (!in_classes(c.cls, kSpaces)) break;
    last = end;
    end += c.length;
    if (c.cls == kNewline) after_newline = end;
  }
  if (after_newline > begin) return after_newline;
  return end == text.size() || last == begin ? end : last;
}

std::size_t next_o200k(std::string_view text, std::size_t begin) {
  const Char first = char_at(text, begin);
  if (in_classes(first.cls, kPrefix | kLetters)) {
    const std::size_t end = match_word(text, begin, first);
    if (end > begin) return end;
  }
  if (first.cls == kNumber) {
    std::size_t end = begin + first.length;
    for (int i = 1; i < 3 && end < text.size(); ++i) {
      const Char c = char_at(text, end);
      if (c.cls != kNumber) break;
      end += c.length;
    }
    return end;
  }
  const std::size_t symbols = text[begin] == ' ' ? begin + 1 : begin;
  std::size_t end = skip(text, symbols, kSymbols);
  if (end > symbols) {
    while (end < text.size() && (text[end] == '\r' || text[end] == '\n' || text[end] == '/')) ++end;
    return end;
  }
  return match_o200k_space(text, begin);
}

std::size_t next_gpt2(std::string_view text, std::size_t begin) {
  if (text[begin] == '\'') {
    const std::string_view rest = text.substr(begin, 3);
    for (const std::string_view contraction : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
      if (rest.starts_with(contraction)) return begin + contraction.size();
    }
  }
  const std::size_t start = text[begin] == ' ' ? begin + 1 : begin;
  for (const unsigned classes : {kLetters, kNumbers, kSymbols}) {
    const std::size_t end = skip(text, start, classes);
    if (end > start) return end;
  }
  std::size_t end = begin, last = begin;
  while (end < text.size()) {
    const Char c = char_at(text, end);
    if (!in_classes(c.cls, kSpaces)) break;
    last = end;
    end += c.length;
  }
  return end == text.size() || last == begin ? end : last;
}

}  // namespace

std::string_view split_pattern_text(SplitPattern pattern) {
  return pattern == SplitPattern::kO200k ? kO200kText : kGpt2Text;
}

std::optional<SplitPattern> find_split_pattern(std::string_view text) {
  if (text == kO200kText) return SplitPattern::kO200k;
  if (text == kGpt2Text) return SplitPattern::kGpt2;
  return std::nullopt;
}

std::size_t next_piece(SplitPattern pattern, std::string_view text, std::size_t begin) {
  GOV_DCHECK(begin < text.size());
  const std::size_t end = pattern == SplitPattern::kO200k ? next_o200k(text, begin) : next_gpt2(text, begin);
  GOV_DCHECK(end > begin);
  return end;
}

}  // namespace gov
