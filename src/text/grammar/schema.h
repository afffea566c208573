#pragma once
// JSON schemas read: which keywords there are, where they point, and what several schemas that hold together say about
// one value. Private to src/text.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "text/grammar/budget.h"
#include "text/grammar/number.h"

namespace gov {

enum SchemaType : unsigned {
  kTypeNull = 1,
  kTypeBool = 2,
  kTypeObject = 4,
  kTypeArray = 8,
  kTypeNumber = 16,   // with a fraction
  kTypeInteger = 32,  // without
  kTypeString = 64,
  kAllTypes = 127,
};

// A place of the schema on the way it was reached, by index in SchemaReader; the way is followed to find references
// that lead back to themselves.
using Atom = std::uint32_t;
constexpr Atom kNoAtom = ~Atom{0};

struct ObjectPart {
  std::vector<std::pair<std::string, Atom>> properties, patterns;
  Atom additional = kNoAtom;
  bool describes_all = false;  // additionalProperties, or unevaluatedProperties true
  const Json* schema = nullptr;
  std::string where;
  const Atom* find(std::string_view name) const;
};

struct ArrayPart {
  std::vector<Atom> prefix;
  Atom items = kNoAtom;
  bool describes_all = false;  // items, or unevaluatedItems true
  const Json* schema = nullptr;
};

// A schema with unevaluatedProperties or unevaluatedItems false: only what it describes itself may be there, in the
// parts that belong to it (its own, and those of its allOf, $ref and branches), by index in SchemaFacts.
struct ClosedSchema {
  const Json* schema = nullptr;
  std::vector<std::uint32_t> parts;
};

// Branches of which one (or, harmless here, more) has to hold.
struct SchemaChoice {
  const Json* branches = nullptr;  // the array
  Atom owner = kNoAtom;
  bool one_of = false;
  std::string where;
};

// What schemas say together. Everything not said is free.
struct SchemaFacts {
  bool never = false;
  bool typed = false;                                // some `type` was given
  unsigned types = kAllTypes, implied = 0;           // implied: types that the other keywords are about
  std::optional<std::vector<const Json*>> literals;  // enum and const
  std::string literals_where;
  std::uint32_t min_length = 0, max_length = Dfa::kInfinite;
  std::vector<std::pair<std::string, std::string>> patterns, formats;  // with their places
  NumberRules number;
  std::string number_where;
  std::uint32_t min_items = 0, max_items = Dfa::kInfinite;
  std::vector<ArrayPart> arrays;
  std::uint32_t min_properties = 0, max_properties = Dfa::kInfinite;
  std::vector<ObjectPart> objects;
  std::vector<std::string> required;
  std::vector<Atom> names;                                  // propertyNames
  std::vector<ClosedSchema> closed_objects, closed_arrays;  // unevaluated... false
  std::vector<SchemaChoice> choices;

  // The types that a value may have in the end.
  unsigned possible() const;
  bool has_object_rules() const;
  bool has_array_rules() const;
};

class SchemaReader {
 public:
  SchemaReader(const Json& root, GrammarBudget& budget);

  Atom root() const { return 0; }
  const Json& schema(Atom atom) const { return *nodes_[atom].schema; }
  const std::string& where(Atom atom) const { return nodes_[atom].where; }
  Atom never();  // `false`
  // A place below another one. `inside`: of the same value (allOf, $ref, a branch), which must not lead back to itself.
  Atom add(const Json& schema, std::string where, Atom parent, bool inside);
  Atom branch(const SchemaChoice& choice, std::size_t index);

  // What these say together; the choices in `taken` (their arrays) are left out.
  SchemaFacts collect(const std::vector<Atom>& atoms, const std::set<const Json*>& taken);

  [[noreturn]] void refuse(const std::string& where, const std::string& what) const;
  // Runs `compile` and puts the place in front of what it says.
  template <class F>
  decltype(auto) at_place(const std::string& where, F compile) const {
    try {
      return compile();
    } catch (const Error& e) {
      if (std::string_view(e.what()).starts_with("schema: ")) throw;
      refuse(where, e.what());
    }
  }
  // Counted over the whole schema, whatever is reached.
  void count_properties(std::size_t count, const std::string& where);
  void count_literals(std::size_t count, const std::string& where);

 private:
  struct Node {
    const Json* schema;
    std::string where;
    Atom parent;
  };
  struct Collector;

  Atom resolve(const std::string& reference, const std::string& where, Atom from);
  void find_anchors();
  void keep_anchor(const Json& schema, const std::string& where);

  const Json& root_;
  GrammarBudget& budget_;
  std::vector<Node> nodes_;
  std::unordered_map<std::string, std::pair<const Json*, std::string>> anchors_;
  std::set<const Json*> counted_properties_, counted_literals_;
  std::size_t properties_ = 0, literals_ = 0;
  bool has_anchors_ = false;
  Atom never_ = kNoAtom;
};

// "a/b" as a part of a JSON pointer.
std::string pointer_part(std::string_view name);

// Equal as JSON Schema means it: 1 and 1.0 are equal, the order of members does not matter.
bool json_equal(const Json& a, const Json& b);

}  // namespace gov
