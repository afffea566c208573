#pragma once
// Automata over characters (code points): what a regular expression or a string format says, before it is spelled out
// as the bytes of a JSON string. Private to src/text.

#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "text/grammar/budget.h"
#include "text/grammar/dfa.h"

namespace gov {

// Sorted, disjoint, inclusive ranges. Surrogates are never in a set.
using CharSet = std::vector<std::pair<char32_t, char32_t>>;
CharSet char_set(CharSet ranges);  // sorts, joins, leaves surrogates out
CharSet char_set_union(const CharSet& a, const CharSet& b);
CharSet char_set_complement(const CharSet& set);
const CharSet& every_char();

struct CharDfa {
  std::vector<char32_t> bounds;            // ranges of characters that are treated alike start here; bounds[0] = 0
  std::vector<std::uint32_t> range_class;  // [bounds]
  std::uint32_t classes = 0;
  std::vector<std::uint32_t> next;  // [states][classes]; state 0 is dead
  std::vector<std::uint8_t> accepting;
  std::uint32_t start = 0;
  // Besides, the number of characters has to be in these limits (counters instead of states).
  std::uint32_t min = 0, max = Dfa::kInfinite;
  bool gaps = false;  // the automaton's own lengths may have gaps

  std::uint32_t states() const { return static_cast<std::uint32_t>(accepting.size()); }
  std::size_t bytes() const { return sizeof *this + bounds.size() * 8 + next.size() * 4 + accepting.size(); }
  std::uint32_t class_of(char32_t c) const;
  bool matches(std::string_view text) const;  // UTF-8
};

// Classes of characters for these sets: bounds, range_class and classes are filled; returns for every class whether it
// is in set i, as [classes][sets].
std::vector<std::vector<bool>> split_classes(const std::vector<CharSet>& sets, CharDfa& out, GrammarBudget& budget);

CharDfa any_text(GrammarBudget& budget);
CharDfa char_intersection(const CharDfa& a, const CharDfa& b, GrammarBudget& budget);
CharDfa char_complement(const CharDfa& a);  // a must have no limits
bool is_empty(const CharDfa& a);            // limits not looked at

// kName: the text as a JSON string with its quotes, as json_quote() writes it: one way for each
// character. kJson: every short escape, control characters also as \u00XX, all others as they are. kRaw: UTF-8.
enum class Spelling { kRaw, kJson, kName };
Terminal spell(const CharDfa& chars, Spelling spelling, GrammarBudget& budget);

}  // namespace gov
