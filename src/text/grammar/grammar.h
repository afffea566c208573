#pragma once
// Grammars over bytes, compiled once and shared: JSON of a schema, any JSON object, a regular expression. Immutable.
//
// What of JSON Schema (2020-12) is enforced: type (also lists, nullable), enum, const, anyOf, allOf, oneOf (only where
// its branches are shown to exclude each other), $ref within the schema ($defs, $anchor, recursion); properties,
// required, additionalProperties, patternProperties, propertyNames (one schema, without alternatives), minProperties,
// maxProperties; items, prefixItems, minItems, maxItems; unevaluatedProperties and unevaluatedItems as booleans;
// minLength, maxLength, pattern (regex.h), format (format.h); minimum, maximum, exclusiveMinimum, exclusiveMaximum,
// multipleOf (number.h). Annotations and x-... are ignored, and formats that the specification does not know.
// Everything else is refused: not, if, contains, uniqueItems true, dependent..., unknown words.
//
// What is generated is a part of what is valid: properties come in the schema's order, others behind them; no property
// and no item is added that the schema does not speak of, unless it speaks of none; without `type`, the types are those
// that the other keywords are about; at most 32 arrays and objects in each other; white space behind , : { [ and before
// ] } only, one space, or a newline with indentation; numbers of at most 17 digits (18 for integers).

#include <cstdint>
#include <memory>
#include <string_view>

#include "base/json.h"

namespace gov {

struct GrammarLimits {
  int depth = 10;                 // of nested subschemas, references expanded
  int properties = 5'000;         // in all
  int enum_values = 1'000;        // in all
  int dfa_states = 10'000;        // of all regular expressions
  double seconds = 0.5;           // of compilation
  std::size_t bytes = 64u << 20;  // of the compiled form
};

class Grammar {
 public:
  // Text that is a JSON document valid under `schema`. Every keyword is enforced or refused by name: Error
  // kInvalidArgument in one line that says where ("schema: /properties/a/not: not supported").
  static std::shared_ptr<const Grammar> json_schema(const Json& schema, const GrammarLimits& limits = {});
  static std::shared_ptr<const Grammar> json_object();  // any JSON object, nested up to a fixed depth
  // A regular expression of the documented subset (regex.h), anchored at both ends. For programs that use the library;
  // the server has no field for it.
  static std::shared_ptr<const Grammar> regex(std::string_view pattern, const GrammarLimits& limits = {});

  struct Impl;
  explicit Grammar(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  const Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

}  // namespace gov
