#pragma once
// A regular expression as a tree. Private to src/text.

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/grammar/char_dfa.h"

namespace gov {

struct RegexNode {
  enum class Kind : std::uint8_t { kSet, kSequence, kAlternatives, kRepeat, kBegin, kEnd };
  Kind kind = Kind::kSequence;
  std::uint32_t set = 0;                // kSet: index into RegexTree::sets
  std::uint32_t min = 0, max = 0;       // kRepeat; max may be Dfa::kInfinite
  std::vector<std::uint32_t> children;  // indices into RegexTree::nodes
};

struct RegexTree {
  std::vector<RegexNode> nodes;
  std::vector<CharSet> sets;
  std::uint32_t root = 0;
};

RegexTree parse_regex(std::string_view pattern, GrammarBudget& budget);

}  // namespace gov
