#include "text/token_masks.h"

#include <algorithm>

namespace gov {
namespace {

constexpr std::size_t kCacheBytes = 256u << 20;
constexpr std::size_t kFewExits = 8;
constexpr std::size_t kManySuffixes = 60'000;  // more are followed in the vocabulary itself
constexpr std::size_t kShortWalk = 400;        // nodes; a shorter walk is not worth a place in the cache
constexpr std::size_t kMaxTrieToken = 4096;    // bytes

void set_all(std::span<std::uint32_t> words, std::span<const std::int32_t> tokens) {
  for (const std::int32_t t : tokens) set_token(words, t);
}

// One walk of a terminal's automaton over the vocabulary: `token` is called with each node where tokens end inside or
// with the terminal, its state and count, and `exit` with each node behind which something may follow.
template <class Visit>
void walk_terminal(const TokenTrie& trie, const Terminal& terminal, std::uint32_t state, std::uint32_t count,
                   Visit visit) {
  struct Place {
    std::uint32_t state, count;
  };
  const Dfa& dfa = *terminal.dfa;
  std::vector<Place> path(kMaxTrieToken + 1);
  path[0] = {state, count};
  for (std::uint32_t i = 1; i < trie.size();) {
    const TokenTrie::Node& node = trie.nodes[i];
    Place place = path[node.depth - 1u];
    place.state = terminal.step(place.state, place.count, node.byte);
    if (place.state == Dfa::kDead) {
      i = node.end;
      continue;
    }
    path[node.depth] = place;
    visit(i, place.state, place.count);
    i = dfa.continues[place.state] ? i + 1 : node.end;
  }
}

// The same without limits, for which nothing is counted.
template <class Visit>
void walk_uncounted(const TokenTrie& trie, const Dfa& dfa, std::uint32_t state, Visit visit) {
  std::vector<std::uint32_t> path(kMaxTrieToken + 1);
  path[0] = state;
  const std::uint32_t end = trie.size(), classes = dfa.classes;
  for (std::uint32_t i = 1; i < end;) {
    const TokenTrie::Node& node = trie.nodes[i];
    const std::uint32_t next = dfa.next[path[node.depth - 1u] * classes + dfa.byte_class[node.byte]] & ~Dfa::kCount;
    if (next == Dfa::kDead) {
      i = node.end;
      continue;
    }
    path[node.depth] = next;
    visit(i, next);
    ++i;
  }
}

// The counter alone decides: every state can still accept after any number of characters, or has accepted for good.
bool only_lengths(const Terminal& terminal) {
  const Dfa& d = *terminal.dfa;
  return terminal.counted() && terminal.lengths == nullptr && d.largest_shortest == 0 && d.largest_longest == 0;
}

// Many places to leave at have much the same texts behind them.
void merge_exits(const TokenTrie& trie, TerminalMask& mask) {
  if (mask.exits.size() <= kFewExits) return;
  std::size_t count = 0;
  for (const std::uint32_t exit : mask.exits) count += trie.nodes[exit].end - exit;
  if (count > kManySuffixes) return;
  std::string texts;  // all of them, one after the other
  struct Piece {
    std::size_t begin, length;
    std::int32_t token;
  };
  std::vector<Piece> pieces;
  std::string path;
  for (const std::uint32_t exit : mask.exits) {
    for (std::uint32_t i = exit + 1; i < trie.nodes[exit].end; ++i) {
      path.resize(trie.nodes[i].depth - trie.nodes[exit].depth - 1u);
      path += static_cast<char>(trie.nodes[i].byte);
      for (const std::int32_t token : trie.tokens_at(i)) {
        pieces.push_back({texts.size(), path.size(), token});
        texts += path;
      }
    }
  }
  std::vector<std::pair<std::string_view, std::int32_t>> entries;
  for (const Piece& p : pieces) entries.emplace_back(std::string_view(texts).substr(p.begin, p.length), p.token);
  mask.suffixes = TokenTrie::build(std::move(entries));
  mask.exits.clear();
}

}  // namespace

TokenTables::TokenTables(const Tokenizer& tokenizer) {
  const std::int32_t size = tokenizer.vocab_size();
  ordinary_.assign((static_cast<std::size_t>(size) + 31) / 32, 0);
  std::vector<std::pair<std::string_view, std::int32_t>> entries;
  for (std::int32_t id = 0; id < size; ++id) {
    if (!tokenizer.has_token(id) || tokenizer.is_special(id)) continue;
    const std::string_view bytes = tokenizer.token_bytes(id);
    // Entries that no text produces are left out.
    if (tokenizer.find_token(bytes) != id && tokenizer.encode(bytes) != std::vector{id}) continue;
    set_token(ordinary_, id);
    if (bytes.size() <= kMaxTrieToken) entries.emplace_back(bytes, id);
    longest_ = std::max(longest_, static_cast<std::uint32_t>(std::min(bytes.size(), kMaxTrieToken)));
  }
  trie_ = TokenTrie::build(std::move(entries));
}

std::shared_ptr<const TokenTables> TokenTables::of(const Tokenizer& tokenizer) {
  return std::static_pointer_cast<const TokenTables>(
      tokenizer.derived([&] { return std::make_shared<const TokenTables>(tokenizer); }));
}

TokenTables::Entry* TokenTables::touch(const Hash128& hash) const {
  const auto at = entries_.find(hash);
  if (at == entries_.end()) return nullptr;
  order_.splice(order_.begin(), order_, at->second.used);
  return &at->second;
}

void TokenTables::keep(const Hash128& hash, Entry entry) const {
  entry.bytes += 200;  // the nodes of the map and the list
  bytes_ += entry.bytes;
  order_.push_front(hash);
  entry.used = order_.begin();
  entries_.emplace(hash, std::move(entry));  // callers have looked that it is new
  while (bytes_ > kCacheBytes && order_.size() > 1) {
    const auto oldest = entries_.find(order_.back());
    bytes_ -= oldest->second.bytes;
    entries_.erase(oldest);
    order_.pop_back();
  }
}

std::uint64_t TokenTables::new_number() const {
  const std::lock_guard lock(mutex_);
  return ++numbers_;
}

std::uint64_t TokenTables::number_of(const std::shared_ptr<const Dfa>& dfa) const {
  Hash128 hash{1, 1};
  hash.add(dfa->start);
  hash.add(dfa->states());
  hash.add(std::string(reinterpret_cast<const char*>(dfa->byte_class.data()), dfa->byte_class.size()));
  for (const std::uint32_t edge : dfa->next) hash.add(edge);
  for (const std::uint8_t accepting : dfa->accepting) hash.add(accepting);
  const std::lock_guard lock(mutex_);
  const Entry* known = touch(hash);
  if (known != nullptr && (known->value == dfa || *static_cast<const Dfa*>(known->value.get()) == *dfa))
    return known->number;
  Entry entry;
  entry.value = dfa;
  entry.number = ++numbers_;
  entry.bytes = dfa->bytes();
  const std::uint64_t number = entry.number;
  if (known == nullptr) keep(hash, std::move(entry));
  return number;
}

template <class T, class Make>
std::shared_ptr<const T> TokenTables::cached(const Hash128& hash, Make make) const {
  {
    const std::lock_guard lock(mutex_);
    if (const Entry* known = touch(hash)) return std::static_pointer_cast<const T>(known->value);
  }
  const auto value = std::make_shared<const T>(make());
  const std::lock_guard lock(mutex_);
  if (const Entry* known = touch(hash)) return std::static_pointer_cast<const T>(known->value);
  Entry entry;
  entry.value = value;
  entry.bytes = value->bytes();
  keep(hash, std::move(entry));
  return value;
}

std::shared_ptr<const TerminalMask> TokenTables::terminal_mask(std::uint64_t dfa, const Terminal& terminal,
                                                               std::uint32_t state, std::uint32_t count) const {
  // Limits that no single token can reach are all the same; what is left of them counts, not where it began.
  Terminal left = terminal;
  if (terminal.lengths == nullptr) {
    const Dfa& d = *terminal.dfa;
    left.min = terminal.min > count ? terminal.min - count : 0;
    left.max = terminal.max == Dfa::kInfinite ? Dfa::kInfinite : terminal.max - count;
    if (left.max != Dfa::kInfinite && left.max > longest_ + d.largest_shortest)
      left.max = longest_ + d.largest_shortest + 1;
    left.min = std::min(left.min, longest_ + d.largest_longest + 1);
    count = 0;
  }
  Hash128 hash{2, 2};
  for (const std::uint64_t part : {dfa, std::uint64_t{state} << 32 | count, std::uint64_t{left.min} << 32 | left.max,
                                   std::uint64_t{left.lengths != nullptr}})
    hash.add(part);
  return cached<TerminalMask>(hash, [&] {
    if (only_lengths(left)) return mask_by_length(dfa, left, state);
    TerminalMask mask;
    mask.inside.assign(words(), 0);
    const auto visit = [&](std::uint32_t node, bool accepts) {
      set_all(mask.inside, trie_.tokens_at(node));
      if (accepts && trie_.nodes[node].end > node + 1) mask.exits.push_back(node);
    };
    if (left.counted()) {
      walk_terminal(trie_, left, state, count,
                    [&](std::uint32_t node, std::uint32_t s, std::uint32_t c) { visit(node, left.accepts(s, c)); });
    } else {
      const Dfa& d = *left.dfa;
      walk_uncounted(trie_, d, state, [&](std::uint32_t node, std::uint32_t s) { visit(node, d.accepting[s] != 0); });
    }
    merge_exits(trie_, mask);
    return mask;
  });
}

TerminalMask TokenTables::mask_by_length(std::uint64_t dfa, const Terminal& left, std::uint32_t state) const {
  Hash128 hash{4, 4};
  hash.add(dfa);
  hash.add(state);
  const auto profile = cached<LengthProfile>(hash, [&] {
    LengthProfile p;
    p.open.assign(words(), 0);
    p.by_length.resize(kMaxTrieToken + 1);
    Terminal counting = left;  // limits that no token reaches, so that the characters are counted
    counting.min = 0;
    counting.max = Dfa::kInfinite - 1;
    walk_terminal(trie_, counting, state, 0, [&](std::uint32_t node, std::uint32_t s, std::uint32_t length) {
      if (left.dfa->accepting[s]) p.exits.emplace_back(length, node);
      if (!left.dfa->continues[s]) return;
      set_all(p.open, trie_.tokens_at(node));
      for (const std::int32_t token : trie_.tokens_at(node)) p.by_length[length].push_back(token);
      p.tokens += trie_.tokens_at(node).size();
    });
    while (!p.by_length.empty() && p.by_length.back().empty()) p.by_length.pop_back();
    return p;
  });
  TerminalMask mask;
  mask.inside = profile->open;
  for (std::size_t length = std::size_t{left.max} + 1; length < profile->by_length.size(); ++length) {
    for (const std::int32_t token : profile->by_length[length])
      mask.inside[static_cast<std::size_t>(token) / 32] &= ~(1u << (token % 32));
  }
  for (const auto& [length, node] : profile->exits) {
    if (length < left.min || length > left.max) continue;
    set_all(mask.inside, trie_.tokens_at(node));
    if (trie_.nodes[node].end > node + 1) mask.exits.push_back(node);
  }
  merge_exits(trie_, mask);
  return mask;
}

std::shared_ptr<const PlaceMask> TokenTables::find_place(const Hash128& hash) const {
  const std::lock_guard lock(mutex_);
  const Entry* known = touch(hash);
  return known == nullptr ? nullptr : std::static_pointer_cast<const PlaceMask>(known->value);
}

void TokenTables::keep_place(const Hash128& hash, PlaceMask mask) const {
  (void)cached<PlaceMask>(hash, [&] { return std::move(mask); });
}

std::shared_ptr<const GrammarMasks> TokenTables::masks_of(const std::shared_ptr<const Grammar>& grammar) const {
  // By its address: what is kept holds the grammar, so no other can get the same one.
  Hash128 hash{5, 5};
  hash.add(reinterpret_cast<std::uintptr_t>(grammar.get()));
  return cached<GrammarMasks>(hash, [&] { return GrammarMasks(grammar, *this); });
}

GrammarMasks::GrammarMasks(std::shared_ptr<const Grammar> grammar, const TokenTables& tables)
    : grammar_(std::move(grammar)), tables_(&tables), number_(tables.new_number()) {
  for (const Terminal& t : impl().terminals) terminals_.push_back(tables_->number_of(t.dfa));
  for (const ObjectSpec& o : impl().objects) {
    extras_.emplace_back();
    for (const ExtraNames& e : o.extras) extras_.back().push_back(tables_->number_of(e.name.dfa));
  }
}

std::size_t GrammarMasks::bytes() const {
  std::size_t extras = 0;
  for (const auto& of_object : extras_) extras += sizeof of_object + of_object.size() * sizeof(std::uint64_t);
  return sizeof *this + impl().bytes + terminals_.size() * sizeof(std::uint64_t) + extras;
}

void GrammarMasks::add(const GrammarThreads& threads, std::span<std::uint32_t> words) const {
  GrammarThreads places;
  for (const GrammarThread& t : threads) {
    if (t.phase == GrammarThread::Phase::kTerminal || t.phase == GrammarThread::Phase::kExtraName)
      add_terminal(t, words);
    else if (t.phase != GrammarThread::Phase::kDone) places.push_back(t);
  }
  if (!places.empty()) add_places(places, words);
}

void GrammarMasks::add_terminal(const GrammarThread& thread, std::span<std::uint32_t> words) const {
  const bool name = thread.phase == GrammarThread::Phase::kExtraName;
  const std::uint64_t number = name ? extras_[thread.frame->spec][thread.what] : terminals_[thread.what];
  const auto mask = tables_->terminal_mask(number, terminal_of(impl(), thread), thread.state, thread.count);
  TokenMask own;
  if (name) own.assign(words.size(), 0);
  const std::span<std::uint32_t> out = name ? std::span(own) : words;
  for (std::size_t i = 0; i < mask->inside.size(); ++i) out[i] |= mask->inside[i];
  if (!mask->exits.empty() || !mask->suffixes.nodes.empty()) {
    const GrammarThreads behind{after_terminal(impl(), thread)};
    for (const std::uint32_t exit : mask->exits) walk(tables_->trie(), exit, behind, out);
    if (!mask->suffixes.nodes.empty()) walk(mask->suffixes, 0, behind, out);
  }
  if (!name) return;
  remove_taken(thread, out);
  for (std::size_t i = 0; i < words.size(); ++i) words[i] |= own[i];
}

std::size_t GrammarMasks::walk(const TokenTrie& trie, std::uint32_t root, const GrammarThreads& threads,
                               std::span<std::uint32_t> words) const {
  std::vector<GrammarThreads> path(1, threads);
  const std::uint32_t base = trie.nodes[root].depth;
  std::size_t steps = 0;
  for (std::uint32_t i = root + 1; i < trie.nodes[root].end;) {
    const TokenTrie::Node& node = trie.nodes[i];
    const std::size_t depth = node.depth - base;
    if (path.size() <= depth) path.resize(depth + 1);
    step_threads(impl(), path[depth - 1], node.byte, path[depth]);
    ++steps;
    if (path[depth].empty()) {
      i = node.end;
      continue;
    }
    set_all(words, trie.tokens_at(i));
    ++i;
  }
  return steps;
}

void GrammarMasks::add_places(const GrammarThreads& threads, std::span<std::uint32_t> words) const {
  Hash128 hash{3, number_};
  for (const GrammarThread& t : threads) t.add_hash(hash);
  if (const auto known = tables_->find_place(hash)) {
    for (std::size_t i = 0; i < known->words.size(); ++i) words[i] |= known->words[i];
    return;
  }
  TokenMask mask(words.size(), 0);
  const std::size_t steps = walk(tables_->trie(), 0, threads, mask);
  for (std::size_t i = 0; i < mask.size(); ++i) words[i] |= mask[i];
  if (steps > kShortWalk) tables_->keep_place(hash, {std::move(mask)});
}

void GrammarMasks::remove_taken(const GrammarThread& thread, std::span<std::uint32_t> words) const {
  const ObjectSpec& object = impl().objects[thread.frame->spec];
  const Dfa& dfa = *object.extras[thread.what].name.dfa;
  const TokenTrie& trie = tables_->trie();
  // Names that are taken and begin with what is typed, as a tree walked together with the vocabulary's.
  struct Place {
    std::uint32_t node, state, declared;
    std::string typed;
  };
  std::vector<Place> stack{{0, thread.state, thread.node, *thread.typed}};
  while (!stack.empty()) {
    const Place place = std::move(stack.back());
    stack.pop_back();
    for (std::uint32_t i = place.node + 1; i < trie.nodes[place.node].end; i = trie.nodes[i].end) {
      const std::uint8_t byte = trie.nodes[i].byte;
      const std::uint32_t declared = place.declared == kNoValue ? kNoValue : object.child(place.declared, byte);
      std::string typed = place.typed + static_cast<char>(byte);
      const std::uint32_t taken = names_taken(impl(), thread, typed, declared);
      if (taken == 0) continue;
      const std::uint32_t state = dfa.step(place.state, byte) & ~Dfa::kCount;
      if (state == Dfa::kDead) continue;
      if (dfa.completions[state] <= taken) {
        for (std::uint32_t t = trie.nodes[i].first_token; t < trie.nodes[trie.nodes[i].end].first_token; ++t) {
          const auto id = static_cast<std::size_t>(trie.tokens[t]);
          words[id / 32] &= ~(1u << (id % 32));
        }
        continue;
      }
      stack.push_back({i, state, declared, std::move(typed)});
    }
  }
}

}  // namespace gov
