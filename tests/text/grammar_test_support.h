#pragma once
// For the tests of grammars and of token constraints: the schemas of data/schemas.jsonl, a small validator that shares
// no code with the compiler, and random walks.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/philox.h"
#include "text/grammar/grammar.h"
#include "text/token_constraint.h"

namespace gov::text_test {

struct SchemaCase {
  std::string text;  // of the schema
  Json schema;
  std::vector<std::string> valid, invalid;  // documents
};
const std::vector<SchemaCase>& schema_cases();

// What is wrong with the document, or nothing.
std::optional<std::string> schema_error(const Json& schema, const Json& document);

// Whether the grammar takes the whole text.
bool accepts(const Grammar& grammar, std::string_view text);
// How many bytes it takes, and whether it may end there.
std::size_t accepted_prefix(const Grammar& grammar, std::string_view text, bool& complete);

class Random {
 public:
  explicit Random(std::uint64_t seed) : philox_{seed} {}
  std::uint32_t below(std::uint32_t n) { return philox_(counter_++)[0] % n; }

 private:
  Philox philox_;
  std::uint64_t counter_ = 0;
};

std::vector<std::int32_t> allowed_tokens(const TokenConstraint& constraint, std::int32_t vocab);

// One text: tokens are drawn uniformly from those allowed; after `length` tokens always the one that comes closest to
// the end of the grammar. Calls `at` before every token. Returns the text, without the token that ended it.
std::string random_walk(const Tokenizer& tokenizer, const std::shared_ptr<const Grammar>& grammar,
                        TokenConstraint constraint, std::size_t length, Random& random,
                        const std::function<void(const TokenConstraint&)>& at = nullptr);

}  // namespace gov::text_test
