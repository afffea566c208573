#pragma once
// Deterministic automata over bytes, with one counter: the terminals of grammars (strings, numbers, literals). Private
// to src/text.

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/grammar/budget.h"

namespace gov {

// Every state but 0 can reach an accepting one.
struct Dfa {
  static constexpr std::uint32_t kDead = 0;
  static constexpr std::uint32_t kCount = 1u << 31;     // of a transition: it begins a character (or is a digit)
  static constexpr std::uint32_t kInfinite = 1u << 30;  // of a number of characters or completions: no limit

  std::array<std::uint8_t, 256> byte_class{};
  std::uint32_t classes = 1;
  std::uint32_t start = kDead;          // kDead: the language is empty
  std::vector<std::uint32_t> next;      // [states][classes] target, perhaps with kCount
  std::vector<std::uint8_t> accepting;  // [states]
  std::vector<std::uint8_t> continues;  // [states] some transition leaves it
  std::vector<std::uint32_t> shortest;  // [states] fewest and most counted transitions to an accepting state,
  std::vector<std::uint32_t> longest;   //          kInfinite if there is no most
  std::uint32_t largest_shortest = 0, largest_longest = 0;  // of those that are not kInfinite
  std::vector<std::uint32_t> completions;  // [states] how many byte strings lead to acceptance, up to kInfinite

  std::uint32_t states() const { return static_cast<std::uint32_t>(accepting.size()); }
  std::uint32_t step(std::uint32_t state, std::uint8_t byte) const { return next[state * classes + byte_class[byte]]; }
  std::size_t bytes() const { return next.size() * 4 + accepting.size() * 14 + sizeof *this; }
  friend bool operator==(const Dfa&, const Dfa&) = default;
};

class DfaBuilder {
 public:
  explicit DfaBuilder(GrammarBudget& budget) : budget_(budget) { add(); }  // state 0 is the dead one
  std::uint32_t add();
  // A later edge replaces an earlier one on the same byte.
  void range(std::uint32_t from, std::uint8_t low, std::uint8_t high, std::uint32_t to, bool counts = false);
  void edge(std::uint32_t from, char byte, std::uint32_t to, bool counts = false) {
    range(from, static_cast<std::uint8_t>(byte), static_cast<std::uint8_t>(byte), to, counts);
  }
  // A path of bytes, sharing what is there already; returns its last state.
  std::uint32_t path(std::uint32_t from, std::string_view bytes);
  std::uint32_t target(std::uint32_t from, std::uint8_t byte) const { return rows_[from][byte] & ~Dfa::kCount; }
  void accept(std::uint32_t state) { accepting_[state] = 1; }
  std::uint32_t states() const { return static_cast<std::uint32_t>(rows_.size()); }
  // Leaves out what cannot be reached or cannot reach acceptance.
  std::shared_ptr<const Dfa> finish(std::uint32_t start);

 private:
  std::vector<std::uint8_t> live_states(std::uint32_t start);

  GrammarBudget& budget_;
  std::vector<std::array<std::uint32_t, 256>> rows_;
  std::vector<std::uint8_t> accepting_;
};

// A Dfa and the limits of its counter.
struct Terminal {
  std::shared_ptr<const Dfa> dfa;
  std::uint32_t min = 0, max = Dfa::kInfinite;
  // Of every state the numbers of characters up to `max` after which it can accept, as bits; only where the smallest
  // and the largest number do not tell (a pattern together with both limits).
  std::shared_ptr<const std::vector<std::uint64_t>> lengths;
  std::uint32_t length_words = 0;  // per state

  bool counted() const { return min > 0 || max != Dfa::kInfinite; }
  // Whether acceptance can still be reached.
  bool live(std::uint32_t state, std::uint32_t count) const;
  bool accepts(std::uint32_t state, std::uint32_t count) const {
    return dfa->accepting[state] != 0 && count >= min && count <= max;
  }
  // The next state, or Dfa::kDead; `count` is updated.
  std::uint32_t step(std::uint32_t state, std::uint32_t& count, std::uint8_t byte) const {
    const std::uint32_t target = dfa->step(state, byte);
    const std::uint32_t next = target & ~Dfa::kCount;
    if (!counted() || next == Dfa::kDead) return next;
    // Without an upper limit the count stays at the lower one.
    if ((target & Dfa::kCount) != 0 && (max != Dfa::kInfinite || count < min)) ++count;
    return live(next, count) ? next : Dfa::kDead;
  }
  bool empty() const { return dfa->start == Dfa::kDead || !live(dfa->start, 0); }
};

// `gaps`: the lengths of accepted texts may not be all those between the shortest and the longest.
Terminal make_terminal(std::shared_ptr<const Dfa> dfa, std::uint32_t min, std::uint32_t max, bool gaps,
                       GrammarBudget& budget);

}  // namespace gov
