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

// A branch is valid or not whatever unevaluated... says outside of it, which for its part looks at the branch.
void drop_closed(std::vector<ClosedSchema>& closed, const std::vector<ClosedSchema>& outside) {
  std::erase_if(closed, [&](const ClosedSchema& c) {
    return std::any_of(outside.begin(), outside.end(), [&](const ClosedSchema& o) { return o.schema == c.schema; });
  });
}

}  // namespace

void SchemaCompiler::check_one_of(const Conjunction& conjunction, const SchemaFacts& facts,
                                  const SchemaChoice& choice) {
  // What holds beside the branches is part of the proof.
  std::vector<const Json*> key;
  for (const Atom atom : conjunction.atoms) key.push_back(&reader_.schema(atom));
  std::sort(key.begin(), key.end());
  key.erase(std::unique(key.begin(), key.end()), key.end());
  key.push_back(choice.branches);
  budget_.bytes(64 + key.size() * sizeof(key[0]));
  if (!checked_.insert(std::move(key)).second) return;
  if (++one_of_depth_ > kMaxOneOfDepth) reader_.refuse(choice.where, "oneOf in oneOf too often");
  const std::size_t n = choice.branches->array().size();
  // The choices inside of a branch are made. Others of this value are left out, and so is what they could add.
  Taken taken = conjunction.taken;
  for (const SchemaChoice& other : facts.choices) taken.insert(other.branches);
  const bool partial = facts.choices.size() > 1;
  std::vector<std::vector<SchemaFacts>> made, valid;
  for (std::size_t i = 0; i < n; ++i) {
    std::vector<Atom> atoms = conjunction.atoms;
    atoms.push_back(reader_.branch(choice, i));
    made.push_back(cases(atoms, taken));
    for (SchemaFacts& branch : made.back()) {
      // They may describe more together with what was left out.
      if (partial) branch.closed_objects.clear(), branch.closed_arrays.clear();
    }
    valid.push_back(made.back());
    for (SchemaFacts& branch : valid.back()) {
      drop_closed(branch.closed_objects, facts.closed_objects);
      drop_closed(branch.closed_arrays, facts.closed_arrays);
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const auto excluded = [&](std::size_t x, std::size_t y) {
        return std::all_of(made[x].begin(), made[x].end(), [&](const SchemaFacts& a) {
          return std::all_of(valid[y].begin(), valid[y].end(),
                             [&](const SchemaFacts& b) { return disjoint(a, b, partial, 3); });
        });
      };
      if (excluded(i, j) && excluded(j, i)) continue;
      reader_.refuse(choice.where, "branches " + std::to_string(j) + " and " + std::to_string(i) +
                                       " are not known to exclude each other; use anyOf");
    }
  }
  --one_of_depth_;
}

bool SchemaCompiler::disjoint(const SchemaFacts& made, const SchemaFacts& other, bool partial, int levels) {
  budget_.tick();
  if (made.never || other.never) return true;
  if (made.literals || other.literals) {
    const SchemaFacts& listed = made.literals ? made : other;
    const SchemaFacts& second = made.literals ? other : made;
    return std::all_of(listed.literals->begin(), listed.literals->end(), [&](const Json* literal) {
      budget_.tick();
      if (!literal_fits(*literal, listed)) return true;
      if (second.literals) {
        return std::none_of(second.literals->begin(), second.literals->end(),
                            [&](const Json* o) { return json_equal(*literal, *o) && literal_fits(*o, second); });
      }
      const bool nested = literal->is_object() || literal->is_array();
      if (nested && (second.has_object_rules() || second.has_array_rules())) return false;
      return !literal_fits(*literal, second);
    });
  }
  // Without `type`, values of types that the keywords are not about are valid, though they are not generated.
  const unsigned common = (partial ? made.types : made.possible()) & other.types;
  if ((common & (kTypeNull | kTypeBool)) != 0) return false;
  if ((common & (kTypeNumber | kTypeInteger)) != 0 && !numbers_disjoint(made.number, other.number)) return false;
  if ((common & kTypeString) != 0 && !strings_disjoint(made, other)) return false;
  if ((common & kTypeArray) != 0 && !apart(made.min_items, made.max_items, other.min_items, other.max_items))
    return false;
  return (common & kTypeObject) == 0 || objects_disjoint(made, other, partial, levels);
}

bool SchemaCompiler::strings_disjoint(const SchemaFacts& a, const SchemaFacts& b) {
  if (apart(a.min_length, a.max_length, b.min_length, b.max_length)) return true;
  const std::optional<CharDfa>&x = string_chars(a, false), &y = string_chars(b, false);
  return x && y && is_empty(char_intersection(*x, *y, budget_));
}

bool SchemaCompiler::objects_disjoint(const SchemaFacts& made, const SchemaFacts& other, bool partial, int levels) {
  if (apart(made.min_properties, made.max_properties, other.min_properties, other.max_properties)) return true;
  if (levels == 0) return false;
  const std::set<std::string> names(made.required.begin(), made.required.end());
  // A name that one wants and the other forbids, or that both want with values that exclude each other.
  const auto excludes = [&](const std::string& name) {
    const std::vector<Atom> x = atoms_of_name(made, name), y = atoms_of_name(other, name);
    for (const SchemaFacts& f : cases(x)) {
      for (const SchemaFacts& g : cases(y)) {
        if (!disjoint(f, g, partial, levels - 1)) return false;
      }
    }
    return true;
  };
  const auto forbids = [&](const SchemaFacts& facts, const std::string& name) {
    return cases(atoms_of_name(facts, name)).empty();
  };
  for (const std::string& name : made.required) {
    if (forbids(other, name)) return true;
  }
  for (const std::string& name : other.required) {
    if (forbids(made, name) || (names.contains(name) && excludes(name))) return true;
  }
  return false;
}

}  // namespace gov
