#include "text/grammar/regex_parse.h"

#include <map>

#include "base/utf8.h"
#include "text/unicode_class.h"

namespace gov {
namespace {

constexpr int kMaxGroups = 50;  // nested
constexpr std::uint32_t kMaxRepeat = 100'000;

// Characters of these classes (unicode_class.h).
CharSet class_set(unsigned bits) {
  CharSet out;
  const char32_t end = kUnicodeBlockCount * 128;
  for (char32_t c = 0; c < end;) {
    if (!in_classes(char_class(c), bits)) {
      ++c;
      continue;
    }
    const char32_t from = c;
    while (c < end && in_classes(char_class(c), bits)) ++c;
    out.emplace_back(from, c - 1);
  }
  return char_set(std::move(out));
}

constexpr unsigned kLetters = class_bits(CharClass::kUpper, CharClass::kLower, CharClass::kLetter);
constexpr unsigned kMarks = class_bits(CharClass::kMark);
constexpr unsigned kNumbers = class_bits(CharClass::kNumber);
constexpr unsigned kSpaces = class_bits(CharClass::kSpace, CharClass::kNewline);

// What surely is in a class, and what may be.
struct ClassSets {
  CharSet narrow, wide;
  ClassSets inverted() const { return {char_set_complement(wide), char_set_complement(narrow)}; }
};

ClassSets escape_class(char32_t letter) {
  switch (letter) {
    case 'd': return {char_set({{'0', '9'}}), class_set(kNumbers)};
    case 'w': {
      const CharSet ascii = char_set({{'0', '9'}, {'A', 'Z'}, {'a', 'z'}, {'_', '_'}});
      return {ascii, char_set_union(ascii, class_set(kLetters | kMarks | kNumbers))};
    }
    default: {
      const CharSet more = char_set_union(class_set(kSpaces), char_set({{0x1C, 0x1F}, {0xFEFF, 0xFEFF}}));
      const CharSet space = char_set({{9, 13},
                                      {32, 32},
                                      {0xA0, 0xA0},
                                      {0x1680, 0x1680},
                                      {0x2000, 0x200A},
                                      {0x2028, 0x2029},
                                      {0x202F, 0x202F},
                                      {0x205F, 0x205F},
                                      {0x3000, 0x3000}});
      return {space, more};
    }
  }
}

class Parser {
 public:
  Parser(std::string_view pattern, GrammarBudget& budget) : budget_(budget) {
    if (pattern.size() > 64u << 10) fail(ErrorCode::kInvalidArgument, "longer than 64 KiB");
    while (!pattern.empty()) {
      const Utf8Char c = utf8_next(pattern);
      if (!c.valid) fail(ErrorCode::kInvalidArgument, "not UTF-8");
      text_ += c.code_point;
      pattern.remove_prefix(c.length);
    }
  }

  RegexTree parse() {
    tree_.root = alternatives(0);
    if (at_ < text_.size()) fail(ErrorCode::kInvalidArgument, "an unmatched ) at character {}", at_ + 1);
    return std::move(tree_);
  }

 private:
  using Kind = RegexNode::Kind;

  bool more() const { return at_ < text_.size(); }
  char32_t peek(std::size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : 0; }
  bool take(char32_t c) {
    if (!more() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool take(std::u32string_view s) {
    if (std::u32string_view(text_).substr(at_, s.size()) != s) return false;
    at_ += s.size();
    return true;
  }
  std::uint32_t add(RegexNode node) {
    budget_.tick();
    tree_.nodes.push_back(std::move(node));
    return static_cast<std::uint32_t>(tree_.nodes.size() - 1);
  }
  std::uint32_t add_set(CharSet set) {
    const auto [known, added] = set_index_.emplace(std::move(set), static_cast<std::uint32_t>(tree_.sets.size()));
    if (added) {
      set_bytes_ += known->first.size() * 2 * sizeof(known->first[0]);  // here and in the tree
      budget_.check_bytes(set_bytes_);
      tree_.sets.push_back(known->first);
    }
    return add({Kind::kSet, known->second, 0, 0, {}});
  }

  std::uint32_t alternatives(int depth) {
    if (depth > kMaxGroups) fail(ErrorCode::kInvalidArgument, "groups nested deeper than {}", kMaxGroups);
    RegexNode node{Kind::kAlternatives, 0, 0, 0, {}};
    do {
      node.children.push_back(sequence(depth));
    } while (take(U'|'));
    return node.children.size() == 1 ? node.children[0] : add(std::move(node));
  }

  std::uint32_t sequence(int depth) {
    RegexNode node{Kind::kSequence, 0, 0, 0, {}};
    while (more() && peek() != '|' && peek() != ')') {
      const std::uint32_t item = atom(depth);
      node.children.push_back(quantified(item));
    }
    return node.children.size() == 1 ? node.children[0] : add(std::move(node));
  }

  std::uint32_t quantified(std::uint32_t item) {
    std::uint32_t min = 0, max = 0;
    if (!quantifier(min, max)) return item;
    const Kind kind = tree_.nodes[item].kind;
    if (kind == Kind::kBegin || kind == Kind::kEnd) fail(ErrorCode::kInvalidArgument, "a repeated anchor");
    take(U'?');  // lazy: the same texts match
    if (peek() == '+' && more()) fail(ErrorCode::kInvalidArgument, "possessive repetition is not supported");
    std::uint32_t again = 0, until = 0;
    if (quantifier(again, until)) fail(ErrorCode::kInvalidArgument, "a repetition of a repetition");
    return add({Kind::kRepeat, 0, min, max, {item}});
  }

  bool quantifier(std::uint32_t& min, std::uint32_t& max) {
    if (take(U'*')) return min = 0, max = Dfa::kInfinite, true;
    if (take(U'+')) return min = 1, max = Dfa::kInfinite, true;
    if (take(U'?')) return min = 0, max = 1, true;
    if (peek() != '{' || !more()) return false;
    const std::size_t before = at_++;
    if (peek() == ',') fail(ErrorCode::kInvalidArgument, "{{,n}} means different things in different engines");
    const bool low = number(min);
    max = min;
    if (low && take(U',')) {
      if (!number(max)) max = Dfa::kInfinite;
    }
    if (low && take(U'}')) {
      if (max < min) fail(ErrorCode::kInvalidArgument, "a repetition {{{},{}}} out of order", min, max);
      return true;
    }
    at_ = before;
    return false;
  }

  bool number(std::uint32_t& value) {
    if (peek() < '0' || peek() > '9') return false;
    value = 0;
    for (; peek() >= '0' && peek() <= '9'; ++at_) {
      value = value * 10 + (peek() - '0');
      if (value > kMaxRepeat) fail(ErrorCode::kInvalidArgument, "a repetition of more than {} times", kMaxRepeat);
    }
    return true;
  }

  std::uint32_t atom(int depth) {
    const char32_t c = text_[at_++];
    switch (c) {
      case '^': return add({Kind::kBegin, 0, 0, 0, {}});
      case '$': return add({Kind::kEnd, 0, 0, 0, {}});
      case '.': return add_set(char_set_complement(char_set({{10, 10}, {13, 13}, {0x2028, 0x2029}})));
      case '(': return group(depth);
      case '[': return add_set(bracket());
      case '\\': return escape();
      case '*':
      case '+':
      case '?': fail(ErrorCode::kInvalidArgument, "nothing to repeat at character {}", at_);
      default: return add_set(char_set({{c, c}}));
    }
  }

  std::uint32_t group(int depth) {
    if (take(U"?=") || take(U"?!") || take(U"?<=") || take(U"?<!"))
      fail(ErrorCode::kInvalidArgument, "look-around is not supported");
    if (take(U"?<")) {
      while (more() && peek() != '>') ++at_;
      if (!take(U'>')) fail(ErrorCode::kInvalidArgument, "a group's name without >");
    } else if (!take(U"?:") && peek() == '?') {
      fail(ErrorCode::kInvalidArgument, "(?{} is not supported", printable_char(peek(1)));
    }
    const std::uint32_t inner = alternatives(depth + 1);
    if (!take(U')')) fail(ErrorCode::kInvalidArgument, "a ( without )");
    // A node of its own, so that a quantifier behind it never meets an anchor or another quantifier.
    return add({Kind::kSequence, 0, 0, 0, {inner}});
  }

  static std::string printable_char(char32_t c) {
    std::string out;
    utf8_append(out, c == 0 ? U'?' : c);
    return printable(out);
  }

  // \d, \p{..} and the like behind a backslash that was taken; false if it is a single character.
  bool class_escape(ClassSets& out) {
    const char32_t c = peek();
    switch (c) {
      case 'd':
      case 'w':
      case 's': ++at_; return out = escape_class(c), true;
      case 'D':
      case 'W':
      case 'S': ++at_; return out = escape_class(c + 32).inverted(), true;
      case 'p':
      case 'P': break;
      default: return false;
    }
    ++at_;
    const bool inverted = c == 'P';
    std::string name;
    if (!take(U'{')) fail(ErrorCode::kInvalidArgument, "\\p without {{");
    while (more() && peek() != '}' && name.size() < 40) utf8_append(name, text_[at_++]);
    if (!take(U'}')) fail(ErrorCode::kInvalidArgument, "\\p{{ without }}");
    unsigned bits = 0;
    if (name == "L" || name == "Letter") bits = kLetters;
    else if (name == "N" || name == "Number") bits = kNumbers;
    else if (name == "M" || name == "Mark") bits = kMarks;
    else if (name == "Ll" || name == "Lowercase_Letter") bits = class_bits(CharClass::kLower);
    else fail(ErrorCode::kInvalidArgument, "\\p{{{}}} is not supported", printable(name));
    const CharSet set = class_set(bits);
    out = {set, set};
    if (inverted) out = out.inverted();
    return true;
  }

  std::uint32_t escape() {
    ClassSets sets;
    if (class_escape(sets)) return add_set(std::move(sets.narrow));
    const char32_t c = peek();
    if (!more()) fail(ErrorCode::kInvalidArgument, "ends in a backslash");
    if (c == 'b' || c == 'B') fail(ErrorCode::kInvalidArgument, "word boundaries (\\b, \\B) are not supported");
    if ((c >= '1' && c <= '9') || c == 'k') fail(ErrorCode::kInvalidArgument, "back references are not supported");
    const char32_t character = single_escape();
    return add_set(char_set({{character, character}}));
  }

  char32_t hex(int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const char32_t c = peek();
      int digit;
      if (c >= '0' && c <= '9') digit = static_cast<int>(c - '0');
      else if (c >= 'a' && c <= 'f') digit = static_cast<int>(c - 'a') + 10;
      else if (c >= 'A' && c <= 'F') digit = static_cast<int>(c - 'A') + 10;
      else fail(ErrorCode::kInvalidArgument, "a hexadecimal escape without its digits");
      value = value * 16 + static_cast<char32_t>(digit);
    }
    return value;
  }

  char32_t unicode_escape() {
    char32_t value = 0;
    if (take(U'{')) {
      int digits = 0;
      while (more() && peek() != '}' && digits < 7) {
        value = value * 16 + hex(1);
        ++digits;
      }
      if (!take(U'}') || digits == 0) fail(ErrorCode::kInvalidArgument, "\\u{{ without }}");
    } else {
      value = hex(4);
      if (value >= 0xD800 && value < 0xDC00 && take(U"\\u")) {
        const char32_t low = hex(4);
        if (low < 0xDC00 || low > 0xDFFF) fail(ErrorCode::kInvalidArgument, "half of a surrogate pair");
        value = 0x10000 + ((value - 0xD800) << 10) + (low - 0xDC00);
      }
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
      fail(ErrorCode::kInvalidArgument, "an escape that is no character");
    return value;
  }

  char32_t single_escape() {
    if (!more()) fail(ErrorCode::kInvalidArgument, "ends in a backslash");
    const char32_t c = text_[at_++];
    switch (c) {
      case 'n': return 10;
      case 'r': return 13;
      case 't': return 9;
      case 'f': return 12;
      case 'v': return 11;
      case '0':
        if (peek() >= '0' && peek() <= '9') fail(ErrorCode::kInvalidArgument, "octal escapes are not supported");
        return 0;
      case 'x': return hex(2);
      case 'u': return unicode_escape();
      case 'c': {
        const char32_t letter = more() ? text_[at_++] : 0;
        if (!((letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z')))
          fail(ErrorCode::kInvalidArgument, "\\c without a letter");
        return letter & 31;
      }
      default: break;
    }
    const bool alphanumeric = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (alphanumeric) fail(ErrorCode::kInvalidArgument, "the escape \\{} is not supported", printable_char(c));
    return c;
  }

  CharSet bracket() {
    const bool inverted = take(U'^');
    CharSet narrow, wide;
    const auto join = [](CharSet& set, const CharSet& more) { set.insert(set.end(), more.begin(), more.end()); };
    if (peek() == ']' && more())
      fail(ErrorCode::kInvalidArgument, "an empty [] means different things in different engines");
    while (!take(U']')) {
      budget_.tick();
      if (!more()) fail(ErrorCode::kInvalidArgument, "a [ without ]");
      char32_t low = text_[at_++];
      if (low == '\\') {
        ClassSets sets;
        if (class_escape(sets)) {
          join(narrow, sets.narrow);
          join(wide, sets.wide);
          if (peek() == '-' && peek(1) != ']' && more())
            fail(ErrorCode::kInvalidArgument, "a range that begins with a class");
          continue;
        }
        low = take(U'b') ? 8 : single_escape();
      }
      char32_t high = low;
      if (peek() == '-' && at_ + 1 < text_.size() && peek(1) != ']') {
        ++at_;
        high = text_[at_++];
        if (high == '\\') {
          ClassSets sets;
          if (class_escape(sets)) fail(ErrorCode::kInvalidArgument, "a range that ends with a class");
          high = take(U'b') ? 8 : single_escape();
        }
        if (high < low) fail(ErrorCode::kInvalidArgument, "a range of characters out of order");
      }
      narrow.emplace_back(low, high);
      wide.emplace_back(low, high);
    }
    return inverted ? char_set_complement(char_set(std::move(wide))) : char_set(std::move(narrow));
  }

  GrammarBudget& budget_;
  std::u32string text_;
  std::size_t at_ = 0;
  RegexTree tree_;
  std::map<CharSet, std::uint32_t> set_index_;
  std::size_t set_bytes_ = 0;
};

}  // namespace

RegexTree parse_regex(std::string_view pattern, GrammarBudget& budget) { return Parser(pattern, budget).parse(); }

}  // namespace gov
