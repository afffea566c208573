// Objects: declared properties in their order, then names of patterns and other names.

#include <algorithm>
#include <set>
#include <utility>

#include "base/json_writer.h"
#include "base/utf8.h"
#include "text/grammar/regex.h"
#include "text/grammar/schema_compile.h"

namespace gov {

// What propertyNames says: names from a list, or names that look like `chars`.
struct SchemaCompiler::Names {
  bool restricted = false;
  std::optional<CharDfa> chars;
  std::uint32_t min = 0, max = Dfa::kInfinite;
  std::optional<std::vector<std::string>> list;

  bool allows(const std::string& name) const {
    if (list) return std::find(list->begin(), list->end(), name) != list->end();
    const std::size_t length = utf8_count(name);
    return length >= min && length <= max && (!chars || chars->matches(name));
  }
};

SchemaCompiler::Names SchemaCompiler::read_names(const SchemaFacts& facts) {
  Names names;
  if (facts.names.empty()) return names;
  const std::string& where = reader_.where(facts.names[0]);
  const std::vector<SchemaFacts> all = cases(facts.names);
  names.restricted = true;
  if (all.empty() || (all.size() == 1 && (all[0].types & kTypeString) == 0)) {
    names.list.emplace();
    return names;
  }
  if (all.size() != 1) reader_.refuse(where, "has to be one schema of strings, without alternatives");
  names.min = all[0].min_length;
  names.max = all[0].max_length;
  if (all[0].literals) {
    names.list.emplace();
    for (const Json* literal : *all[0].literals) {
      if (literal->is_string() && literal_fits(*literal, all[0])) names.list->push_back(literal->string());
    }
  } else {
    names.chars = string_chars(all[0], false);
    // A format's limit: names have no counters, so it becomes states, with the others (add_extras).
    if (names.chars) names.max = std::min(names.max, std::exchange(names.chars->max, Dfa::kInfinite));
  }
  return names;
}

const CharDfa& SchemaCompiler::name_pattern(const ObjectPart& part, const std::string& text) {
  return pattern(text, PatternKind::kUncounted, part.where + "/patternProperties/" + pointer_part(text));
}

std::vector<std::string> SchemaCompiler::declared_names(const SchemaFacts& facts, const Names& names) {
  std::vector<std::string> out;
  std::set<std::string> seen;
  const auto add = [&](const std::string& name) {
    budget_.tick();
    if (seen.insert(name).second) out.push_back(name);
  };
  for (const ObjectPart& part : facts.objects) {
    for (const auto& property : part.properties) add(property.first);
  }
  for (const std::string& name : facts.required) add(name);
  if (names.list) {
    for (const std::string& name : *names.list) add(name);
  }
  return out;
}

std::vector<Atom> SchemaCompiler::atoms_of_name(const SchemaFacts& facts, const std::string& name) {
  std::vector<Atom> atoms;
  for (const ObjectPart& part : facts.objects) {
    bool described = false;
    if (const Atom* atom = part.find(name)) {
      atoms.push_back(*atom);
      described = true;
    }
    for (const auto& [text, atom] : part.patterns) {
      if (!name_pattern(part, text).matches(name)) continue;
      atoms.push_back(atom);
      described = true;
    }
    if (!described && part.additional != kNoAtom) atoms.push_back(part.additional);
    budget_.tick();
  }
  const auto describes = [&](const ObjectPart& part) {
    budget_.tick();
    return part.describes_all || part.find(name) != nullptr ||
           std::any_of(part.patterns.begin(), part.patterns.end(),
                       [&](const auto& p) { return name_pattern(part, p.first).matches(name); });
  };
  for (const ClosedSchema& closed : facts.closed_objects) {
    if (std::none_of(closed.parts.begin(), closed.parts.end(),
                     [&](std::uint32_t i) { return describes(facts.objects[i]); }))
      return {reader_.never()};
  }
  return atoms;
}

void SchemaCompiler::add_extras(const SchemaFacts& facts, const Names& names, ObjectSpec& object, int depth) {
  if (names.list) return;
  // Names that match a pattern are described by that part, and by those that describe all; other names by those alone.
  const auto open = [&](const ObjectPart* described_by) {
    return std::all_of(facts.closed_objects.begin(), facts.closed_objects.end(), [&](const ClosedSchema& closed) {
      return std::any_of(closed.parts.begin(), closed.parts.end(), [&](std::uint32_t i) {
        return facts.objects[i].describes_all || &facts.objects[i] == described_by;
      });
    });
  };
  const ObjectPart* patterned = nullptr;
  bool told = false, plain = true;  // told: some additionalProperties; plain: nothing names a property
  std::vector<Atom> rest;
  for (const ObjectPart& part : facts.objects) {
    if (!part.patterns.empty()) {
      if (patterned != nullptr)
        reader_.refuse(part.where + "/patternProperties", "twice for one object is not supported");
      patterned = &part;
    }
    told = told || part.additional != kNoAtom;
    plain = plain && part.properties.empty() && part.patterns.empty();
    if (part.additional != kNoAtom) rest.push_back(part.additional);
  }
  std::vector<std::pair<std::optional<CharDfa>, std::vector<Atom>>> kinds;
  std::optional<CharDfa> others;
  const std::string place = patterned == nullptr ? std::string() : patterned->where + "/patternProperties";
  if (patterned != nullptr) {
    for (const auto& [text, atom] : patterned->patterns) {
      const CharDfa& chars = name_pattern(*patterned, text);
      for (const auto& kind : kinds) {
        if (!is_empty(char_intersection(*kind.first, chars, budget_)))
          reader_.refuse(place + "/" + pointer_part(text), "matches names that another pattern matches too");
      }
      std::vector<Atom> atoms{atom};
      for (const ObjectPart& part : facts.objects) {
        if (&part != patterned && part.additional != kNoAtom) atoms.push_back(part.additional);
      }
      if (!open(patterned)) atoms = {reader_.never()};
      kinds.emplace_back(chars, std::move(atoms));
      const CharDfa rest_of_it = char_complement(chars);
      others = others ? char_intersection(*others, rest_of_it, budget_) : rest_of_it;
    }
  }
  if ((told || plain) && open(nullptr)) kinds.emplace_back(others, rest);
  std::optional<CharDfa> allowed = names.chars;
  if (names.min > 0 || names.max != Dfa::kInfinite) {
    const std::string max = names.max == Dfa::kInfinite ? "" : std::to_string(names.max);
    reader_.at_place(reader_.where(facts.names[0]), [&] {
      const CharDfa lengths = compile_regex("[\\u0000-\\u{10FFFF}]{" + std::to_string(names.min) + "," + max + "}",
                                            {.counters = false}, budget_);
      allowed = allowed ? char_intersection(*allowed, lengths, budget_) : lengths;
    });
  }
  for (auto& [chars, atoms] : kinds) {
    const std::uint32_t value = value_of(atoms, depth + 1);
    if (value == never_) continue;
    if (allowed) chars = chars ? char_intersection(*chars, *allowed, budget_) : *allowed;
    Terminal name{json_name_dfa(), 0, Dfa::kInfinite, nullptr, 0};
    if (chars) name = spell(*chars, Spelling::kName, budget_);
    if (!name.empty()) object.extras.push_back({std::move(name), value});
  }
}

void SchemaCompiler::emit_object(const SchemaFacts& facts, const std::string& where, std::uint32_t value, int depth) {
  check_depth(where, depth);
  const Names names = read_names(facts);
  const std::set<std::string> required(facts.required.begin(), facts.required.end());
  ObjectSpec object;
  object.min = facts.min_properties;
  object.max = facts.max_properties;
  std::size_t bytes = sizeof(ObjectSpec);
  for (const std::string& name : declared_names(facts, names)) {
    const bool never = (names.restricted && !names.allows(name));
    const std::uint32_t property = never ? never_value() : value_of(atoms_of_name(facts, name), depth + 1);
    const std::string quoted = json_quote(name);
    object.add_name(quoted, object.count());
    object.properties.push_back({property, required.contains(name)});
    bytes += sizeof(NameNode) * 2 * quoted.size() + sizeof(ObjectSpec::Property);
    budget_.tick();
  }
  budget_.bytes(bytes);
  add_extras(facts, names, object, depth);
  object.finish();
  impl_->values[value].objects.push_back(static_cast<std::uint32_t>(impl_->objects.size()));
  impl_->objects.push_back(std::move(object));
}

}  // namespace gov
