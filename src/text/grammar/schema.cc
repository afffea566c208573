#include "text/grammar/schema.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace gov {
namespace {

constexpr std::size_t kMaxNodes = 400'000;

}  // namespace

std::string pointer_part(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c == '~') out += "~0";
    else if (c == '/') out += "~1";
    else out += c;
  }
  return out;
}

bool json_equal(const Json& a, const Json& b) {
  // Values come from Json::parse, which bounds their depth.
  if (a.is_number() && b.is_number()) {
    if (a.is_integer() && b.is_integer()) return a.integer() == b.integer();
    return a.number() == b.number();
  }
  if (a.is_array() && b.is_array()) {
    return std::equal(a.array().begin(), a.array().end(), b.array().begin(), b.array().end(), json_equal);
  }
  if (a.is_object() && b.is_object()) {
    if (a.object().size() != b.object().size()) return false;
    return std::all_of(a.object().begin(), a.object().end(), [&](const Json::Member& m) {
      const Json* other = b.find(m.first);
      return other != nullptr && json_equal(m.second, *other);
    });
  }
  return a == b;
}

const Atom* ObjectPart::find(std::string_view name) const {
  for (const auto& [known, atom] : properties) {
    if (known == name) return &atom;
  }
  return nullptr;
}

unsigned SchemaFacts::possible() const {
  if (never) return 0;
  if (typed || literals || implied == 0) return types;
  return types & implied;
}
bool SchemaFacts::has_object_rules() const {
  return !objects.empty() || !required.empty() || !names.empty() || !closed_objects.empty() || min_properties > 0 ||
         max_properties != Dfa::kInfinite;
}
bool SchemaFacts::has_array_rules() const {
  return !arrays.empty() || !closed_arrays.empty() || min_items > 0 || max_items != Dfa::kInfinite;
}

SchemaReader::SchemaReader(const Json& root, GrammarBudget& budget) : root_(root), budget_(budget) {
  nodes_.push_back({&root, "", kNoAtom});
}

void SchemaReader::refuse(const std::string& where, const std::string& what) const {
  fail(ErrorCode::kInvalidArgument, "schema: {}: {}", printable(where.empty() ? "/" : where, 200),
       printable(what, 300));
}

Atom SchemaReader::add(const Json& schema, std::string where, Atom parent, bool inside) {
  budget_.tick();
  if (!schema.is_object() && !schema.is_bool()) refuse(where, "a schema has to be an object or a boolean");
  if (nodes_.size() >= kMaxNodes) refuse(where, "too many combinations of subschemas");
  budget_.bytes(sizeof(Node) + where.size());
  if (inside) {
    for (Atom at = parent; at != kNoAtom; at = nodes_[at].parent) {
      budget_.tick();
      if (nodes_[at].schema == &schema) refuse(where, "a reference that leads back to itself");
    }
  }
  nodes_.push_back({&schema, std::move(where), inside ? parent : kNoAtom});
  return static_cast<Atom>(nodes_.size() - 1);
}

Atom SchemaReader::branch(const SchemaChoice& choice, std::size_t index) {
  return add(choice.branches->array()[index], choice.where + "/" + std::to_string(index), choice.owner, true);
}

void SchemaReader::count_properties(std::size_t count, const std::string& where) {
  properties_ += count;
  if (properties_ > static_cast<std::size_t>(budget_.limits().properties))
    refuse(where, "more than " + std::to_string(budget_.limits().properties) + " properties in all");
}

void SchemaReader::count_literals(std::size_t count, const std::string& where) {
  literals_ += count;
  if (literals_ > static_cast<std::size_t>(budget_.limits().enum_values))
    refuse(where, "more than " + std::to_string(budget_.limits().enum_values) + " enum values in all");
}

Atom SchemaReader::never() {
  static const Json kFalse(false);
  if (never_ == kNoAtom) never_ = add(kFalse, "", kNoAtom, false);
  return never_;
}

void SchemaReader::keep_anchor(const Json& schema, const std::string& where) {
  const Json* anchor = schema.find("$anchor");
  if (anchor == nullptr || !anchor->is_string()) return;
  budget_.bytes(128 + anchor->string().size() + where.size());
  anchors_.emplace(anchor->string(), std::pair(&schema, where));
}

// $anchor in every subschema. One path is kept, of where the walk is: one for each subschema would take the square of
// the schema's size.
void SchemaReader::find_anchors() {
  has_anchors_ = true;
  static const std::set<std::string_view> kValues = {"enum", "const", "default", "examples", "example"};
  static const std::set<std::string_view> kNamed = {"properties", "patternProperties", "$defs", "definitions"};
  struct Level {
    const Json* value;
    std::size_t path;      // its length
    bool named;            // an object whose members' names are no keywords
    std::size_t next = 0;  // the child that is looked at next
  };
  std::string where;
  std::vector<Level> levels{{&root_, 0, false}};
  keep_anchor(root_, where);
  while (!levels.empty()) {
    Level& level = levels.back();
    budget_.tick();
    where.resize(level.path);
    const Json& value = *level.value;
    const std::size_t i = level.next++;
    const Json* child = nullptr;
    bool named = false;
    if (value.is_array() && i < value.array().size()) {
      child = &value.array()[i];
      where += "/" + std::to_string(i);
    } else if (value.is_object() && i < value.object().size()) {
      const std::string& name = value.object()[i].first;
      if (!level.named && kValues.contains(name)) continue;
      named = !level.named && kNamed.contains(name);
      child = &value.object()[i].second;
      where += "/" + pointer_part(name);
    }
    if (child == nullptr) {
      levels.pop_back();
    } else if (child->is_array() || child->is_object()) {
      if (!named) keep_anchor(*child, where);
      levels.push_back({child, where.size(), named});
    }
  }
}

Atom SchemaReader::resolve(const std::string& reference, const std::string& where, Atom from) {
  if (reference.empty() || reference[0] != '#') refuse(where, "only references within the schema (#...) are supported");
  const std::string_view target = std::string_view(reference).substr(1);
  if (!target.empty() && target[0] != '/') {
    if (!has_anchors_) find_anchors();
    const auto at = anchors_.find(std::string(target));
    if (at == anchors_.end()) refuse(where, "no anchor " + std::string(target));
    return add(*at->second.first, at->second.second, from, true);
  }
  const Json* value = &root_;
  std::string place;
  std::size_t at = 0;
  while (at < target.size()) {
    const std::size_t end = std::min(target.find('/', at + 1), target.size());
    std::string part;
    for (std::size_t i = at + 1; i < end; ++i) {
      if (target[i] == '%' && i + 2 < end) {
        unsigned byte = 0;
        const auto parsed = std::from_chars(target.data() + i + 1, target.data() + i + 3, byte, 16);
        if (parsed.ptr != target.data() + i + 3) refuse(where, "a reference with a broken % escape");
        part += static_cast<char>(static_cast<unsigned char>(byte));
        i += 2;
      } else if (target[i] == '~' && i + 1 < end && (target[i + 1] == '0' || target[i + 1] == '1')) {
        part += target[++i] == '0' ? '~' : '/';
      } else {
        part += target[i];
      }
    }
    const Json* next = value->find(part);
    if (value->is_array()) {
      std::size_t index = 0;
      const auto parsed = std::from_chars(part.data(), part.data() + part.size(), index);
      const bool whole = parsed.ec == std::errc() && parsed.ptr == part.data() + part.size();
      next = whole && index < value->array().size() ? &value->array()[index] : nullptr;
    }
    if (next == nullptr) refuse(where, "no schema at " + reference);
    value = next;
    place += "/" + pointer_part(part);
    at = end;
  }
  return add(*value, place, from, true);
}

// ---- Keywords
// ---------------------------------------------------------------------------------------------------------

struct SchemaReader::Collector {
  SchemaReader& reader;
  const std::set<const Json*>& taken;
  SchemaFacts facts;
  std::vector<Atom> todo;
  std::vector<std::pair<const Json*, const Json*>> inside{};  // a schema, and one that holds for the same value by it

  // The schema being read.
  Atom atom = kNoAtom;
  const Json* schema = nullptr;
  ObjectPart object{};
  ArrayPart array{};
  bool has_object = false, has_array = false;

  std::string at(std::string_view keyword) const { return reader.where(atom) + "/" + std::string(keyword); }
  [[noreturn]] void refuse(std::string_view keyword, const std::string& what) const {
    reader.refuse(at(keyword), what);
  }

  std::uint32_t count(std::string_view keyword, const Json& value) const {
    if (!value.is_number() || value.number() < 0 || std::floor(value.number()) != value.number())
      refuse(keyword, "has to be a whole number from 0");
    return static_cast<std::uint32_t>(std::min<double>(value.number(), Dfa::kInfinite));
  }
  void at_least(std::uint32_t& limit, std::string_view keyword, const Json& value) const {
    limit = std::max(limit, count(keyword, value));
    if (limit > 1'000'000) refuse(keyword, "more than 1,000,000 is not supported");
  }
  void at_most(std::uint32_t& limit, std::string_view keyword, const Json& value) const {
    const std::uint32_t n = count(keyword, value);
    limit = std::min(limit, n >= 1'000'000 ? Dfa::kInfinite - 1 : n);
  }
  Atom below(std::string_view keyword, const Json& value) const {
    return reader.add(value, at(keyword), kNoAtom, false);
  }
  const Json::Array& list(std::string_view keyword, const Json& value) const {
    if (!value.is_array() || value.array().empty()) refuse(keyword, "has to be a list that is not empty");
    return value.array();
  }
  const Json::Object& members(std::string_view keyword, const Json& value) const {
    if (!value.is_object()) refuse(keyword, "has to be an object");
    return value.object();
  }
  const std::string& text(std::string_view keyword, const Json& value) const {
    if (!value.is_string()) refuse(keyword, "has to be a string");
    return value.string();
  }

  void type(const Json& value) {
    unsigned types = 0;
    const auto one = [&](const Json& name) {
      const std::string& n = text("type", name);
      if (n == "null") types |= kTypeNull;
      else if (n == "boolean") types |= kTypeBool;
      else if (n == "object") types |= kTypeObject;
      else if (n == "array") types |= kTypeArray;
      else if (n == "number") types |= kTypeNumber | kTypeInteger;
      else if (n == "integer") types |= kTypeInteger;
      else if (n == "string") types |= kTypeString;
      else refuse("type", "no type \"" + n + "\"");
    };
    if (value.is_array()) {
      for (const Json& name : list("type", value)) one(name);
    } else {
      one(value);
    }
    const Json* nullable = schema->find("nullable");  // OpenAPI 3.0
    if (nullable != nullptr && nullable->is_bool() && nullable->boolean()) types |= kTypeNull;
    facts.types &= types;
    facts.typed = true;
  }

  void literals(std::string_view keyword, std::vector<const Json*> values) {
    if (reader.counted_literals_.insert(schema).second) reader.count_literals(values.size(), at(keyword));
    if (facts.literals) {
      std::erase_if(values, [&](const Json* v) {
        return std::none_of(facts.literals->begin(), facts.literals->end(), [&](const Json* o) {
          reader.budget_.tick();
          return json_equal(*v, *o);
        });
      });
    }
    facts.literals = std::move(values);
    facts.literals_where = at(keyword);
  }

  void bound(std::string_view keyword, const Json& value, bool low, bool exclusive) {
    if (value.is_bool()) refuse(keyword, "a boolean (draft 4) is not supported");
    if (!value.is_number()) refuse(keyword, "has to be a number");
    std::optional<NumberBound>& known = low ? facts.number.low : facts.number.high;
    const double v = value.number();
    const bool tighter = !known || (low ? v > known->value : v < known->value) || (v == known->value && exclusive);
    if (tighter) known = NumberBound{v, exclusive};
    facts.number_where = at(keyword);
  }

  void choice(std::string_view keyword, const Json& value, bool one_of) {
    list(keyword, value);
    if (!taken.contains(&value)) facts.choices.push_back({&value, atom, one_of, at(keyword)});
  }

  void items(std::string_view keyword, const Json& value) {
    has_array = true;
    if (value.is_array()) {  // drafts before 2020-12: as prefixItems
      for (std::size_t i = 0; i < value.array().size(); ++i)
        array.prefix.push_back(reader.add(value.array()[i], at(keyword) + "/" + std::to_string(i), kNoAtom, false));
    } else {
      array.items = below(keyword, value);
      array.describes_all = true;
    }
  }

  void properties(std::string_view keyword, const Json& value, std::vector<std::pair<std::string, Atom>>& out) {
    has_object = true;
    for (const Json::Member& m : members(keyword, value))
      out.emplace_back(m.first, reader.add(m.second, at(keyword) + "/" + pointer_part(m.first), kNoAtom, false));
    if (reader.counted_properties_.insert(&value).second) reader.count_properties(value.object().size(), at(keyword));
  }

  void required(const Json& value) {
    has_object = true;
    if (!value.is_array()) refuse("required", "has to be a list of names");
    for (const Json& name : value.array()) facts.required.push_back(text("required", name));
    if (reader.counted_properties_.insert(&value).second) reader.count_properties(value.array().size(), at("required"));
  }

  void keyword(const std::string& name, const Json& value);
  bool number_keyword(const std::string& name, const Json& value);
  bool object_keyword(const std::string& name, const Json& value);
  bool array_keyword(const std::string& name, const Json& value);
  void run();
  // Which of the parts belong to the closed schema.
  template <class Part>
  void find_parts(ClosedSchema& closed, const std::vector<Part>& parts) const;
};

bool SchemaReader::Collector::number_keyword(const std::string& name, const Json& value) {
  if (name == "minimum") bound(name, value, true, false);
  else if (name == "maximum") bound(name, value, false, false);
  else if (name == "exclusiveMinimum") bound(name, value, true, true);
  else if (name == "exclusiveMaximum") bound(name, value, false, true);
  else if (name == "multipleOf") {
    if (!value.is_number() || !(value.number() > 0)) refuse(name, "has to be a number above 0");
    facts.number.multiples.push_back(value.number());
    facts.number_where = at(name);
  } else {
    return false;
  }
  facts.implied |= kTypeNumber | kTypeInteger;
  return true;
}

bool SchemaReader::Collector::object_keyword(const std::string& name, const Json& value) {
  if (name == "properties") properties(name, value, object.properties);
  else if (name == "patternProperties") properties(name, value, object.patterns);
  else if (name == "required") required(value);
  else if (name == "additionalProperties") {
    has_object = true;
    object.additional = below(name, value);
    object.describes_all = true;
  } else if (name == "unevaluatedProperties") {
    if (!value.is_bool()) refuse(name, "only true and false are supported");
    if (value.boolean()) has_object = object.describes_all = true;
    else facts.closed_objects.push_back({schema, {}});
  } else if (name == "minProperties") at_least(facts.min_properties, name, value);
  else if (name == "maxProperties") at_most(facts.max_properties, name, value);
  else if (name == "propertyNames") facts.names.push_back(below(name, value));
  else return false;
  facts.implied |= kTypeObject;
  return true;
}

bool SchemaReader::Collector::array_keyword(const std::string& name, const Json& value) {
  if (name == "items") items(name, value);
  else if (name == "prefixItems") {
    list(name, value);
    items(name, value);
  } else if (name == "additionalItems") {
    const Json* tuple = schema->find("items");
    if (tuple != nullptr && tuple->is_array()) {
      array.items = below(name, value);
      array.describes_all = true;
    }
  } else if (name == "minItems") at_least(facts.min_items, name, value);
  else if (name == "maxItems") at_most(facts.max_items, name, value);
  else if (name == "uniqueItems") {
    if (!value.is_bool() || value.boolean()) refuse(name, "not supported");
  } else if (name == "unevaluatedItems") {
    if (!value.is_bool()) refuse(name, "only true and false are supported");
    if (value.boolean()) has_array = array.describes_all = true;
    else facts.closed_arrays.push_back({schema, {}});
  } else {
    return false;
  }
  facts.implied |= kTypeArray;
  return true;
}

void SchemaReader::Collector::keyword(const std::string& name, const Json& value) {
  static const std::set<std::string_view> kAnnotations = {"$schema",
                                                          "$id",
                                                          "id",
                                                          "$comment",
                                                          "$defs",
                                                          "definitions",
                                                          "$anchor",
                                                          "$dynamicAnchor",
                                                          "$vocabulary",
                                                          "title",
                                                          "description",
                                                          "default",
                                                          "examples",
                                                          "example",
                                                          "deprecated",
                                                          "readOnly",
                                                          "writeOnly",
                                                          "contentEncoding",
                                                          "contentMediaType",
                                                          "contentSchema",
                                                          "nullable",
                                                          "discriminator",
                                                          "externalDocs",
                                                          "xml",
                                                          "strict"};
  if (number_keyword(name, value) || object_keyword(name, value) || array_keyword(name, value)) return;
  if (name == "type") type(value);
  else if (name == "enum") {
    std::vector<const Json*> values;
    for (const Json& v : list(name, value)) values.push_back(&v);
    literals(name, std::move(values));
  } else if (name == "const") literals(name, {&value});
  else if (name == "anyOf") choice(name, value, false);
  else if (name == "oneOf") choice(name, value, true);
  else if (name == "allOf") {
    for (std::size_t i = 0; i < list(name, value).size(); ++i)
      todo.push_back(reader.add(value.array()[i], at(name) + "/" + std::to_string(i), atom, true));
  } else if (name == "$ref") todo.push_back(reader.resolve(text(name, value), at(name), atom));
  else if (name == "minLength") at_least(facts.min_length, name, value), facts.implied |= kTypeString;
  else if (name == "maxLength") at_most(facts.max_length, name, value), facts.implied |= kTypeString;
  else if (name == "pattern") {
    facts.patterns.emplace_back(text(name, value), at(name));
    facts.implied |= kTypeString;
  } else if (name == "format") {
    facts.formats.emplace_back(text(name, value), at(name));
  } else if (!kAnnotations.contains(name) && !name.starts_with("x-")) {
    refuse(printable(pointer_part(name), 80), "not supported");
  }
}

void SchemaReader::Collector::run() {
  std::set<const Json*> seen;
  while (!todo.empty()) {
    atom = todo.back();
    todo.pop_back();
    schema = &reader.schema(atom);
    if (const Atom parent = reader.nodes_[atom].parent; parent != kNoAtom)
      inside.emplace_back(&reader.schema(parent), schema);
    if (!seen.insert(schema).second) continue;
    if (schema->is_bool()) {
      facts.never = facts.never || !schema->boolean();
      continue;
    }
    object = {};
    array = {};
    has_object = has_array = false;
    const std::size_t before = todo.size();
    for (const Json::Member& m : schema->object()) {
      reader.budget_.tick();
      keyword(m.first, m.second);
    }
    std::reverse(todo.begin() + static_cast<std::ptrdiff_t>(before), todo.end());  // in the order of the text
    object.where = reader.where(atom);
    object.schema = array.schema = schema;
    if (has_object) facts.objects.push_back(std::move(object));
    if (has_array) facts.arrays.push_back(std::move(array));
  }
  std::sort(inside.begin(), inside.end());
  for (ClosedSchema& closed : facts.closed_objects) find_parts(closed, facts.objects);
  for (ClosedSchema& closed : facts.closed_arrays) find_parts(closed, facts.arrays);
}

template <class Part>
void SchemaReader::Collector::find_parts(ClosedSchema& closed, const std::vector<Part>& parts) const {
  std::set<const Json*> own{closed.schema};
  std::vector<const Json*> stack{closed.schema};
  while (!stack.empty()) {
    const Json* outer = stack.back();
    stack.pop_back();
    for (auto at = std::lower_bound(inside.begin(), inside.end(), std::pair<const Json*, const Json*>(outer, nullptr));
         at != inside.end() && at->first == outer; ++at) {
      reader.budget_.tick();
      if (own.insert(at->second).second) stack.push_back(at->second);
    }
  }
  for (std::size_t i = 0; i < parts.size(); ++i) {
    reader.budget_.tick();
    if (own.contains(parts[i].schema)) closed.parts.push_back(static_cast<std::uint32_t>(i));
  }
  reader.budget_.bytes(closed.parts.size() * sizeof(closed.parts[0]));
}

SchemaFacts SchemaReader::collect(const std::vector<Atom>& atoms, const std::set<const Json*>& taken) {
  Collector collector{*this, taken, {}, {atoms.rbegin(), atoms.rend()}};
  collector.run();
  return std::move(collector.facts);
}

}  // namespace gov
