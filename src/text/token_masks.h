#pragma once
// Which tokens may come next in a grammar. Three parts, added up:
//   inside a terminal (a string, a number): the tokens that stay in it, one mask for each state of its automaton, made
//   by one walk over the vocabulary and kept; and the tokens that leave it, followed from where they left, behind which
//   nothing but the few texts that may follow a value are looked at;
//   elsewhere (between values): a walk over the vocabulary that ends wherever the grammar does.
// The tables belong to a vocabulary and are shared by all requests. Private to src/text.

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "text/grammar/run.h"
#include "text/token_trie.h"
#include "text/tokenizer.h"

namespace gov {

using TokenMask = std::vector<std::uint32_t>;  // bit id % 32 of word id / 32

inline void set_token(std::span<std::uint32_t> words, std::int32_t token) {
  words[static_cast<std::size_t>(token) / 32] |= 1u << (token % 32);
}

// Of one state of a terminal.
struct TerminalMask {
  TokenMask inside;                  // tokens that end inside the terminal, or with it
  std::vector<std::uint32_t> exits;  // nodes of the vocabulary's trie where the terminal may end; few
  TokenTrie suffixes;                // or, where they are many: what stands behind, with all tokens that it ends
  std::size_t bytes() const { return inside.size() * 4 + exits.size() * 4 + suffixes.bytes() + sizeof *this; }
};

// Of one state of a terminal whose limits are on the number of characters alone: from it the masks for all numbers of
// characters that are left are made without another walk.
struct LengthProfile {
  TokenMask open;                                              // tokens that stay inside, of any length
  std::vector<std::vector<std::int32_t>> by_length;            // those, by the characters they add
  std::vector<std::pair<std::uint32_t, std::uint32_t>> exits;  // characters, node of the vocabulary's trie
  std::size_t tokens = 0;                                      // in by_length
  std::size_t bytes() const { return open.size() * 4 + by_length.size() * 24 + tokens * 8 + exits.size() * 8; }
};

struct PlaceMask {
  TokenMask words;
  std::size_t bytes() const { return words.size() * 4; }
};

class GrammarMasks;

class TokenTables {
 public:
  explicit TokenTables(const Tokenizer& tokenizer);
  // Those of a tokenizer, made once.
  static std::shared_ptr<const TokenTables> of(const Tokenizer& tokenizer);

  const TokenTrie& trie() const { return trie_; }
  const TokenMask& ordinary() const { return ordinary_; }  // all but special tokens
  bool is_ordinary(std::int32_t token) const {
    return token >= 0 && static_cast<std::size_t>(token) / 32 < ordinary_.size() &&
           (ordinary_[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1) != 0;
  }
  std::size_t words() const { return ordinary_.size(); }

  // A number for a terminal's automaton, the same for equal ones.
  std::uint64_t number_of(const std::shared_ptr<const Dfa>& dfa) const;
  std::uint64_t new_number() const;
  std::shared_ptr<const TerminalMask> terminal_mask(std::uint64_t dfa, const Terminal& terminal, std::uint32_t state,
                                                    std::uint32_t count) const;
  // Masks of places between values, by the hash of the place.
  std::shared_ptr<const PlaceMask> find_place(const Hash128& hash) const;
  void keep_place(const Hash128& hash, PlaceMask mask) const;

  // The masks of a grammar; one object for all who ask while it is kept, so that what one request found out is there
  // for the next. It must not outlive these tables.
  std::shared_ptr<const GrammarMasks> masks_of(const std::shared_ptr<const Grammar>& grammar) const;

 private:
  struct Entry {
    std::shared_ptr<const void> value;  // a TerminalMask, LengthProfile, PlaceMask, GrammarMasks or Dfa; the hash says
    std::uint64_t number = 0;
    std::size_t bytes = 0;
    std::list<Hash128>::iterator used;
  };
  Entry* touch(const Hash128& hash) const;
  void keep(const Hash128& hash, Entry entry) const;
  // What is kept under this hash, or what `make` returns, kept from now on.
  template <class T, class Make>
  std::shared_ptr<const T> cached(const Hash128& hash, Make make) const;
  TerminalMask mask_by_length(std::uint64_t dfa, const Terminal& left, std::uint32_t state) const;

  TokenTrie trie_;
  TokenMask ordinary_;
  std::uint32_t longest_ = 0;
  // What was used least recently goes first when the limit is reached.
  mutable std::mutex mutex_;
  mutable std::map<Hash128, Entry> entries_;
  mutable std::list<Hash128> order_;  // the last used first
  mutable std::size_t bytes_ = 0;
  mutable std::uint64_t numbers_ = 0;
};

// A grammar for one vocabulary, by TokenTables::masks_of.
class GrammarMasks {
 public:
  GrammarMasks(std::shared_ptr<const Grammar> grammar, const TokenTables& tables);
  const Grammar::Impl& impl() const { return grammar_->impl(); }
  std::size_t bytes() const;  // the grammar included
  // Adds the tokens that may come next.
  void add(const GrammarThreads& threads, std::span<std::uint32_t> words) const;

 private:
  void add_terminal(const GrammarThread& thread, std::span<std::uint32_t> words) const;
  void add_places(const GrammarThreads& threads, std::span<std::uint32_t> words) const;
  std::size_t walk(const TokenTrie& trie, std::uint32_t root, const GrammarThreads& threads,
                   std::span<std::uint32_t> words) const;
  // Takes out the tokens that would write a name again.
  void remove_taken(const GrammarThread& thread, std::span<std::uint32_t> words) const;

  std::shared_ptr<const Grammar> grammar_;
  const TokenTables* tables_;  // which keep this
  std::uint64_t number_;
  std::vector<std::uint64_t> terminals_;            // numbers of Impl::terminals
  std::vector<std::vector<std::uint64_t>> extras_;  // of Impl::objects' extras
};

}  // namespace gov
