#include "text/grammar/dfa.h"

#include <algorithm>
#include <map>

namespace gov {
namespace {

// States in an order in which every transition that is not counted leads to an earlier one. Counted ones may form
// loops, the others never do: they are the bytes inside of a character, quotes, signs.
std::vector<std::uint32_t> uncounted_order(const Dfa& dfa) {
  std::vector<std::uint32_t> order;
  std::vector<std::uint8_t> seen(dfa.states(), 0);
  std::vector<std::pair<std::uint32_t, std::uint32_t>> stack;  // state, next class to look at
  for (std::uint32_t root = 1; root < dfa.states(); ++root) {
    if (seen[root]) continue;
    seen[root] = 1;
    stack.emplace_back(root, 0);
    while (!stack.empty()) {
      auto& [state, at] = stack.back();
      if (at == dfa.classes) {
        order.push_back(state);
        stack.pop_back();
        continue;
      }
      const std::uint32_t target = dfa.next[state * dfa.classes + at++];
      if ((target & Dfa::kCount) == 0 && target != Dfa::kDead && !seen[target]) {
        seen[target] = 1;
        stack.emplace_back(target, 0);
      }
    }
  }
  return order;
}

// States from which a loop can be reached.
std::vector<std::uint8_t> reaches_loop(const Dfa& dfa) {
  const std::uint32_t n = dfa.states();
  std::vector<std::uint32_t> left(n, 0);  // targets that are not known to be loop-free
  std::vector<std::vector<std::uint32_t>> sources(n);
  for (std::uint32_t s = 1; s < n; ++s) {
    for (std::uint32_t c = 0; c < dfa.classes; ++c) {
      const std::uint32_t t = dfa.next[s * dfa.classes + c] & ~Dfa::kCount;
      if (t == Dfa::kDead) continue;
      ++left[s];
      sources[t].push_back(s);
    }
  }
  std::vector<std::uint8_t> loops(n, 1);
  std::vector<std::uint32_t> ready;
  for (std::uint32_t s = 1; s < n; ++s) {
    if (left[s] == 0) ready.push_back(s);
  }
  while (!ready.empty()) {
    const std::uint32_t t = ready.back();
    ready.pop_back();
    loops[t] = 0;
    for (const std::uint32_t s : sources[t]) {
      if (--left[s] == 0) ready.push_back(s);
    }
  }
  return loops;
}

// shortest, by rounds over the uncounted order until nothing changes.
void find_shortest(Dfa& dfa, const std::vector<std::uint32_t>& order, GrammarBudget& budget) {
  dfa.shortest.assign(dfa.states(), Dfa::kInfinite);
  std::vector<std::vector<std::uint32_t>> counted(dfa.states()), uncounted(dfa.states());
  for (const std::uint32_t s : order) {
    for (std::uint32_t c = 0; c < dfa.classes; ++c) {
      const std::uint32_t t = dfa.next[s * dfa.classes + c];
      if (t == Dfa::kDead) continue;
      ((t & Dfa::kCount) != 0 ? counted : uncounted)[t & ~Dfa::kCount].push_back(s);
    }
  }
  // Breadth first from the accepting states; uncounted transitions stay in the round.
  std::vector<std::uint32_t> round, next;
  for (std::uint32_t s = 1; s < dfa.states(); ++s) {
    if (dfa.accepting[s]) round.push_back(s);
  }
  for (std::uint32_t distance = 0; !round.empty(); ++distance) {
    next.clear();
    for (std::size_t i = 0; i < round.size(); ++i) {
      const std::uint32_t t = round[i];
      if (dfa.shortest[t] <= distance) continue;
      dfa.shortest[t] = distance;
      budget.tick();
      for (const std::uint32_t s : uncounted[t]) round.push_back(s);
      for (const std::uint32_t s : counted[t]) next.push_back(s);
    }
    std::swap(round, next);
  }
}

// longest and completions of the states that no loop can be reached from, in the order of a depth first search.
void find_longest(Dfa& dfa, GrammarBudget& budget) {
  const std::vector<std::uint8_t> loops = reaches_loop(dfa);
  dfa.longest.assign(dfa.states(), Dfa::kInfinite);
  dfa.completions.assign(dfa.states(), Dfa::kInfinite);
  std::array<std::uint32_t, 256> class_bytes{};
  for (const std::uint8_t c : dfa.byte_class) ++class_bytes[c];
  std::vector<std::uint8_t> done(dfa.states(), 0);
  std::vector<std::uint32_t> stack;
  for (std::uint32_t root = 1; root < dfa.states(); ++root) {
    if (loops[root]) continue;
    stack.push_back(root);
    while (!stack.empty()) {
      const std::uint32_t s = stack.back();
      budget.tick();
      std::uint32_t longest = 0;
      std::uint64_t completions = dfa.accepting[s];
      bool waits = false;
      for (std::uint32_t c = 0; c < dfa.classes && !done[s]; ++c) {
        const std::uint32_t target = dfa.next[s * dfa.classes + c], t = target & ~Dfa::kCount;
        if (t == Dfa::kDead) continue;
        if (!done[t]) {
          stack.push_back(t);
          waits = true;
          continue;
        }
        longest = std::max(longest, dfa.longest[t] + ((target & Dfa::kCount) != 0 ? 1 : 0));
        completions =
            std::min<std::uint64_t>(completions + std::uint64_t{dfa.completions[t]} * class_bytes[c], Dfa::kInfinite);
      }
      if (waits) continue;
      if (!done[s]) {
        done[s] = 1;
        dfa.longest[s] = longest;
        dfa.completions[s] = static_cast<std::uint32_t>(completions);
      }
      stack.pop_back();
    }
  }
}

}  // namespace

std::uint32_t DfaBuilder::add() {
  budget_.tick();
  budget_.check_bytes(rows_.size() * sizeof(rows_[0]));
  rows_.emplace_back().fill(Dfa::kDead);
  accepting_.push_back(0);
  return states() - 1;
}

void DfaBuilder::range(std::uint32_t from, std::uint8_t low, std::uint8_t high, std::uint32_t to, bool counts) {
  for (unsigned b = low; b <= high; ++b) rows_[from][b] = to | (counts ? Dfa::kCount : 0);
}

std::uint32_t DfaBuilder::path(std::uint32_t from, std::string_view bytes) {
  for (const char c : bytes) {
    const std::uint8_t byte = static_cast<std::uint8_t>(c);
    std::uint32_t to = target(from, byte);
    if (to == Dfa::kDead) {
      to = add();
      range(from, byte, byte, to);
    }
    from = to;
  }
  return from;
}

// States that can be reached and can reach acceptance.
std::vector<std::uint8_t> DfaBuilder::live_states(std::uint32_t start) {
  const std::uint32_t n = states();
  std::vector<std::vector<std::uint32_t>> sources(n);
  std::vector<std::uint8_t> reached(n, 0), live(n, 0);
  std::vector<std::uint32_t> stack{start};
  reached[start] = 1;
  while (!stack.empty()) {
    const std::uint32_t s = stack.back();
    stack.pop_back();
    budget_.tick();
    std::uint32_t last = Dfa::kDead;
    for (const std::uint32_t edge : rows_[s]) {
      const std::uint32_t t = edge & ~Dfa::kCount;
      if (t == Dfa::kDead || t == last) continue;
      last = t;
      sources[t].push_back(s);
      if (!reached[t]) {
        reached[t] = 1;
        stack.push_back(t);
      }
    }
  }
  for (std::uint32_t s = 1; s < n; ++s) {
    if (accepting_[s] && reached[s]) {
      live[s] = 1;
      stack.push_back(s);
    }
  }
  while (!stack.empty()) {
    const std::uint32_t t = stack.back();
    stack.pop_back();
    for (const std::uint32_t s : sources[t]) {
      if (!live[s]) {
        live[s] = 1;
        stack.push_back(s);
      }
    }
  }
  return live;
}

std::shared_ptr<const Dfa> DfaBuilder::finish(std::uint32_t start) {
  const std::uint32_t n = states();
  const std::vector<std::uint8_t> live = live_states(start);
  std::vector<std::uint32_t> id(n, Dfa::kDead), kept;
  for (std::uint32_t s = 1; s < n; ++s) {
    if (live[s]) {
      kept.push_back(s);
      id[s] = static_cast<std::uint32_t>(kept.size());
    }
  }
  auto dfa = std::make_shared<Dfa>();
  // Bytes with equal columns are one class.
  std::map<std::vector<std::uint32_t>, std::uint8_t> columns;
  std::vector<std::vector<std::uint32_t>> by_class;
  for (unsigned b = 0; b < 256; ++b) {
    std::vector<std::uint32_t> column(kept.size() + 1, Dfa::kDead);
    for (std::size_t k = 0; k < kept.size(); ++k) {
      const std::uint32_t edge = rows_[kept[k]][b], t = id[edge & ~Dfa::kCount];
      column[k + 1] = t == Dfa::kDead ? Dfa::kDead : (t | (edge & Dfa::kCount));
    }
    budget_.tick();
    const auto [at, added] = columns.emplace(std::move(column), static_cast<std::uint8_t>(by_class.size()));
    if (added) by_class.push_back(at->first);
    dfa->byte_class[b] = at->second;
  }
  dfa->classes = static_cast<std::uint32_t>(by_class.size());
  const std::size_t count = kept.size() + 1;
  dfa->next.resize(count * dfa->classes);
  dfa->accepting.resize(count);
  dfa->continues.resize(count);
  for (std::size_t s = 0; s < count; ++s) {
    for (std::uint32_t c = 0; c < dfa->classes; ++c) {
      dfa->next[s * dfa->classes + c] = by_class[c][s];
      dfa->continues[s] = dfa->continues[s] != 0 || by_class[c][s] != Dfa::kDead;
    }
    dfa->accepting[s] = s > 0 ? accepting_[kept[s - 1]] : std::uint8_t{0};
  }
  dfa->start = id[start];
  find_shortest(*dfa, uncounted_order(*dfa), budget_);
  find_longest(*dfa, budget_);
  for (std::size_t s = 1; s < count; ++s) {
    if (dfa->shortest[s] < Dfa::kInfinite) dfa->largest_shortest = std::max(dfa->largest_shortest, dfa->shortest[s]);
    if (dfa->longest[s] < Dfa::kInfinite) dfa->largest_longest = std::max(dfa->largest_longest, dfa->longest[s]);
  }
  budget_.bytes(dfa->bytes());
  return dfa;
}

bool Terminal::live(std::uint32_t state, std::uint32_t count) const {
  if (max != Dfa::kInfinite && (count > max || dfa->shortest[state] > max - count)) return false;
  if (count < min && dfa->longest[state] < min - count) return false;
  if (lengths == nullptr) return true;
  const std::uint32_t low = count < min ? min - count : 0, high = max - count;
  const std::uint64_t* words = lengths->data() + std::size_t{state} * length_words;
  for (std::uint32_t w = low / 64; w <= high / 64; ++w) {
    std::uint64_t bits = words[w];
    if (w == low / 64) bits &= ~std::uint64_t{0} << (low % 64);
    if (w == high / 64) bits &= ~std::uint64_t{0} >> (63 - high % 64);
    if (bits != 0) return true;
  }
  return false;
}

Terminal make_terminal(std::shared_ptr<const Dfa> dfa, std::uint32_t min, std::uint32_t max, bool gaps,
                       GrammarBudget& budget) {
  Terminal terminal{std::move(dfa), min, max, nullptr, 0};
  if (!gaps || min == 0 || max == Dfa::kInfinite || terminal.dfa->start == Dfa::kDead) return terminal;
  const Dfa& d = *terminal.dfa;
  const std::uint32_t words = max / 64 + 1;
  budget.bytes(std::size_t{words} * 8 * d.states());
  auto bits = std::make_shared<std::vector<std::uint64_t>>(std::size_t{words} * d.states());
  const auto has = [&](std::uint32_t s, std::uint32_t length) {
    return ((*bits)[std::size_t{s} * words + length / 64] >> (length % 64) & 1) != 0;
  };
  const std::vector<std::uint32_t> order = uncounted_order(d);
  for (std::uint32_t length = 0; length <= max; ++length) {
    for (const std::uint32_t s : order) {
      budget.tick();
      bool can = length == 0 && d.accepting[s];
      for (std::uint32_t c = 0; c < d.classes && !can; ++c) {
        const std::uint32_t edge = d.next[s * d.classes + c], t = edge & ~Dfa::kCount;
        if (t == Dfa::kDead) continue;
        can = (edge & Dfa::kCount) == 0 ? has(t, length) : length > 0 && has(t, length - 1);
      }
      if (can) (*bits)[std::size_t{s} * words + length / 64] |= std::uint64_t{1} << (length % 64);
    }
  }
  terminal.lengths = std::move(bits);
  terminal.length_words = words;
  return terminal;
}

}  // namespace gov
