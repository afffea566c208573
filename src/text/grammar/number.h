#pragma once
// Automata of JSON numbers within bounds, digit by digit. Private to src/text.
//   Integers have at most 18 digits (exact as 64-bit integers) and are written without fraction and exponent.
//   Numbers with bounds, and all with multipleOf, have at most 15 digits and no exponent, so that different texts are
//   different doubles and a bound means the same to every reader. Other numbers have at most 17 digits and an exponent
//   of one or two.

#include <optional>
#include <vector>

#include "text/grammar/dfa.h"

namespace gov {

struct NumberBound {
  double value = 0;
  bool exclusive = false;
};

struct NumberRules {
  bool integer = false;
  std::optional<NumberBound> low, high;
  std::vector<double> multiples;  // multipleOf, all of them
  bool free() const { return !low && !high && multiples.empty(); }
};

// Alternatives, none of them empty; no alternative: no number fits. Error kInvalidArgument for what cannot be followed.
std::vector<Terminal> number_terminals(const NumberRules& rules, GrammarBudget& budget);

}  // namespace gov
