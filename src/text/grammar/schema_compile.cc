#include "text/grammar/schema_compile.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/utf8.h"
#include "text/grammar/format.h"
#include "text/grammar/regex.h"

namespace gov {
namespace {

constexpr std::size_t kMaxCases = 4096;  // of one value, choices multiplied

// The patterns and formats, as a key.
std::string string_key(const SchemaFacts& facts) {
  std::string key;
  for (const auto* list : {&facts.patterns, &facts.formats}) {
    key += '\0';
    for (const auto& [text, _] : *list) key += '\1' + text;
  }
  return key;
}

// How many items may be there before one that a schema with unevaluatedItems false does not describe.
std::uint32_t described_items(const SchemaFacts& facts) {
  std::uint32_t most = Dfa::kInfinite;
  for (const ClosedSchema& closed : facts.closed_arrays) {
    std::uint32_t described = 0;
    for (const std::uint32_t i : closed.parts) {
      const ArrayPart& part = facts.arrays[i];
      described =
          std::max(described, part.describes_all ? Dfa::kInfinite : static_cast<std::uint32_t>(part.prefix.size()));
    }
    most = std::min(most, described);
  }
  return most;
}

}  // namespace

SchemaCompiler::SchemaCompiler(const Json& schema, const GrammarLimits& limits)
    : budget_(limits), reader_(schema, budget_) {}

std::shared_ptr<const Grammar::Impl> SchemaCompiler::run() {
  try {
    if (!reader_.schema(0).is_object() && !reader_.schema(0).is_bool())
      reader_.refuse("", "a schema has to be an object or a boolean");
    impl_->root = value_of({reader_.root()}, 0);
    while (!pending_.empty()) {
      const Pending next = std::move(pending_.front());
      pending_.pop_front();
      expand(next);
    }
  } catch (const Error& e) {
    if (std::string_view(e.what()).starts_with("schema: ")) throw;
    throw Error(e.code(), "schema: it " + std::string(e.what()));
  }
  if (!impl_->find_heights()) fail(ErrorCode::kInvalidArgument, "schema: /: no finite document is valid under it");
  impl_->bytes = budget_.used_bytes();
  return impl_;
}

std::uint32_t SchemaCompiler::any_value() {
  if (any_ == kNoValue) any_ = add_any_value(*impl_);
  return any_;
}

std::uint32_t SchemaCompiler::never_value() {
  if (never_ == kNoValue) {
    never_ = static_cast<std::uint32_t>(impl_->values.size());
    impl_->values.emplace_back();
  }
  return never_;
}

std::uint32_t SchemaCompiler::value_of(std::vector<Atom> atoms, int depth) {
  std::vector<const Json*> key;
  for (const Atom atom : atoms) {
    const Json& schema = reader_.schema(atom);
    if (schema.is_bool() && !schema.boolean()) return never_value();
    if (!schema.is_bool() && !schema.object().empty()) key.push_back(&schema);
  }
  if (key.empty()) return any_value();
  std::sort(key.begin(), key.end());
  key.erase(std::unique(key.begin(), key.end()), key.end());
  const auto [at, added] = values_.emplace(std::move(key), static_cast<std::uint32_t>(impl_->values.size()));
  if (added) {
    budget_.bytes(sizeof(GrammarValue) + 64);
    impl_->values.emplace_back();
    pending_.push_back({at->second, std::move(atoms), depth});
  }
  return at->second;
}

std::vector<SchemaFacts> SchemaCompiler::cases(const std::vector<Atom>& atoms, const Taken& taken) {
  std::vector<SchemaFacts> out;
  std::vector<Conjunction> todo{{atoms, taken}};
  std::size_t seen = 0;
  while (!todo.empty()) {
    const Conjunction conjunction = std::move(todo.back());
    todo.pop_back();
    budget_.tick();
    SchemaFacts facts = reader_.collect(conjunction.atoms, conjunction.taken);
    if (facts.never || facts.possible() == 0) continue;
    if (facts.choices.empty()) {
      out.push_back(std::move(facts));
      continue;
    }
    const SchemaChoice& choice = facts.choices[0];
    if (++seen > kMaxCases || choice.branches->array().size() > kMaxCases)
      reader_.refuse(choice.where, "too many combinations of branches");
    if (choice.one_of) check_one_of(conjunction, facts, choice);
    for (std::size_t i = choice.branches->array().size(); i-- > 0;) {
      Conjunction next = conjunction;
      next.taken.insert(choice.branches);
      next.atoms.push_back(reader_.branch(choice, i));
      todo.push_back(std::move(next));
    }
  }
  return out;
}

void SchemaCompiler::expand(const Pending& pending) {
  const std::string where = reader_.where(pending.atoms[0]);
  for (const SchemaFacts& facts : cases(pending.atoms)) emit(facts, where, pending.value, pending.depth);
  const GrammarValue& value = impl_->values[pending.value];
  if (value.objects.size() + value.arrays.size() + value.terminals.size() > kMaxReadings)
    reader_.refuse(where, "more than " + std::to_string(kMaxReadings) + " alternatives");
}

void SchemaCompiler::emit(const SchemaFacts& facts, const std::string& where, std::uint32_t value, int depth) {
  if (facts.literals) return emit_literals(facts, value);
  const unsigned types = facts.possible();
  emit_words(types, value);
  if ((types & (kTypeNumber | kTypeInteger)) != 0) emit_number(facts, where, value, (types & kTypeNumber) == 0);
  if ((types & kTypeString) != 0) emit_string(facts, where, value);
  if ((types & kTypeArray) != 0) emit_array(facts, where, value, depth);
  if ((types & kTypeObject) != 0) emit_object(facts, where, value, depth);
}

void SchemaCompiler::add_terminal(std::uint32_t value, Terminal terminal) {
  if (terminal.empty()) return;
  std::size_t i = 0;
  for (; i < impl_->terminals.size(); ++i) {
    budget_.tick();
    const Terminal& known = impl_->terminals[i];
    if (known.dfa == terminal.dfa && known.min == terminal.min && known.max == terminal.max) break;
  }
  if (i == impl_->terminals.size()) impl_->terminals.push_back(std::move(terminal));
  auto& list = impl_->values[value].terminals;
  if (std::find(list.begin(), list.end(), i) == list.end()) list.push_back(static_cast<std::uint32_t>(i));
}

void SchemaCompiler::emit_words(unsigned types, std::uint32_t value) {
  if ((types & (kTypeNull | kTypeBool)) == 0) return;
  DfaBuilder b(budget_);
  const std::uint32_t start = b.add();
  if ((types & kTypeNull) != 0) b.accept(b.path(start, "null"));
  if ((types & kTypeBool) != 0) {
    b.accept(b.path(start, "true"));
    b.accept(b.path(start, "false"));
  }
  add_terminal(value, {b.finish(start), 0, Dfa::kInfinite, nullptr, 0});
}

void SchemaCompiler::emit_literals(const SchemaFacts& facts, std::uint32_t value) {
  DfaBuilder b(budget_);
  const std::uint32_t start = b.add();
  bool some = false;
  for (const Json* literal : *facts.literals) {
    if (!literal_fits(*literal, facts)) continue;
    b.accept(b.path(start, literal->dump()));
    some = true;
  }
  if (some) add_terminal(value, {b.finish(start), 0, Dfa::kInfinite, nullptr, 0});
}

void SchemaCompiler::emit_number(const SchemaFacts& facts, const std::string& where, std::uint32_t value,
                                 bool integer) {
  if (!integer && facts.number.free()) return add_terminal(value, json_number());
  NumberRules rules = facts.number;
  rules.integer = integer;
  const std::string& place = facts.number_where.empty() ? where : facts.number_where;
  for (Terminal& t : reader_.at_place(place, [&] { return number_terminals(rules, budget_); }))
    add_terminal(value, std::move(t));
}

const CharDfa& SchemaCompiler::pattern(const std::string& text, PatternKind kind, const std::string& where) {
  auto key = std::pair(text, kind);
  if (const auto known = patterns_.find(key); known != patterns_.end()) return known->second;
  return reader_.at_place(where, [&]() -> const CharDfa& {
    const RegexOptions options{.search = kind != PatternKind::kFormat, .counters = kind != PatternKind::kUncounted};
    CharDfa chars = compile_regex(text, options, budget_);
    budget_.bytes(chars.bytes());
    return patterns_.emplace(std::move(key), std::move(chars)).first->second;
  });
}

const std::optional<CharDfa>& SchemaCompiler::string_chars(const SchemaFacts& facts, bool counters) {
  auto key = std::pair(string_key(facts), counters);
  if (const auto known = chars_.find(key); known != chars_.end()) return known->second;
  std::optional<CharDfa> chars;
  const auto join = [&](const CharDfa& more, const std::string& where) {
    reader_.at_place(where, [&] { chars = chars ? char_intersection(*chars, more, budget_) : more; });
  };
  for (const auto& [text, where] : facts.patterns)
    join(pattern(text, counters ? PatternKind::kCounted : PatternKind::kUncounted, where), where);
  for (const auto& [name, where] : facts.formats) {
    std::string text;
    std::uint32_t max = 0;
    switch (find_format(name, text, max)) {
      case FormatKind::kAnnotation: continue;
      case FormatKind::kRefused: reader_.refuse(where, "the format \"" + name + "\" is not supported");
      case FormatKind::kEnforced: break;
    }
    join(pattern(text, PatternKind::kFormat, where), where);
    if (max != 0) chars->max = std::min(chars->max, max);
  }
  if (chars) budget_.bytes(chars->bytes());
  return chars_.emplace(std::move(key), std::move(chars)).first->second;
}

void SchemaCompiler::emit_string(const SchemaFacts& facts, const std::string& where, std::uint32_t value) {
  const std::string& place = facts.patterns.empty() ? where : facts.patterns.back().second;
  if (facts.max_length < facts.min_length) return;
  if (facts.patterns.empty() && facts.formats.empty())
    return add_terminal(value, {json_string_dfa(), facts.min_length, facts.max_length, nullptr, 0});
  std::string key = fmt::format("{} {}{}", facts.min_length, facts.max_length, string_key(facts));
  auto known = strings_.find(key);
  if (known == strings_.end()) {
    std::optional<CharDfa> chars = string_chars(facts, true);
    Terminal terminal{json_string_dfa(), facts.min_length, facts.max_length, nullptr, 0};
    if (chars) {
      chars->min = std::max(chars->min, facts.min_length);
      chars->max = std::min(chars->max, facts.max_length);
      if (chars->max < chars->min) return;
      terminal = reader_.at_place(place, [&] { return spell(*chars, Spelling::kJson, budget_); });
    }
    known = strings_.emplace(std::move(key), std::move(terminal)).first;
  }
  add_terminal(value, known->second);
}

void SchemaCompiler::check_depth(const std::string& where, int depth) {
  if (depth >= budget_.limits().depth)
    reader_.refuse(where, "nested deeper than " + std::to_string(budget_.limits().depth) + " levels");
}

void SchemaCompiler::emit_array(const SchemaFacts& facts, const std::string& where, std::uint32_t value, int depth) {
  check_depth(where, depth);
  ArraySpec array;
  array.min = facts.min_items;
  array.max = std::min(facts.max_items, described_items(facts));
  std::size_t listed = 0;
  std::vector<Atom> rest;
  bool has_items = false;
  for (const ArrayPart& part : facts.arrays) {
    listed = std::max(listed, part.prefix.size());
    if (part.items != kNoAtom) rest.push_back(part.items);
    has_items = has_items || part.items != kNoAtom;
  }
  for (std::size_t i = 0; i < listed; ++i) {
    std::vector<Atom> atoms;
    for (const ArrayPart& part : facts.arrays) {
      if (i < part.prefix.size()) atoms.push_back(part.prefix[i]);
      else if (part.items != kNoAtom) atoms.push_back(part.items);
    }
    array.prefix.push_back(value_of(std::move(atoms), depth + 1));
  }
  // Items behind the listed ones are only written when the schema speaks of them, or wants more.
  if (has_items || listed == 0 || array.min > listed) array.items = value_of(rest, depth + 1);
  else array.max = std::min(array.max, static_cast<std::uint32_t>(listed));
  budget_.bytes(sizeof(ArraySpec) + array.prefix.size() * 4);
  impl_->values[value].arrays.push_back(static_cast<std::uint32_t>(impl_->arrays.size()));
  impl_->arrays.push_back(std::move(array));
}

bool SchemaCompiler::literal_fits(const Json& literal, const SchemaFacts& facts) {
  budget_.tick();
  unsigned type = kTypeArray;
  if (literal.is_null()) type = kTypeNull;
  else if (literal.is_bool()) type = kTypeBool;
  else if (literal.is_string()) type = kTypeString;
  else if (literal.is_object()) type = kTypeObject;
  else if (literal.is_number()) type = std::floor(literal.number()) == literal.number() ? kTypeInteger : kTypeNumber;
  if ((facts.types & type) == 0) return false;
  if ((type == kTypeObject && facts.has_object_rules()) || (type == kTypeArray && facts.has_array_rules()))
    reader_.refuse(facts.literals_where, "arrays and objects together with keywords for them are not supported");
  if (type == kTypeString) {
    const std::size_t length = utf8_count(literal.string());
    const std::optional<CharDfa>& chars = string_chars(facts, true);
    return length >= facts.min_length && length <= facts.max_length && (!chars || chars->matches(literal.string()));
  }
  if (literal.is_number()) {
    const double v = literal.number();
    const NumberRules& n = facts.number;
    if (n.low && (v < n.low->value || (n.low->exclusive && v == n.low->value))) return false;
    if (n.high && (v > n.high->value || (n.high->exclusive && v == n.high->value))) return false;
    for (const double m : n.multiples) {
      if (std::floor(m) != m || std::floor(v) != v)
        reader_.refuse(facts.literals_where, "numbers with a fraction together with multipleOf are not supported");
      if (std::fmod(v, m) != 0) return false;
    }
  }
  return true;
}

std::shared_ptr<const Grammar> Grammar::json_schema(const Json& schema, const GrammarLimits& limits) {
  return std::make_shared<const Grammar>(SchemaCompiler(schema, limits).run());
}

}  // namespace gov
