#pragma once
// From schemas to the tables of a grammar. Private to src/text.

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "text/grammar/char_dfa.h"
#include "text/grammar/program.h"
#include "text/grammar/schema.h"

namespace gov {

class SchemaCompiler {
 public:
  SchemaCompiler(const Json& schema, const GrammarLimits& limits);
  std::shared_ptr<const Grammar::Impl> run();

 private:
  using Taken = std::set<const Json*>;
  // Schemas that hold together, with the choices that were made among their branches.
  struct Conjunction {
    std::vector<Atom> atoms;
    Taken taken;
  };
  struct Pending {
    std::uint32_t value;
    std::vector<Atom> atoms;
    int depth;
  };

  // The value under all of these; compiled later. One value for equal sets of schemas, which is how recursion ends.
  std::uint32_t value_of(std::vector<Atom> atoms, int depth);
  std::uint32_t any_value();
  std::uint32_t never_value();
  void expand(const Pending& pending);
  // The cases of a conjunction: every choice made in every way, but for those that are `taken`.
  std::vector<SchemaFacts> cases(const std::vector<Atom>& atoms, const Taken& taken = {});

  void emit(const SchemaFacts& facts, const std::string& where, std::uint32_t value, int depth);
  void emit_literals(const SchemaFacts& facts, std::uint32_t value);
  void emit_words(unsigned types, std::uint32_t value);
  void emit_number(const SchemaFacts& facts, const std::string& where, std::uint32_t value, bool integer);
  void emit_string(const SchemaFacts& facts, const std::string& where, std::uint32_t value);
  void emit_array(const SchemaFacts& facts, const std::string& where, std::uint32_t value, int depth);
  void emit_object(const SchemaFacts& facts, const std::string& where, std::uint32_t value, int depth);
  void check_depth(const std::string& where, int depth);
  void add_terminal(std::uint32_t value, Terminal terminal);

  // schema_object.cc
  struct Names;  // propertyNames
  std::vector<std::string> declared_names(const SchemaFacts& facts, const Names& names);
  // A pattern of patternProperties.
  const CharDfa& name_pattern(const ObjectPart& part, const std::string& text);
  // What holds for a property of this name; `false` where a schema that is closed does not describe it.
  std::vector<Atom> atoms_of_name(const SchemaFacts& facts, const std::string& name);
  void add_extras(const SchemaFacts& facts, const Names& names, ObjectSpec& object, int depth);
  Names read_names(const SchemaFacts& facts);

  // A regular expression, compiled once: a pattern that may match anywhere, with limits or states for repetitions, or
  // that of a format.
  enum class PatternKind { kCounted, kUncounted, kFormat };
  const CharDfa& pattern(const std::string& text, PatternKind kind, const std::string& where);
  // The texts of strings under these patterns and formats (minLength and maxLength are not looked at), made once;
  // nullopt: any text.
  const std::optional<CharDfa>& string_chars(const SchemaFacts& facts, bool counters);
  bool literal_fits(const Json& literal, const SchemaFacts& facts);

  // schema_disjoint.cc: whether nothing that is generated under `made` is valid under `other`; false also where that is
  // not known. `partial`: the facts may lack what other schemas say of the same value.
  bool disjoint(const SchemaFacts& made, const SchemaFacts& other, bool partial, int levels);
  bool objects_disjoint(const SchemaFacts& made, const SchemaFacts& other, bool partial, int levels);
  bool strings_disjoint(const SchemaFacts& a, const SchemaFacts& b);
  void check_one_of(const Conjunction& conjunction, const SchemaFacts& facts, const SchemaChoice& choice);

  GrammarBudget budget_;
  SchemaReader reader_;
  std::shared_ptr<Grammar::Impl> impl_ = std::make_shared<Grammar::Impl>();
  std::map<std::vector<const Json*>, std::uint32_t> values_;
  std::map<std::pair<std::string, PatternKind>, CharDfa> patterns_;
  std::map<std::pair<std::string, bool>, std::optional<CharDfa>> chars_;  // of string_chars
  std::map<std::string, Terminal> strings_;                               // by patterns, formats and limits
  std::deque<Pending> pending_;
  std::set<std::vector<const Json*>> checked_;  // oneOf, with the schemas that hold beside it
  int one_of_depth_ = 0;
  std::uint32_t any_ = kNoValue, never_ = kNoValue;
};

}  // namespace gov
