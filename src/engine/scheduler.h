#pragma once
// Which rows run next. Sequences that need one row (decoding) go first; then chunks of prompts, of running sequences
// and of new ones while blocks are free: the larger priority first, then the tenant with the fewest rows so far, then
// in the order of submission. When blocks run out, the youngest sequence of the least priority gives its blocks back
// and is computed again later; on the CPU its text does not change by that (on a GPU rounding may decide between tokens
// that are almost equally likely). It also makes room for one of larger priority. A sequence begins after the rows that
// the prefix cache knows.

#include <algorithm>
#include <deque>

#include "engine/prefix_cache.h"

namespace gov {

struct ScheduledRows {
  Sequence* sequence;
  std::int64_t begin, end;   // rows of the sequence
  bool sample;               // the last row's logits give the next token
  std::int64_t guessed = 0;  // rows at the end whose tokens are guesses; with `sample` their logits are wanted, too
};

struct Step {
  std::vector<ScheduledRows> rows;
  std::vector<BlockCopy> copies;  // to be done first, in order
};

struct SchedulerLimits {
  std::int64_t max_sequences = 8;  // running at once
  std::int64_t chunk = 512;        // rows of a step; more only if more sequences decode at once
  bool prefix_cache = false;
  std::int64_t draft_rows = 0;  // guessed rows of a step
};

class Scheduler {
 public:
  // The pools must hold one sequence of the largest size (full_blocks_needed, sliding_blocks_needed with most_rows()).
  // `config` must outlive the scheduler.
  Scheduler(const Config& config, const KvCacheSpec& spec, const SchedulerLimits& limits);

  // Most rows that one step can have.
  static std::int64_t most_rows(const SchedulerLimits& limits) { return std::max(limits.chunk, limits.max_sequences); }

  // Most rows of a step whose logits are wanted, or of a piece of a prompt that is scored: small ones would read the
  // head's matrix for hardly anything.
  static std::int64_t most_logits(const SchedulerLimits& limits) {
    constexpr std::int64_t kPiece = 32;
    return std::max(limits.max_sequences + limits.draft_rows, std::min(kPiece, limits.chunk));
  }

  // A request's sequences are added one by one; once all have ended, forget() it.
  void add(Sequence& sequence);
  void forget(RequestState& request);
  // Takes a sequence out, wherever it is, and frees its blocks; the prefix cache keeps them unless the request's
  // numbers are faulty.
  void remove(Sequence& sequence);
  bool idle() const { return waiting_.empty() && running_.empty(); }
  // The rows of the next step; empty only when idle. The caller calls set_computed() for each sequence after the run.
  Step schedule();
  // Rows up to `rows` of the sequence are in the cache now.
  void set_computed(Sequence& sequence, std::int64_t rows);

  // The decode step after one of these sequences that still runs: their tokens are not known yet, but where they go is.
  // False if something else may come first (other sequences, blocks that are missing).
  bool schedule_ahead(std::span<Sequence* const> sequences, Step& step);

  const BlockManager& blocks() const { return blocks_; }
  PrefixCache& prefixes() { return prefixes_; }
  std::string check() const;  // BlockManager::check over all sequences, PrefixCache::check
  std::int64_t preemptions() const { return preemptions_; }

 private:
  void fork(Sequence& leader);
  void schedule_rows(Sequence& sequence, std::int64_t most, Step& step);
  void schedule_prompts(Step& step, bool admitting);
  void add_guesses(Step& step);
  Sequence* next_waiting() const;
  bool admit(Sequence& sequence, std::int64_t most, Step& step);
  bool fits(const Sequence& sequence, const PrefixCache::Hit& hit) const;
  void begin_with(Sequence& sequence, const PrefixCache::Hit& hit);
  bool prepare(Sequence& sequence, std::int64_t begin, std::int64_t end, std::vector<BlockCopy>& copies);
  bool prepare_spare(Sequence& sequence, std::int64_t begin, std::int64_t end, std::vector<BlockCopy>& copies);
  void preempt(Sequence& sequence, Step& step);
  bool is_refused(const Sequence& sequence) const;
  bool is_running(const Sequence* sequence) const;

  const Config& config_;
  KvCacheSpec spec_;
  SchedulerLimits limits_;
  BlockManager blocks_;
  PrefixCache prefixes_;
  std::vector<Sequence*> running_;  // in the order of Sequence::before
  std::deque<Sequence*> waiting_;   // likewise
  TenantTurns turns_;
  std::int64_t preemptions_ = 0;
  // The sequence that did not fit when it was its turn, and the blocks there were then. Arrivals and ends clear it.
  struct Refused {
    const Sequence* sequence = nullptr;
    std::int64_t full = 0, sliding = 0;
  };
  Refused refused_;
};

}  // namespace gov
