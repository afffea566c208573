#include "text/grammar/number.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <tuple>

namespace gov {
namespace {

constexpr std::uint32_t kIntegerDigits = 18, kBoundedDigits = 15, kFreeDigits = 17;

// A bound's absolute value as decimal digits.
struct Decimal {
  std::string whole = "0";  // no leading zeros but "0"
  std::string fraction;     // no trailing zeros
  std::size_t digits() const { return (whole == "0" ? 0 : whole.size()) + fraction.size(); }
};

Decimal decimal_of(double value) {
  char text[400];
  const auto end = std::to_chars(text, text + sizeof text, std::fabs(value), std::chars_format::fixed).ptr;
  const std::string written(text, end);
  const std::size_t point = std::min(written.find('.'), written.size());
  Decimal out{written.substr(0, point), written.substr(std::min(point + 1, written.size()))};
  while (!out.fraction.empty() && out.fraction.back() == '0') out.fraction.pop_back();
  return out;
}

struct Limit {
  Decimal value;
  bool inclusive = true;
};

// How the digits so far compare with the same number of a limit's digits.
enum Relation : std::uint8_t { kBelow, kSame, kAbove };

// Numbers without sign between two limits that are multiples of `multiple` units, where a unit is 10^-places.
struct Magnitude {
  Limit low;  // "0" inclusive: none
  std::optional<Limit> high;
  std::uint64_t multiple = 1;
  std::optional<std::uint32_t> places;  // decimal places at most; 0: integers
  std::uint32_t digits = kBoundedDigits;
  bool zero = true;  // "0" may be written
};

class MagnitudeAutomaton {
 public:
  MagnitudeAutomaton(const Magnitude& rules, GrammarBudget& budget) : m_(rules), budget_(budget), builder_(budget) {
    whole_cap_ = std::max(m_.low.value.whole.size(), m_.high ? m_.high->value.whole.size() : 0) + 1;
    fraction_cap_ = std::max(m_.low.value.fraction.size(), m_.high ? m_.high->value.fraction.size() : 0) + 1;
    if (m_.places) fraction_cap_ = std::max<std::size_t>(fraction_cap_, *m_.places + 1);
  }

  Terminal run(bool negative) {
    const std::uint32_t start = builder_.add(), digits = negative ? builder_.add() : start;
    if (negative) builder_.edge(start, '-', digits);
    for (char d = '0'; d <= '9'; ++d) {
      if (d == '0' && !m_.zero && m_.places == std::uint32_t{0}) continue;
      State next{d == '0' ? Part::kZero : Part::kWhole, 1, compare(kSame, m_.low.value.whole, 0, d),
                 m_.high ? compare(kSame, m_.high->value.whole, 0, d) : kBelow, (d - '0') % m_.multiple};
      builder_.edge(digits, d, id(next), true);
    }
    for (std::size_t i = 0; i < states_.size(); ++i) expand(states_[i].first, states_[i].second);
    budget_.states(builder_.states());
    return make_terminal(builder_.finish(start), 0, m_.digits, false, budget_);
  }

 private:
  enum class Part : std::uint8_t { kZero, kWhole, kPoint, kFraction };
  struct State {
    Part part;
    std::uint32_t position;  // digits in this part, no more than its cap
    Relation low, high;
    std::uint64_t rest;  // of the digits so far, modulo `multiple`
    auto operator<=>(const State&) const = default;
  };

  static Relation compare(Relation so_far, const std::string& digits, std::size_t at, char d) {
    if (so_far != kSame) return so_far;
    const char limit = at < digits.size() ? digits[at] : '0';
    return d < limit ? kBelow : d > limit ? kAbove : kSame;
  }
  // When the digits before the point have ended.
  static Relation whole_relation(Relation so_far, std::uint32_t position, const std::string& whole) {
    if (position != whole.size()) return position < whole.size() ? kBelow : kAbove;
    return so_far;
  }
  static Relation final_relation(const State& s, Relation so_far, const Decimal& limit) {
    if (s.part == Part::kZero || s.part == Part::kWhole) {
      so_far = whole_relation(so_far, s.position, limit.whole);
      return so_far == kSame && !limit.fraction.empty() ? kBelow : so_far;
    }
    return so_far == kSame && s.position < limit.fraction.size() ? kBelow : so_far;
  }

  bool accepts(const State& s) const {
    if (s.part == Part::kPoint) return false;
    const Relation low = final_relation(s, s.low, m_.low.value);
    if (low == kBelow || (low == kSame && !m_.low.inclusive)) return false;
    if (m_.high) {
      const Relation high = final_relation(s, s.high, m_.high->value);
      if (high == kAbove || (high == kSame && !m_.high->inclusive)) return false;
    }
    if (m_.multiple == 1) return true;
    const std::uint32_t written = s.part == Part::kFraction ? s.position : 0;
    std::uint64_t rest = s.rest;
    for (std::uint32_t i = written; i < *m_.places; ++i) rest = rest * 10 % m_.multiple;
    return rest == 0;
  }

  std::uint32_t id(const State& state) {
    const auto [at, added] = ids_.emplace(state, 0);
    if (added) {
      at->second = builder_.add();
      if (builder_.states() > static_cast<std::uint32_t>(budget_.limits().dfa_states))
        budget_.states(builder_.states());
      states_.emplace_back(state, at->second);
    }
    return at->second;
  }

  void expand(const State s, std::uint32_t from) {
    if (accepts(s)) builder_.accept(from);
    const bool whole = s.part == Part::kZero || s.part == Part::kWhole;
    if (whole && m_.places != std::uint32_t{0}) {
      State next{Part::kPoint, 0, whole_relation(s.low, s.position, m_.low.value.whole),
                 m_.high ? whole_relation(s.high, s.position, m_.high->value.whole) : kBelow, s.rest};
      builder_.edge(from, '.', id(next));
    }
    if (s.part == Part::kZero) return;
    const std::size_t cap = whole ? whole_cap_ : fraction_cap_;
    if (!whole && m_.places && s.position >= *m_.places) return;
    for (char d = '0'; d <= '9'; ++d) {
      State next = s;
      next.part = whole ? Part::kWhole : Part::kFraction;
      next.low = compare(s.low, whole ? m_.low.value.whole : m_.low.value.fraction, s.position, d);
      if (m_.high) next.high = compare(s.high, whole ? m_.high->value.whole : m_.high->value.fraction, s.position, d);
      next.position = static_cast<std::uint32_t>(std::min<std::size_t>(s.position + 1, cap));
      next.rest = (s.rest * 10 + static_cast<std::uint64_t>(d - '0')) % m_.multiple;
      builder_.edge(from, d, id(next), true);
    }
  }

  const Magnitude& m_;
  GrammarBudget& budget_;
  DfaBuilder builder_;
  std::size_t whole_cap_, fraction_cap_;
  std::map<State, std::uint32_t> ids_;
  std::vector<std::pair<State, std::uint32_t>> states_;
};

// All multipleOf together as a number of units of 10^-places.
void set_multiples(const std::vector<double>& multiples, bool integer, Magnitude& out) {
  if (integer) out.places = 0;
  if (multiples.empty()) return;
  std::uint32_t places = 0;
  for (const double m : multiples) {
    const Decimal d = decimal_of(m);
    if (d.digits() > kBoundedDigits || d.fraction.size() > 9 || d.whole.size() > 15)
      fail(ErrorCode::kInvalidArgument, "{} has too many digits", m);
    places = std::max(places, static_cast<std::uint32_t>(d.fraction.size()));
  }
  std::uint64_t common = 1;
  for (const double m : multiples) {
    const Decimal d = decimal_of(m);
    std::string digits = d.whole + d.fraction + std::string(places - d.fraction.size(), '0');
    std::uint64_t units = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), units);
    constexpr std::uint64_t kMost = 1'000'000'000'000'000;
    const std::uint64_t factor = units == 0 ? 0 : units / std::gcd(common, units);  // common * factor: the lcm
    if (factor == 0 || factor > kMost / common) fail(ErrorCode::kInvalidArgument, "{} has too many digits", m);
    common *= factor;
  }
  if (integer) {  // the smallest whole number that is a multiple
    std::uint64_t unit = 1;
    for (std::uint32_t i = 0; i < places; ++i) unit *= 10;
    common /= std::gcd(common, unit);  // lcm(common, unit) / unit
    places = 0;
  }
  out.multiple = common;
  out.places = places;
}

Terminal free_number(GrammarBudget& budget) {
  DfaBuilder b(budget);
  const std::uint32_t start = b.add(), minus = b.add(), zero = b.add(), whole = b.add(), point = b.add();
  const std::uint32_t fraction = b.add(), e = b.add(), sign = b.add(), one = b.add(), two = b.add();
  b.edge(start, '-', minus);
  for (const std::uint32_t from : {start, minus}) {
    b.edge(from, '0', zero, true);
    b.range(from, '1', '9', whole, true);
  }
  b.range(whole, '0', '9', whole, true);
  for (const std::uint32_t from : {zero, whole}) b.edge(from, '.', point);
  for (const std::uint32_t from : {point, fraction}) b.range(from, '0', '9', fraction, true);
  for (const std::uint32_t from : {zero, whole, fraction}) {
    b.edge(from, 'e', e);
    b.edge(from, 'E', e);
    b.accept(from);
  }
  b.edge(e, '+', sign);
  b.edge(e, '-', sign);
  for (const std::uint32_t from : {e, sign}) b.range(from, '0', '9', one);
  b.range(one, '0', '9', two);
  b.accept(one);
  b.accept(two);
  return make_terminal(b.finish(start), 0, kFreeDigits, false, budget);
}

// Of two bounds in the same direction the tighter one is the caller's business; here they only lose their fractions.
std::optional<NumberBound> whole_bound(const std::optional<NumberBound>& bound, bool low) {
  if (!bound) return bound;
  double v = low ? std::ceil(bound->value) : std::floor(bound->value);
  if (bound->exclusive && v == bound->value) v += low ? 1 : -1;
  return NumberBound{v, false};
}

}  // namespace

std::vector<Terminal> number_terminals(const NumberRules& rules, GrammarBudget& budget) {
  if (!rules.integer && rules.free()) return {free_number(budget)};
  Magnitude base;
  set_multiples(rules.multiples, rules.integer, base);
  const bool whole = base.places == std::uint32_t{0};
  base.digits = whole && rules.multiples.empty() ? kIntegerDigits : kBoundedDigits;
  const auto low = whole ? whole_bound(rules.low, true) : rules.low;
  const auto high = whole ? whole_bound(rules.high, false) : rules.high;
  const double most = std::pow(10.0, base.digits);
  for (const auto& bound : {low, high}) {
    if (bound && bound->exclusive && decimal_of(bound->value).digits() > kBoundedDigits &&
        std::fabs(bound->value) < most)
      fail(ErrorCode::kInvalidArgument, "the exclusive bound {} has more than {} digits", bound->value, kBoundedDigits);
    // Digits of a whole number above 2^53 may not be those that were written in the schema.
    if (bound && whole && std::fabs(bound->value) > 9007199254740992.0 && std::fabs(bound->value) < most)
      fail(ErrorCode::kInvalidArgument, "the bound {} is larger than 2^53", bound->value);
  }
  std::vector<Terminal> out;
  // Without sign: from max(low, 0) to high. With it: from max(-high, 0) to -low.
  for (const bool negative : {false, true}) {
    const auto& from = negative ? high : low;
    const auto& to = negative ? low : high;
    const double factor = negative ? -1 : 1;
    Magnitude m = base;
    if (from && factor * from->value > 0) m.low = {decimal_of(from->value), !from->exclusive};
    if (from && from->value == 0) m.low.inclusive = !from->exclusive;
    if (negative && whole) {
      m.zero = false;  // no -0
      if (m.low.value.whole == "0") m.low = {{"1", ""}, true};
    }
    if (to) {
      if (factor * to->value < 0) continue;
      if (std::fabs(to->value) < most) m.high = Limit{decimal_of(to->value), !to->exclusive};
    }
    Terminal terminal = MagnitudeAutomaton(m, budget).run(negative);
    if (!terminal.empty()) out.push_back(std::move(terminal));
  }
  return out;
}

}  // namespace gov
