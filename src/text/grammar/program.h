#pragma once
// A compiled grammar. JSON's structure is fixed and lives in run.cc; the tables say which values, names and lengths may
// stand where. Private to src/text.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/grammar/dfa.h"

namespace gov {

inline constexpr std::uint32_t kNoValue = ~std::uint32_t{0};
inline constexpr std::uint32_t kNoHeight = 1u << 30;  // no finite document
// Of arrays and objects in each other; what a grammar allows to be deeper is not generated. Json::parse takes 64.
inline constexpr std::uint32_t kMaxNesting = 32;
inline constexpr std::size_t kMaxReadings = 256;  // of an ambiguous text that are followed at once

// A value: any of these.
struct GrammarValue {
  std::vector<std::uint32_t> terminals, objects, arrays;  // indices into Impl's tables
  std::uint32_t height = kNoHeight;                       // nesting of the shallowest document
};

struct ArraySpec {
  std::vector<std::uint32_t> prefix;  // values of the first items
  std::uint32_t items = kNoValue;     // of those behind
  std::uint32_t min = 0, max = Dfa::kInfinite;
  std::uint32_t height = kNoHeight;
  std::uint32_t value_at(std::uint32_t i) const { return i < prefix.size() ? prefix[i] : items; }
};

// Names of the declared properties as a tree of the bytes behind the opening quote, closing quote included.
struct NameNode {
  std::vector<std::pair<std::uint8_t, std::uint32_t>> children;  // by byte
  std::vector<std::uint32_t> below;                              // properties whose names pass here, ascending
  std::uint32_t property = kNoValue;                             // the name that ends here
};

// Names that are not declared: what they look like and what stands behind them.
struct ExtraNames {
  Terminal name;  // with both quotes
  std::uint32_t value = kNoValue;
};

struct ObjectSpec {
  struct Property {
    std::uint32_t value;
    bool required;
  };
  std::vector<Property> properties;  // written in this order
  std::vector<NameNode> names{1};
  std::vector<std::uint32_t> next_required;   // [properties + 1] the first required one from here, or `properties`
  std::vector<std::uint32_t> required_after;  // [properties + 1] how many from here
  std::vector<std::uint32_t> possible_after;  // [properties + 1] how many from here can be written at all
  std::vector<ExtraNames> extras;             // come last, in any order
  std::uint32_t min = 0, max = Dfa::kInfinite;
  std::uint32_t height = kNoHeight;

  std::uint32_t count() const { return static_cast<std::uint32_t>(properties.size()); }
  void add_name(std::string_view quoted, std::uint32_t property);    // quoted: with both quotes
  std::uint32_t child(std::uint32_t node, std::uint8_t byte) const;  // kNoValue: none
  void finish();  // fills next_required and required_after; Impl::find_heights() fills possible_after
};

struct Grammar::Impl {
  std::vector<Terminal> terminals;
  std::vector<GrammarValue> values;
  std::vector<ArraySpec> arrays;
  std::vector<ObjectSpec> objects;
  std::uint32_t root = 0;
  std::size_t bytes = 0;  // about what it holds, for who keeps it

  // Fills the heights; whether the root has a finite document that is not nested too deep.
  bool find_heights();
};

// Terminals that all grammars share.
const std::shared_ptr<const Dfa>& json_string_dfa();  // any string, every escape that RFC 8259 knows
const std::shared_ptr<const Dfa>& json_name_dfa();    // any string, each character written in one way only
const Terminal& json_number();
const std::shared_ptr<const Dfa>& json_word_dfa();  // null, true, false

// Adds any JSON value; returns its index.
std::uint32_t add_any_value(Grammar::Impl& impl);

}  // namespace gov
