// Objects: declared properties in their order, then names of patterns and other names.

#include <algorithm>
#include <set>

#include "base/json_writer.h"
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
    std::uint32_t length = 0;
    for (const char c : name) length += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    return length >= min && length <= max && (!chars || chars->matches(name));
  }
};

SchemaCompiler::Names SchemaCompiler::read_names(const SchemaFacts& facts) {
  Names names;
  if (facts.names.empty()) return names;
  const std::string& where = reader_.where(facts.names[0]);
  const std::vector<SchemaFacts> all = cases(facts.names);
  if (all.size() != 1) reader_.refuse(where, "has to be one schema of strings, without alternatives");
  names.restricted = true;
  names.min = all[0].min_length;
  names.max = all[0].max_length;
  if (all[0].literals) {
    names.list.emplace();
    for (const Json* literal : *all[0].literals) {
      if (literal->is_string() && literal_fits(*literal, all[0])) names.list->push_back(literal->string());
    }
  } else {
    names.chars = string_chars(all[0], false);
  }
  return names;
}

const CharDfa& SchemaCompiler::pattern(const std::string& text, const std::string& where) {
  const auto key = std::pair(text, false);
  const auto known = patterns_.find(key);
  if (known != patterns_.end()) return known->second;
  try {
    return patterns_.emplace(key, compile_regex(text, {.search = true, .counters = false}, budget_)).first->second;
  } catch (const Error& e) {
    reader_.refuse(where + "/patternProperties/" + pointer_part(text), e.what());
  }
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
      if (!pattern(text, part.where).matches(name)) continue;
      atoms.push_back(atom);
      described = true;
    }
    if (!described && part.additional != kNoAtom) atoms.push_back(part.additional);
    budget_.tick();
  }
  return atoms;
}

void SchemaCompiler::add_extras(const SchemaFacts& facts, const Names& names, ObjectSpec& object, int depth) {
  if (names.list || facts.evaluated_only) return;
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
      const CharDfa& chars = pattern(text, patterned->where);
      for (const auto& kind : kinds) {
        if (!is_empty(char_intersection(*kind.first, chars, budget_)))
          reader_.refuse(place + "/" + pointer_part(text), "matches names that another pattern matches too");
      }
      std::vector<Atom> atoms{atom};
      for (const ObjectPart& part : facts.objects) {
        if (&part != patterned && part.additional != kNoAtom) atoms.push_back(part.additional);
      }
      kinds.emplace_back(chars, std::move(atoms));
      const CharDfa rest_of_it = char_complement(chars);
      others = others ? char_intersection(*others, rest_of_it, budget_) : rest_of_it;
    }
  }
  if (told || plain) kinds.emplace_back(others, rest);
  std::optional<CharDfa> allowed = names.chars;
  if (names.min > 0 || names.max != Dfa::kInfinite) {
    const std::string max = names.max == Dfa::kInfinite ? "" : std::to_string(names.max);
    const CharDfa lengths = compile_regex("[\\u0000-\\u{10FFFF}]{" + std::to_string(names.min) + "," + max + "}",
                                          {.counters = false}, budget_);
    allowed = allowed ? char_intersection(*allowed, lengths, budget_) : lengths;
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
