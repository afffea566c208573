#include "text/grammar/program.h"

#include <algorithm>

#include "base/json_writer.h"
#include "text/grammar/char_dfa.h"
#include "text/grammar/number.h"
#include "text/grammar/regex.h"

namespace gov {
namespace {

// What is not known at compile time of this file has no limits of a request.
GrammarBudget own_budget() {
  GrammarLimits limits;
  limits.seconds = 60;
  return GrammarBudget(limits);
}

// Edges by these bytes: hexadecimal digits of \uXXXX, or the letters of short escapes.
void byte_edges(DfaBuilder& b, std::uint32_t from, std::string_view bytes, std::uint32_t to) {
  for (const char byte : bytes) b.edge(from, byte, to);
}
constexpr std::string_view kHex = "0123456789abcdefABCDEF";

std::uint32_t hex_tail(DfaBuilder& b, int digits, std::uint32_t to) {
  for (int i = 0; i < digits; ++i) {
    const std::uint32_t from = b.add();
    byte_edges(b, from, kHex, to);
    to = from;
  }
  return to;
}

std::shared_ptr<const Dfa> make_string_dfa() {
  GrammarBudget budget = own_budget();
  DfaBuilder b(budget);
  const std::uint32_t start = b.add(), text = b.add(), end = b.add(), escape = b.add();
  b.edge(start, '"', text);
  b.range(text, 0x20, 0x7F, text, true);
  b.edge(text, '"', end);
  b.edge(text, '\\', escape, true);
  b.accept(end);
  byte_edges(b, escape, "\"\\/bfnrt", text);
  // UTF-8 by table 3-7 of the Unicode Standard.
  const std::uint32_t one = b.add(), two = b.add(), three = b.add(), e0 = b.add(), ed = b.add(), f0 = b.add(),
                      f4 = b.add();
  b.range(one, 0x80, 0xBF, text);
  b.range(two, 0x80, 0xBF, one);
  b.range(three, 0x80, 0xBF, two);
  b.range(e0, 0xA0, 0xBF, one);
  b.range(ed, 0x80, 0x9F, one);
  b.range(f0, 0x90, 0xBF, two);
  b.range(f4, 0x80, 0x8F, two);
  b.range(text, 0xC2, 0xDF, one, true);
  b.range(text, 0xE1, 0xEF, two, true);
  b.range(text, 0xE0, 0xE0, e0, true);
  b.range(text, 0xED, 0xED, ed, true);
  b.range(text, 0xF1, 0xF3, three, true);
  b.range(text, 0xF0, 0xF0, f0, true);
  b.range(text, 0xF4, 0xF4, f4, true);
  // \uXXXX; a high surrogate must be followed by a low one, and a low one never stands alone.
  const std::uint32_t u = b.add(), d = b.add(), pair = b.add(), pair_u = b.add(), pair_d = b.add(), pair_2 = b.add();
  b.edge(escape, 'u', u);
  byte_edges(b, u, "0123456789abcefABCEF", hex_tail(b, 3, text));
  b.edge(u, 'd', d);
  b.edge(u, 'D', d);
  byte_edges(b, d, "01234567", hex_tail(b, 2, text));
  byte_edges(b, d, "89abAB", hex_tail(b, 2, pair));
  b.edge(pair, '\\', pair_u);
  b.edge(pair_u, 'u', pair_d);
  b.edge(pair_d, 'd', pair_2);
  b.edge(pair_d, 'D', pair_2);
  byte_edges(b, pair_2, "cdefCDEF", hex_tail(b, 2, text));
  return b.finish(start);
}

// As spell() of any text, but each character can be written in one way only, so that equal names are equal bytes.
std::shared_ptr<const Dfa> make_name_dfa() {
  GrammarBudget budget = own_budget();
  return spell(any_text(budget), Spelling::kName, budget).dfa;
}

}  // namespace

const std::shared_ptr<const Dfa>& json_string_dfa() {
  static const std::shared_ptr<const Dfa> dfa = make_string_dfa();
  return dfa;
}
const std::shared_ptr<const Dfa>& json_name_dfa() {
  static const std::shared_ptr<const Dfa> dfa = make_name_dfa();
  return dfa;
}
const Terminal& json_number() {
  static const Terminal terminal = [] {
    GrammarBudget budget = own_budget();
    return number_terminals({}, budget).front();
  }();
  return terminal;
}
const std::shared_ptr<const Dfa>& json_word_dfa() {
  static const std::shared_ptr<const Dfa> dfa = [] {
    GrammarBudget budget = own_budget();
    DfaBuilder b(budget);
    const std::uint32_t start = b.add();
    for (const char* word : {"null", "true", "false"}) b.accept(b.path(start, word));
    return b.finish(start);
  }();
  return dfa;
}

void ObjectSpec::add_name(std::string_view quoted, std::uint32_t property) {
  std::uint32_t node = 0;
  names[0].below.push_back(property);
  for (const char c : quoted.substr(1)) {
    const auto byte = static_cast<std::uint8_t>(c);
    std::uint32_t next = child(node, byte);
    if (next == kNoValue) {
      next = static_cast<std::uint32_t>(names.size());
      names.emplace_back();
      auto& children = names[node].children;
      children.insert(std::lower_bound(children.begin(), children.end(), std::pair(byte, std::uint32_t{0})),
                      {byte, next});
    }
    node = next;
    names[node].below.push_back(property);
  }
  names[node].property = property;
}

std::uint32_t ObjectSpec::child(std::uint32_t node, std::uint8_t byte) const {
  const auto& children = names[node].children;
  const auto at = std::lower_bound(children.begin(), children.end(), std::pair(byte, std::uint32_t{0}));
  return at != children.end() && at->first == byte ? at->second : kNoValue;
}

void ObjectSpec::finish() {
  const std::uint32_t n = count();
  next_required.assign(n + 1, n);
  required_after.assign(n + 1, 0);
  for (std::uint32_t i = n; i-- > 0;) {
    next_required[i] = properties[i].required ? i : next_required[i + 1];
    required_after[i] = required_after[i + 1] + (properties[i].required ? 1 : 0);
  }
}

bool Grammar::Impl::find_heights() {
  const auto of = [&](std::uint32_t value) { return value == kNoValue ? kNoHeight : values[value].height; };
  const auto array_height = [&](const ArraySpec& a) -> std::uint32_t {
    if (a.min > a.max) return kNoHeight;
    std::uint32_t most = 0;
    const auto listed = static_cast<std::uint32_t>(a.prefix.size());
    for (std::uint32_t i = 0; i < std::min(a.min, listed); ++i) most = std::max(most, of(a.prefix[i]));
    if (a.min > listed) most = std::max(most, of(a.items));
    return std::min(most + 1, kNoHeight);
  };
  const auto object_height = [&](const ObjectSpec& o) -> std::uint32_t {
    if (o.min > o.max || o.required_after[0] > o.max) return kNoHeight;
    std::uint32_t most = 0, can = 0;
    // With more properties wanted than required, all that can be written count, so that none is missing in the end.
    for (const auto& p : o.properties) {
      const bool possible = of(p.value) < kNoHeight;
      if (p.required || (o.min > o.required_after[0] && possible)) most = std::max(most, of(p.value));
      can += possible ? 1 : 0;
    }
    if (o.min > can) {
      std::uint32_t extra = kNoHeight;
      for (const ExtraNames& e : o.extras) {
        if (e.name.dfa->completions[e.name.dfa->start] >= Dfa::kInfinite) extra = std::min(extra, of(e.value));
      }
      most = std::max(most, extra);
    }
    return std::min(most + 1, kNoHeight);
  };
  for (bool changed = true; changed;) {
    changed = false;
    const auto lower = [&](std::uint32_t& height, std::uint32_t to) {
      changed = changed || to < height;
      height = std::min(height, to);
    };
    for (ArraySpec& a : arrays) lower(a.height, array_height(a));
    for (ObjectSpec& o : objects) lower(o.height, object_height(o));
    for (GrammarValue& v : values) {
      if (!v.terminals.empty()) lower(v.height, 0);
      for (const std::uint32_t i : v.arrays) lower(v.height, arrays[i].height);
      for (const std::uint32_t i : v.objects) lower(v.height, objects[i].height);
    }
  }
  for (ObjectSpec& o : objects) {
    o.possible_after.assign(o.count() + 1, 0);
    for (std::uint32_t i = o.count(); i-- > 0;)
      o.possible_after[i] = o.possible_after[i + 1] + (of(o.properties[i].value) < kNoHeight ? 1 : 0);
  }
  return values[root].height <= kMaxNesting;
}

std::uint32_t add_any_value(Grammar::Impl& impl) {
  const auto value = static_cast<std::uint32_t>(impl.values.size());
  const auto terminal = static_cast<std::uint32_t>(impl.terminals.size());
  impl.terminals.push_back({json_string_dfa(), 0, Dfa::kInfinite, nullptr, 0});
  impl.terminals.push_back(json_number());
  impl.terminals.push_back({json_word_dfa(), 0, Dfa::kInfinite, nullptr, 0});
  impl.values.push_back({{terminal, terminal + 1, terminal + 2},
                         {static_cast<std::uint32_t>(impl.objects.size())},
                         {static_cast<std::uint32_t>(impl.arrays.size())},
                         kNoHeight});
  ObjectSpec object;
  object.extras.push_back({{json_name_dfa(), 0, Dfa::kInfinite, nullptr, 0}, value});
  object.finish();
  impl.objects.push_back(std::move(object));
  ArraySpec array;
  array.items = value;
  impl.arrays.push_back(std::move(array));
  return value;
}

std::shared_ptr<const Grammar> Grammar::json_object() {
  auto impl = std::make_shared<Impl>();
  const std::uint32_t any = add_any_value(*impl);
  impl->root = static_cast<std::uint32_t>(impl->values.size());
  impl->values.push_back({{}, impl->values[any].objects, {}, kNoHeight});
  impl->find_heights();
  return std::make_shared<const Grammar>(std::shared_ptr<const Impl>(std::move(impl)));
}

std::shared_ptr<const Grammar> Grammar::regex(std::string_view pattern, const GrammarLimits& limits) {
  auto impl = std::make_shared<Impl>();
  try {
    GrammarBudget budget(limits);
    impl->terminals.push_back(spell(compile_regex(pattern, {}, budget), Spelling::kRaw, budget));
    impl->bytes = budget.used_bytes();
  } catch (const Error& e) {
    throw Error(e.code(), "regular expression: " + std::string(e.what()));
  }
  if (impl->terminals[0].empty()) fail(ErrorCode::kInvalidArgument, "regular expression: no text matches it");
  impl->values.push_back({{0}, {}, {}, kNoHeight});
  impl->find_heights();
  return std::make_shared<const Grammar>(std::shared_ptr<const Impl>(std::move(impl)));
}

}  // namespace gov
