#include "text/grammar/regex.h"

#include <algorithm>
#include <unordered_map>

#include "text/grammar/regex_parse.h"

namespace gov {
namespace {

constexpr std::uint32_t kNone = ~std::uint32_t{0};
constexpr std::size_t kMaxNfaStates = 50'000;

// Thompson's construction: every state has up to two ways on without a character, or one with a character of a set.
struct NfaState {
  enum class Kind : std::uint8_t { kSplit, kSet, kBegin, kEnd, kAccept };
  Kind kind = Kind::kSplit;
  std::uint32_t set = 0;
  std::uint32_t to = kNone, other = kNone;
};

class Nfa {
 public:
  Nfa(const RegexTree& tree, bool search, GrammarBudget& budget) : tree_(tree), budget_(budget), sets_(tree.sets) {
    const auto every = std::find(sets_.begin(), sets_.end(), every_char());
    every_ = static_cast<std::uint32_t>(every - sets_.begin());
    if (every == sets_.end()) sets_.push_back(every_char());
    const std::uint32_t accept = add({NfaState::Kind::kAccept, 0, kNone, kNone});
    if (search) {
      accept_all = add({NfaState::Kind::kSplit, 0, accept, kNone});
      states[accept_all].other = add({NfaState::Kind::kSet, every_, accept_all, kNone});
      start = add({NfaState::Kind::kSplit, 0, kNone, kNone});
      states[start].other = add({NfaState::Kind::kSet, every_, start, kNone});
      const std::uint32_t inner = build(tree.root, accept_all);
      states[start].to = inner;
    } else {
      start = build(tree.root, accept);
    }
  }

  const std::vector<CharSet>& sets() const { return sets_; }
  std::vector<NfaState> states;
  std::uint32_t start = 0;
  std::uint32_t accept_all = kNone;  // from here every text is accepted

 private:
  std::uint32_t add(NfaState state) {
    budget_.tick();
    if (states.size() >= kMaxNfaStates)
      fail(ErrorCode::kInvalidArgument, "needs an automaton of more than {} states", kMaxNfaStates);
    states.push_back(state);
    return static_cast<std::uint32_t>(states.size() - 1);
  }

  // The part of the automaton for a node, before `next`. The parser bounds the depth.
  std::uint32_t build(std::uint32_t node_index, std::uint32_t next) {
    const RegexNode& node = tree_.nodes[node_index];
    switch (node.kind) {
      case RegexNode::Kind::kSet: return add({NfaState::Kind::kSet, node.set, next, kNone});
      case RegexNode::Kind::kBegin: return add({NfaState::Kind::kBegin, 0, next, kNone});
      case RegexNode::Kind::kEnd: return add({NfaState::Kind::kEnd, 0, next, kNone});
      case RegexNode::Kind::kSequence:
        for (auto child = node.children.rbegin(); child != node.children.rend(); ++child) next = build(*child, next);
        return next;
      case RegexNode::Kind::kAlternatives: {
        std::uint32_t all = kNone;
        for (const std::uint32_t child : node.children) {
          const std::uint32_t one = build(child, next);
          all = all == kNone ? one : add({NfaState::Kind::kSplit, 0, all, one});
        }
        return all;
      }
      case RegexNode::Kind::kRepeat: break;
    }
    const std::uint32_t child = node.children[0];
    if (node.max == Dfa::kInfinite) {
      const std::uint32_t loop = add({NfaState::Kind::kSplit, 0, kNone, next});
      const std::uint32_t body = build(child, loop);
      states[loop].to = body;
      next = loop;
    } else {
      const std::uint32_t end = next;
      for (std::uint32_t i = node.min; i < node.max; ++i) {
        budget_.tick();
        const std::uint32_t body = build(child, next);
        next = add({NfaState::Kind::kSplit, 0, body, end});
      }
    }
    for (std::uint32_t i = 0; i < node.min; ++i) {
      budget_.tick();
      next = build(child, next);
    }
    return next;
  }

  const RegexTree& tree_;
  GrammarBudget& budget_;
  std::vector<CharSet> sets_;
  std::uint32_t every_ = 0;
};

// Sets of NFA states as the states of the deterministic automaton.
class Subsets {
 public:
  Subsets(const Nfa& nfa, GrammarBudget& budget) : nfa_(nfa), budget_(budget), seen_(nfa.states.size(), 0) {}

  CharDfa run() {
    CharDfa out;
    const auto members = split_classes(nfa_.sets(), out, budget_);
    sets_.push_back({});
    // The state of the empty text is never joined with another, since only there ^ holds.
    out.start = 1;
    sets_.push_back(close({nfa_.start}, true, false));
    for (std::uint32_t s = 0; s < sets_.size(); ++s) {
      const std::vector<std::uint32_t> set = sets_[s];
      out.accepting.push_back(s != 0 && accepts(set, s == out.start));
      for (std::uint32_t c = 0; c < out.classes; ++c) {
        std::vector<std::uint32_t> targets;
        for (const std::uint32_t n : set) {
          budget_.tick();
          const NfaState& state = nfa_.states[n];
          if (state.kind == NfaState::Kind::kSet && members[c][state.set]) targets.push_back(state.to);
        }
        out.next.push_back(targets.empty() ? 0 : id(close(targets, false, false)));
      }
      budget_.check_bytes(out.next.size() * sizeof(out.next[0]) + kept_ * sizeof(std::uint32_t));
    }
    out.gaps = true;
    return out;
  }

 private:
  // Everything that is reached without a character; only states that matter are kept, in order.
  std::vector<std::uint32_t> close(const std::vector<std::uint32_t>& from, bool at_begin, bool at_end) {
    ++mark_;
    std::vector<std::uint32_t> stack = from, kept;
    bool all = false;
    while (!stack.empty()) {
      const std::uint32_t n = stack.back();
      stack.pop_back();
      if (n == kNone || seen_[n] == mark_) continue;
      seen_[n] = mark_;
      budget_.tick();
      all = all || n == nfa_.accept_all;
      const NfaState& state = nfa_.states[n];
      switch (state.kind) {
        case NfaState::Kind::kSplit:
          stack.push_back(state.to);
          stack.push_back(state.other);
          break;
        case NfaState::Kind::kBegin:
          if (at_begin) stack.push_back(state.to);
          break;
        case NfaState::Kind::kEnd:
          kept.push_back(n);
          if (at_end) stack.push_back(state.to);
          break;
        default: kept.push_back(n);
      }
    }
    if (all && !at_end) return accept_everything();
    std::sort(kept.begin(), kept.end());
    return kept;
  }

  std::vector<std::uint32_t> accept_everything() const {
    const NfaState& state = nfa_.states[nfa_.accept_all];
    return {state.to, state.other};
  }

  bool accepts(const std::vector<std::uint32_t>& set, bool at_begin) {
    // A text of no characters begins and ends at once.
    std::vector<std::uint32_t> from = set;
    if (at_begin) from.push_back(nfa_.start);
    const std::vector<std::uint32_t> end = close(from, at_begin, true);
    return std::any_of(end.begin(), end.end(),
                       [&](std::uint32_t n) { return nfa_.states[n].kind == NfaState::Kind::kAccept; });
  }

  std::uint32_t id(std::vector<std::uint32_t> set) {
    if (set.empty()) return 0;
    std::string key(reinterpret_cast<const char*>(set.data()), set.size() * sizeof(set[0]));
    const auto [at, added] = ids_.emplace(std::move(key), static_cast<std::uint32_t>(sets_.size()));
    if (added) {
      budget_.check_states(sets_.size());
      kept_ += 2 * set.size();  // in sets_ and as a key
      sets_.push_back(std::move(set));
    }
    return at->second;
  }

  const Nfa& nfa_;
  GrammarBudget& budget_;
  std::vector<std::uint32_t> seen_;
  std::uint32_t mark_ = 0;
  std::vector<std::vector<std::uint32_t>> sets_;
  std::size_t kept_ = 0;
  std::unordered_map<std::string, std::uint32_t> ids_;
};

// X{m,n} with ^ and $ around it (or without, where the whole text has to match): one state and limits.
bool as_limits(const RegexTree& tree, bool search, CharDfa& out, GrammarBudget& budget) {
  std::vector<const RegexNode*> items{&tree.nodes[tree.root]};
  if (items[0]->kind == RegexNode::Kind::kSequence) {
    const RegexNode& sequence = *items[0];
    items.clear();
    for (const std::uint32_t child : sequence.children) items.push_back(&tree.nodes[child]);
  }
  if (search) {
    if (items.size() != 3 || items[0]->kind != RegexNode::Kind::kBegin || items[2]->kind != RegexNode::Kind::kEnd)
      return false;
    items = {items[1]};
  }
  if (items.size() != 1 || items[0]->kind != RegexNode::Kind::kRepeat) return false;
  const RegexNode& inner = tree.nodes[items[0]->children[0]];
  if (inner.kind != RegexNode::Kind::kSet) return false;
  const auto members = split_classes({tree.sets[inner.set]}, out, budget);
  out.next.assign(2 * out.classes, 0);
  for (std::uint32_t c = 0; c < out.classes; ++c) out.next[out.classes + c] = members[c][0];
  out.accepting = {0, 1};
  out.start = 1;
  out.min = items[0]->min;
  out.max = items[0]->max;
  return true;
}

}  // namespace

CharDfa compile_regex(std::string_view pattern, const RegexOptions& options, GrammarBudget& budget) {
  const RegexTree tree = parse_regex(pattern, budget);
  CharDfa limits;
  if (options.counters && as_limits(tree, options.search, limits, budget)) return limits;
  const Nfa nfa(tree, options.search, budget);
  return Subsets(nfa, budget).run();
}

}  // namespace gov
