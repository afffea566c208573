#include "text/grammar/char_dfa.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/utf8.h"

namespace gov {
namespace {

constexpr char32_t kLast = 0x10FFFF;

}  // namespace

CharSet char_set(CharSet ranges) {
  std::sort(ranges.begin(), ranges.end());
  CharSet joined;
  for (const auto& [low, high] : ranges) {
    if (low > high) continue;
    if (!joined.empty() && low <= joined.back().second + 1) joined.back().second = std::max(joined.back().second, high);
    else joined.emplace_back(low, high);
  }
  CharSet out;
  for (const auto& [low, high] : joined) {
    if (low < 0xD800) out.emplace_back(low, std::min<char32_t>(high, 0xD7FF));
    if (high > 0xDFFF) out.emplace_back(std::max<char32_t>(low, 0xE000), std::min(high, kLast));
  }
  return out;
}

CharSet char_set_union(const CharSet& a, const CharSet& b) {
  CharSet both = a;
  both.insert(both.end(), b.begin(), b.end());
  return char_set(std::move(both));
}

CharSet char_set_complement(const CharSet& set) {
  CharSet out;
  char32_t from = 0;
  for (const auto& [low, high] : set) {
    if (low > from) out.emplace_back(from, low - 1);
    from = high + 1;
  }
  if (from <= kLast) out.emplace_back(from, kLast);
  return char_set(std::move(out));
}

const CharSet& every_char() {
  static const CharSet all = char_set({{0, kLast}});
  return all;
}

std::uint32_t CharDfa::class_of(char32_t c) const {
  const auto at = std::upper_bound(bounds.begin(), bounds.end(), c);
  return range_class[static_cast<std::size_t>(at - bounds.begin()) - 1];
}

bool CharDfa::matches(std::string_view text) const {
  std::uint32_t state = start, count = 0;
  while (!text.empty() && state != 0) {
    const Utf8Char c = utf8_next(text);
    text.remove_prefix(c.length);
    state = next[state * classes + class_of(c.code_point)];
    ++count;
  }
  return text.empty() && accepting[state] != 0 && count >= min && count <= max;
}

namespace {

// The ranges that begin at these bounds and are in the set, by index.
template <class Visit>
void for_ranges(const std::vector<char32_t>& bounds, const CharSet& set, GrammarBudget& budget, Visit visit) {
  for (const auto& [low, high] : set) {
    const auto first = std::lower_bound(bounds.begin(), bounds.end(), low);
    for (auto at = first; at != bounds.end() && *at <= high; ++at) {
      budget.tick();
      visit(static_cast<std::size_t>(at - bounds.begin()));
    }
  }
}

// The class of every range, where ranges that are in the same sets have the same: each set splits the classes that it
// cuts in two. No table of ranges and sets is made, which thousands of sets would make large.
std::vector<std::uint32_t> refine(const std::vector<char32_t>& bounds, const std::vector<CharSet>& sets,
                                  GrammarBudget& budget) {
  struct Class {
    std::size_t ranges = 0, round = 0;  // round: the set, counted from 1, that moved some of its ranges to `to`
    std::uint32_t to = 0;
  };
  std::vector<std::uint32_t> range_class(bounds.size(), 0), unused;
  std::vector<Class> classes{{bounds.size(), 0, 0}};
  for (std::size_t i = 0; i < sets.size(); ++i) {
    std::vector<std::uint32_t> cut;
    for_ranges(bounds, sets[i], budget, [&](std::size_t range) {
      const std::uint32_t from = range_class[range];
      if (classes[from].round != i + 1) {
        if (unused.empty()) {
          unused.push_back(static_cast<std::uint32_t>(classes.size()));
          classes.emplace_back();
        }
        classes[from].round = i + 1;
        classes[from].to = unused.back();
        unused.pop_back();
        cut.push_back(from);
      }
      --classes[from].ranges;
      range_class[range] = classes[from].to;
      ++classes[range_class[range]].ranges;
    });
    for (const std::uint32_t c : cut) {
      if (classes[c].ranges == 0) unused.push_back(c);
    }
  }
  return range_class;
}

}  // namespace

std::vector<std::vector<bool>> split_classes(const std::vector<CharSet>& sets, CharDfa& out, GrammarBudget& budget) {
  std::vector<char32_t> bounds{0, 0xD800, 0xE000};
  for (const CharSet& set : sets) {
    for (const auto& [low, high] : set) {
      bounds.push_back(low);
      if (high < kLast) bounds.push_back(high + 1);
    }
    budget.check_bytes(bounds.size() * sizeof(bounds[0]));
  }
  std::sort(bounds.begin(), bounds.end());
  bounds.erase(std::unique(bounds.begin(), bounds.end()), bounds.end());
  out.range_class = refine(bounds, sets, budget);
  // Numbered anew, without gaps.
  std::vector<std::uint32_t> number(2 * bounds.size() + 1, 0);
  out.classes = 0;
  for (std::uint32_t& c : out.range_class) {
    if (number[c] == 0) number[c] = ++out.classes;
    c = number[c] - 1;
  }
  budget.check_bytes(out.classes * (sets.size() / 8 + sizeof(std::vector<bool>) + 16));
  std::vector<std::vector<bool>> members(out.classes, std::vector<bool>(sets.size(), false));
  for (std::size_t i = 0; i < sets.size(); ++i)
    for_ranges(bounds, sets[i], budget, [&](std::size_t range) { members[out.range_class[range]][i] = true; });
  out.bounds = std::move(bounds);
  return members;
}

CharDfa any_text(GrammarBudget& budget) {
  CharDfa all;
  const auto classes = split_classes({every_char()}, all, budget);
  all.next.assign(2 * all.classes, 0);
  for (std::uint32_t c = 0; c < all.classes; ++c) all.next[all.classes + c] = classes[c][0];
  all.accepting = {0, 1};
  all.start = 1;
  return all;
}

CharDfa char_intersection(const CharDfa& a, const CharDfa& b, GrammarBudget& budget) {
  CharDfa out;
  out.bounds = a.bounds;
  out.bounds.insert(out.bounds.end(), b.bounds.begin(), b.bounds.end());
  std::sort(out.bounds.begin(), out.bounds.end());
  out.bounds.erase(std::unique(out.bounds.begin(), out.bounds.end()), out.bounds.end());
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> class_ids;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> classes;
  for (const char32_t c : out.bounds) {
    const std::pair pair(a.class_of(c), b.class_of(c));
    const auto [at, added] = class_ids.emplace(pair, static_cast<std::uint32_t>(classes.size()));
    if (added) classes.push_back(pair);
    out.range_class.push_back(at->second);
  }
  out.classes = static_cast<std::uint32_t>(classes.size());
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> ids;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> states{{0, 0}};
  const auto id = [&](std::uint32_t x, std::uint32_t y) -> std::uint32_t {
    if (x == 0 || y == 0) return 0;
    const auto [at, added] = ids.emplace(std::pair(x, y), static_cast<std::uint32_t>(states.size()));
    if (added) states.emplace_back(x, y);
    return at->second;
  };
  out.start = id(a.start, b.start);
  for (std::size_t s = 0; s < states.size(); ++s) {
    const auto [x, y] = states[s];
    for (const auto& [ca, cb] : classes) {
      budget.tick();
      out.next.push_back(s == 0 ? 0 : id(a.next[x * a.classes + ca], b.next[y * b.classes + cb]));
    }
    out.accepting.push_back(a.accepting[x] && b.accepting[y]);
    budget.check_states(states.size());
    budget.check_bytes(out.next.size() * sizeof(out.next[0]));
  }
  out.min = std::max(a.min, b.min);
  out.max = std::min(a.max, b.max);
  out.gaps = a.gaps || b.gaps;
  return out;
}

CharDfa char_complement(const CharDfa& a) {
  GOV_DCHECK(a.min == 0 && a.max == Dfa::kInfinite);
  CharDfa out = a;
  // The dead state becomes one that accepts everything; a new state 0 is put in front.
  const std::uint32_t n = a.states(), surrogates = a.class_of(0xD800);
  out.next.assign(std::size_t{n + 1} * a.classes, 0);
  out.accepting.assign(n + 1, 0);
  for (std::uint32_t s = 0; s < n; ++s) {
    out.accepting[s + 1] = !a.accepting[s];
    for (std::uint32_t c = 0; c < a.classes; ++c) {
      if (c != surrogates) out.next[(s + 1) * a.classes + c] = a.next[s * a.classes + c] + 1;
    }
  }
  out.start = a.start + 1;
  out.gaps = true;
  return out;
}

bool is_empty(const CharDfa& a) {
  std::vector<std::uint8_t> seen(a.states(), 0);
  std::vector<std::uint32_t> stack{a.start};
  seen[a.start] = 1;
  while (!stack.empty()) {
    const std::uint32_t s = stack.back();
    stack.pop_back();
    if (s == 0) continue;
    if (a.accepting[s]) return false;
    for (std::uint32_t c = 0; c < a.classes; ++c) {
      const std::uint32_t t = a.next[s * a.classes + c];
      if (!seen[t]) {
        seen[t] = 1;
        stack.push_back(t);
      }
    }
  }
  return true;
}

namespace {

// One way to write some characters: a range for every byte.
using Spelled = std::vector<std::pair<std::uint8_t, std::uint8_t>>;

// low..high as UTF-8, in pieces whose bytes vary independently.
void spell_utf8(char32_t low, char32_t high, std::vector<Spelled>& out) {
  static constexpr char32_t kEnds[] = {0x7F, 0x7FF, 0xFFFF, kLast};
  for (const char32_t end : kEnds) {
    if (low <= end && high > end) {
      spell_utf8(low, end, out);
      spell_utf8(end + 1, high, out);
      return;
    }
  }
  if (high > 0x7F) {
    for (int i = 1; i < 4; ++i) {
      const char32_t mask = (char32_t{1} << (6 * i)) - 1;
      if ((low & ~mask) == (high & ~mask)) continue;
      if ((low & mask) != 0) {
        spell_utf8(low, low | mask, out);
        spell_utf8((low | mask) + 1, high, out);
        return;
      }
      if ((high & mask) != mask) {
        spell_utf8(low, (high & ~mask) - 1, out);
        spell_utf8(high & ~mask, high, out);
        return;
      }
    }
  }
  std::string a, b;
  utf8_append(a, low);
  utf8_append(b, high);
  Spelled bytes;
  for (std::size_t i = 0; i < a.size(); ++i)
    bytes.emplace_back(static_cast<std::uint8_t>(a[i]), static_cast<std::uint8_t>(b[i]));
  out.push_back(std::move(bytes));
}

Spelled literal(std::string_view text) {
  Spelled out;
  for (const char c : text) out.emplace_back(static_cast<std::uint8_t>(c), static_cast<std::uint8_t>(c));
  return out;
}

// A range of characters in a JSON string.
void spell_json(char32_t low, char32_t high, bool one_way, std::vector<Spelled>& out) {
  static constexpr std::string_view kShort =
      "b\x08t\x09n\x0A"
      "f\x0Cr\x0D"
      "\"\"\\\\//";
  for (std::size_t i = 0; i < kShort.size(); i += 2) {
    const auto c = static_cast<unsigned char>(kShort[i + 1]);
    if (one_way && (c == '/' || c == 8 || c == 12)) continue;
    if (low <= c && c <= high) out.push_back(literal(std::string{'\\', kShort[i]}));
  }
  for (char32_t c = low; c <= std::min<char32_t>(high, 0x1F); ++c) {
    if (one_way && (c == 9 || c == 10 || c == 13)) continue;
    Spelled escape = literal(c < 0x10 ? "\\u000" : "\\u001");
    const auto digit = static_cast<std::uint8_t>("0123456789abcdef"[c & 15]);
    escape.emplace_back(digit, digit);
    out.push_back(escape);
    if (digit > '9' && !one_way) {
      escape.back() = {static_cast<std::uint8_t>(digit - 32), static_cast<std::uint8_t>(digit - 32)};
      out.push_back(escape);
    }
  }
  const auto plain = [&](char32_t from, char32_t to) {
    const char32_t a = std::max(low, from), b = std::min(high, to);
    if (a <= b) spell_utf8(a, b, out);
  };
  plain(0x20, 0x21);
  plain(0x23, 0x5B);
  plain(0x5D, kLast);
}

// Writes the states of one CharDfa into a DfaBuilder; equal ways on are shared.
class Speller {
 public:
  Speller(DfaBuilder& builder, GrammarBudget& budget) : builder_(builder), budget_(budget) {}

  struct Way {
    const Spelled* bytes;
    std::size_t at;
    std::uint32_t to;
  };

  void edges(std::uint32_t from, const std::vector<Way>& ways, bool first) {
    std::vector<unsigned> cuts;
    for (const Way& w : ways) {
      cuts.push_back((*w.bytes)[w.at].first);
      cuts.push_back((*w.bytes)[w.at].second + 1u);
    }
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      budget_.tick();
      std::vector<Way> on;
      std::uint32_t to = Dfa::kDead;
      for (const Way& w : ways) {
        const auto [low, high] = (*w.bytes)[w.at];
        if (low > cuts[i] || high < cuts[i]) continue;
        if (w.at + 1 == w.bytes->size()) to = w.to;
        else on.push_back({w.bytes, w.at + 1, w.to});
      }
      if (!on.empty()) to = state_for(on);
      if (to != Dfa::kDead)
        builder_.range(from, static_cast<std::uint8_t>(cuts[i]), static_cast<std::uint8_t>(cuts[i + 1] - 1), to, first);
    }
  }

 private:
  // Ways have at most five bytes to go, which bounds the recursion.
  std::uint32_t state_for(const std::vector<Way>& ways) {
    std::string key;
    for (const Way& w : ways) {
      for (std::size_t i = w.at; i < w.bytes->size(); ++i) {
        key += static_cast<char>((*w.bytes)[i].first);
        key += static_cast<char>((*w.bytes)[i].second);
      }
      key += '\0';
      key.append(reinterpret_cast<const char*>(&w.to), sizeof w.to);
    }
    const auto [at, added] = known_.emplace(std::move(key), 0);
    if (!added) return at->second;
    const std::uint32_t state = builder_.add();
    at->second = state;
    edges(state, ways, false);
    return state;
  }

  DfaBuilder& builder_;
  GrammarBudget& budget_;
  std::unordered_map<std::string, std::uint32_t> known_;
};

}  // namespace

Terminal spell(const CharDfa& chars, Spelling spelling, GrammarBudget& budget) {
  const bool json = spelling != Spelling::kRaw;
  budget.states(chars.states());
  DfaBuilder builder(budget);
  std::vector<std::vector<Spelled>> spelled(chars.classes);
  for (std::size_t r = 0; r < chars.bounds.size(); ++r) {
    const char32_t low = chars.bounds[r], high = r + 1 < chars.bounds.size() ? chars.bounds[r + 1] - 1 : kLast;
    if (low >= 0xD800 && low <= 0xDFFF) continue;
    std::vector<Spelled>& ways = spelled[chars.range_class[r]];
    if (json) spell_json(low, high, spelling == Spelling::kName, ways);
    else spell_utf8(low, high, ways);
    budget.tick();
  }
  std::vector<std::uint32_t> state(chars.states(), Dfa::kDead);
  for (std::uint32_t s = 1; s < chars.states(); ++s) state[s] = builder.add();
  Speller speller(builder, budget);
  const std::uint32_t end = builder.add();
  for (std::uint32_t s = 1; s < chars.states(); ++s) {
    std::vector<Speller::Way> ways;
    for (std::uint32_t c = 0; c < chars.classes; ++c) {
      const std::uint32_t to = chars.next[s * chars.classes + c];
      if (to == 0) continue;
      for (const Spelled& bytes : spelled[c]) ways.push_back({&bytes, 0, state[to]});
    }
    speller.edges(state[s], ways, true);
    if (!chars.accepting[s]) continue;
    if (json) builder.edge(state[s], '"', end);
    else builder.accept(state[s]);
  }
  std::uint32_t start = state[chars.start];
  if (json) {
    builder.accept(end);
    start = builder.add();
    if (chars.start != 0) builder.edge(start, '"', state[chars.start]);
  } else if (start == Dfa::kDead) {
    start = end;
  }
  return make_terminal(builder.finish(start), chars.min, chars.max, chars.gaps, budget);
}

}  // namespace gov
