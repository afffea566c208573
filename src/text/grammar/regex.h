#pragma once
// Regular expressions: the subset of ECMA-262 that an automaton can follow. Private to src/text.
//   characters, . [...] [^...] \d \D \w \W \s \S \p{L} \p{N} \p{M} \P{..}, escapes (\n \xHH \uHHHH \u{..} \cX ...),
//   groups (named ones too), alternatives, * + ? {m} {m,} {m,n} (lazy or not), ^ and $ anywhere.
// Refused by name: look-around, back references, \b and \B, flags, other \p classes. Classes are read so that a match
// is one for ECMA-262 and for Unicode-minded engines (Python): \d is [0-9], \D excludes every Unicode number, and so
// on.

#include <string_view>

#include "text/grammar/char_dfa.h"

namespace gov {

struct RegexOptions {
  bool search = false;   // a match anywhere in the text counts, as in JSON Schema; otherwise the whole text
  bool counters = true;  // ^X{m,n}$ with one set of characters X becomes limits instead of states
};

// Error kInvalidArgument in one line, without the pattern's place.
CharDfa compile_regex(std::string_view pattern, const RegexOptions& options, GrammarBudget& budget);

}  // namespace gov
