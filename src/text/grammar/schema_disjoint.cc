// oneOf: what is valid under one branch must not be valid under another. That is proved here or the schema is refused.

#include <algorithm>
#include <set>

#include "text/grammar/schema_compile.h"

namespace gov {
namespace {

constexpr int kMaxOneOfDepth = 16;  // of oneOf as a branch of oneOf, which is looked at by recursion

// The range of lengths or counts that both allow is empty.
bool apart(std::uint32_t min_a, std::uint32_t max_a, std::uint32_t min_b, std::uint32_t max_b) {
  return max_a < min_b || max_b < min_a;
}

bool numbers_disjoint(const NumberRules& a, const NumberRules& b) {
  const auto below = [](const std::optional<NumberBound>& high, const std::optional<NumberBound>& low) {
    if (!high || !low) return false;
    return high->value < low->value || (high->value == low->value && (high->exclusive || low->exclusive));
  };
  return below(a.high, b.low) || below(b.high, a.low);
}

}  // namespace

void SchemaCompiler::check_one_of(const Conjunction& conjunction, const SchemaChoice& choice) {
  if (++one_of_depth_ > kMaxOneOfDepth) reader_.refuse(choice.where, "oneOf in oneOf too often");
  const std::size_t n = choice.branches->array().size();
  std::vector<std::vector<SchemaFacts>> branches;
  for (std::size_t i = 0; i < n; ++i) {
    // Inner choices are made before; the outer ones of this conjunction do not matter here.
    std::vector<Atom> atoms{reader_.branch(choice, i)};
    for (const Atom atom : conjunction.atoms) {
      const Json& schema = reader_.schema(atom);
      if (schema.is_object() && schema.find("oneOf") == nullptr && schema.find("anyOf") == nullptr)
        atoms.push_back(atom);
    }
    branches.push_back(cases(atoms));
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      for (const SchemaFacts& a : branches[i]) {
        for (const SchemaFacts& b : branches[j]) {
          budget_.tick();
          if (disjoint(a, b, 3)) continue;
          reader_.refuse(choice.where, "branches " + std::to_string(j) + " and " + std::to_string(i) +
                                           " are not known to exclude each other; use anyOf");
        }
      }
    }
  }
  --one_of_depth_;
}

bool SchemaCompiler::disjoint(const SchemaFacts& a, const SchemaFacts& b, int levels) {
  budget_.tick();
  if (a.never || b.never) return true;
  if (a.literals || b.literals) {
    const SchemaFacts& one = a.literals ? a : b;
    const SchemaFacts& other = a.literals ? b : a;
    return std::all_of(one.literals->begin(), one.literals->end(), [&](const Json* literal) {
      budget_.tick();
      if (!literal_fits(*literal, one)) return true;
      if (other.literals) {
        return std::none_of(other.literals->begin(), other.literals->end(),
                            [&](const Json* o) { return json_equal(*literal, *o) && literal_fits(*o, other); });
      }
      const bool nested = literal->is_object() || literal->is_array();
      if (nested && (other.has_object_rules() || other.has_array_rules())) return false;
      return !literal_fits(*literal, other);
    });
  }
  const unsigned common = a.possible() & b.possible();
  if ((common & (kTypeNull | kTypeBool)) != 0) return false;
  if ((common & (kTypeNumber | kTypeInteger)) != 0 && !numbers_disjoint(a.number, b.number)) return false;
  if ((common & kTypeString) != 0 && !strings_disjoint(a, b)) return false;
  if ((common & kTypeArray) != 0 && !apart(a.min_items, a.max_items, b.min_items, b.max_items)) return false;
  return (common & kTypeObject) == 0 || objects_disjoint(a, b, levels);
}

bool SchemaCompiler::strings_disjoint(const SchemaFacts& a, const SchemaFacts& b) {
  if (apart(a.min_length, a.max_length, b.min_length, b.max_length)) return true;
  const std::optional<CharDfa> x = string_chars(a, false), y = string_chars(b, false);
  return x && y && is_empty(char_intersection(*x, *y, budget_));
}

bool SchemaCompiler::objects_disjoint(const SchemaFacts& a, const SchemaFacts& b, int levels) {
  if (apart(a.min_properties, a.max_properties, b.min_properties, b.max_properties)) return true;
  if (levels == 0) return false;
  const std::set<std::string> names(a.required.begin(), a.required.end());
  // A name that one wants and the other forbids, or that both want with values that exclude each other.
  const auto excludes = [&](const std::string& name) {
    const std::vector<Atom> x = atoms_of_name(a, name), y = atoms_of_name(b, name);
    for (const SchemaFacts& f : cases(x)) {
      for (const SchemaFacts& g : cases(y)) {
        if (!disjoint(f, g, levels - 1)) return false;
      }
    }
    return true;
  };
  const auto forbids = [&](const SchemaFacts& facts, const std::string& name) {
    return cases(atoms_of_name(facts, name)).empty();
  };
  for (const std::string& name : a.required) {
    if (forbids(b, name)) return true;
  }
  for (const std::string& name : b.required) {
    if (forbids(a, name) || (names.contains(name) && excludes(name))) return true;
  }
  return false;
}

}  // namespace gov
