#include "engine/scheduler.h"

namespace gov {
namespace {

bool earlier(const Sequence* a, const Sequence* b) { return a->before(*b); }

template <class List>
void insert_in_order(List& list, Sequence* sequence) {
  list.insert(std::upper_bound(list.begin(), list.end(), sequence, earlier), sequence);
}

// A sequence whose prompt others wait for stops before the last row: each choice computes that row itself and draws.
std::int64_t goal(const Sequence& sequence) { return sequence.forks.empty() ? sequence.rows() : sequence.rows() - 1; }
std::int64_t remaining(const Sequence& sequence) { return goal(sequence) - sequence.computed; }

std::int64_t available(const BlockPool& pool) { return pool.free_count() + pool.idle_count(); }

std::int64_t rows_of(const Step& step) {
  std::int64_t rows = 0;
  for (const ScheduledRows& r : step.rows) rows += r.end - r.begin;
  return rows;
}

// Scores and embeddings need every row of the prompt.
bool reads_prefixes(const Sequence& sequence) {
  const Request& request = sequence.request->request;
  return request.options.prompt_logprobs < 0 && !request.embed;
}

bool has_turn_before(const Sequence& a, const Sequence& b) {
  if (a.priority() != b.priority()) return a.priority() > b.priority();
  const std::int64_t rows_a = a.request->tenant->rows, rows_b = b.request->tenant->rows;
  return rows_a != rows_b ? rows_a < rows_b : a.before(b);
}

// What it has in the cache may be wrong.
bool faulty(const Sequence& sequence) {
  if (!sequence.request->error) return false;
  try {
    std::rethrow_exception(sequence.request->error);
  } catch (const Error& error) {
    return error.code() == ErrorCode::kDevice;
  } catch (...) {
    return false;
  }
}

}  // namespace

Scheduler::Scheduler(const Config& config, const KvCacheSpec& spec, const SchedulerLimits& limits)
    : config_(config),
      spec_(spec),
      limits_(limits),
      blocks_(spec, config.sliding_window),
      prefixes_(blocks_, limits.prefix_cache) {}

void Scheduler::add(Sequence& sequence) {
  RequestState& request = *sequence.request;
  if (!request.tenant) request.tenant = turns_.enter(request.request.tenant);
  insert_in_order(waiting_, &sequence);
  refused_ = {};
}

void Scheduler::forget(RequestState& request) {
  if (Tenant* const tenant = std::exchange(request.tenant, nullptr)) turns_.leave(tenant);
}

void Scheduler::remove(Sequence& sequence) {
  std::erase(running_, &sequence);
  std::erase(waiting_, &sequence);
  prefixes_.leave(sequence, faulty(sequence));
  blocks_.release(sequence.blocks);
  sequence.computed = 0;
  sequence.draft.clear();  // its rows are not computed
  refused_ = {};
}

Step Scheduler::schedule() {
  Step step;
  for (Sequence* s : std::vector<Sequence*>(running_)) {
    if (!s->forks.empty() && remaining(*s) == 0) fork(*s);
  }
  const std::vector<Sequence*> order = running_;  // preemption shortens running_ below
  const std::int64_t preempted_before = preemptions_;
  for (Sequence* s : order) {
    if (remaining(*s) == 1 && is_running(s)) schedule_rows(*s, 1, step);
  }
  if (limits_.draft_rows > 0) add_guesses(step);
  // Blocks that were just taken from a sequence are not for a new one.
  schedule_prompts(step, /*admitting=*/preemptions_ == preempted_before);
  return step;
}

// Lengthens decode rows by guesses, where nobody else has to give way for them.
void Scheduler::add_guesses(Step& step) {
  // A row is left for a prompt.
  std::int64_t room = std::min(limits_.draft_rows, limits_.chunk - 1 - rows_of(step));
  for (ScheduledRows& r : step.rows) {
    Sequence& s = *r.sequence;
    if (!r.sample || r.begin < s.request->prompt.rows()) continue;
    s.guess(room);
    const auto guessed = static_cast<std::int64_t>(s.draft.size());
    if (guessed == 0) continue;
    if (!prepare_spare(s, r.begin, r.end + guessed, step.copies)) {
      s.draft.clear();
      continue;
    }
    r.guessed = guessed;
    r.end += guessed;
    room -= guessed;
    s.request->tenant->rows += guessed;
  }
}

void Scheduler::schedule_prompts(Step& step, bool admitting) {
  std::vector<Sequence*> prompts;
  for (Sequence* s : running_) {
    if (remaining(*s) > 1) prompts.push_back(s);
  }
  for (bool first = true;; first = false) {
    std::erase_if(prompts, [&](const Sequence* s) { return !is_running(s); });
    const auto next = std::min_element(prompts.begin(), prompts.end(),
                                       [](const Sequence* a, const Sequence* b) { return has_turn_before(*a, *b); });
    const std::int64_t room = limits_.chunk - rows_of(step);
    Sequence* const fresh = admitting && room > 0 ? next_waiting() : nullptr;
    if (fresh && (next == prompts.end() || has_turn_before(*fresh, **next))) {
      admitting = admit(*fresh, room, step);
      if (!admitting) refused_ = {fresh, available(blocks_.full()), available(blocks_.sliding())};
      continue;
    }
    // Decoding rows may fill the chunk; one prompt still advances, or it would wait until they end.
    const std::int64_t most = first ? std::max<std::int64_t>(room, 1) : room;
    if (next == prompts.end() || most <= 0) return;
    Sequence& prompt = **next;
    prompts.erase(next);
    const std::int64_t preempted_before = preemptions_;
    schedule_rows(prompt, most, step);
    admitting = admitting && preemptions_ == preempted_before;
  }
}

Sequence* Scheduler::next_waiting() const {
  Sequence* best = nullptr;
  for (Sequence* s : waiting_) {
    if (best && s->priority() < best->priority()) break;
    if (!best || has_turn_before(*s, *best)) best = s;
  }
  return best;
}

void Scheduler::set_computed(Sequence& sequence, std::int64_t rows) {
  const std::int64_t begin = std::exchange(sequence.computed, rows);
  prefixes_.store(sequence, begin);
}

bool Scheduler::schedule_ahead(std::span<Sequence* const> sequences, Step& step) {
  if (!std::equal(running_.begin(), running_.end(), sequences.begin(), sequences.end())) return false;
  if (!waiting_.empty() &&
      ((static_cast<std::int64_t>(running_.size()) < limits_.max_sequences && !is_refused(*next_waiting())) ||
       waiting_.front()->priority() > running_.back()->priority()))
    return false;
  for (Sequence* s : sequences) {
    const std::int64_t row = s->rows();  // of the token that is being drawn
    if (!s->forks.empty() || !prepare(*s, row, row + 1, step.copies)) return false;
    step.rows.push_back({s, row, row + 1, true});
  }
  for (Sequence* s : sequences) ++s->request->tenant->rows;
  return true;
}

// Whether it did not fit, and nothing has been freed since.
bool Scheduler::is_refused(const Sequence& sequence) const {
  return refused_.sequence == &sequence && available(blocks_.full()) <= refused_.full &&
         available(blocks_.sliding()) <= refused_.sliding;
}

// Starts the other choices of a prompt that is computed up to its last row. Those that may not run now will compute the
// prompt themselves.
void Scheduler::fork(Sequence& leader) {
  for (Sequence* choice : std::exchange(leader.forks, {})) {
    if (static_cast<std::int64_t>(running_.size()) >= limits_.max_sequences) {
      add(*choice);
      continue;
    }
    choice->blocks = blocks_.fork(leader.blocks, leader.computed);
    choice->computed = leader.computed;
    insert_in_order(running_, choice);
  }
}

// Schedules up to `most` rows, taking blocks from the youngest sequences if need be; from this one too, if it is the
// youngest.
void Scheduler::schedule_rows(Sequence& sequence, std::int64_t most, Step& step) {
  const std::int64_t begin = sequence.computed, end = std::min(goal(sequence), begin + most);
  while (!prepare(sequence, begin, end, step.copies)) {
    Sequence& youngest = *running_.back();
    GOV_DCHECK(running_.size() > 1);  // the pools hold one sequence of any size
    preempt(youngest, step);
    if (&youngest == &sequence) return;
  }
  step.rows.push_back({&sequence, begin, end, end == sequence.rows() && sequence.draws()});
  sequence.request->tenant->rows += end - begin;
}

// BlockManager::prepare, with what the prefix cache can give up.
bool Scheduler::prepare(Sequence& sequence, std::int64_t begin, std::int64_t end, std::vector<BlockCopy>& copies) {
  if (prepare_spare(sequence, begin, end, copies)) return true;
  // Rather than a copy.
  prefixes_.unshare(sequence, begin, blocks_.shortage(sequence.blocks, begin, end));
  return blocks_.prepare(sequence.blocks, begin, end, copies);
}

// The same, with what no sequence owns.
bool Scheduler::prepare_spare(Sequence& sequence, std::int64_t begin, std::int64_t end,
                              std::vector<BlockCopy>& copies) {
  if (blocks_.prepare(sequence.blocks, begin, end, copies)) return true;
  prefixes_.make_room(blocks_.shortage(sequence.blocks, begin, end));
  return blocks_.prepare(sequence.blocks, begin, end, copies);
}

// Whether there was room for a new sequence.
bool Scheduler::admit(Sequence& sequence, std::int64_t most, Step& step) {
  const auto give_way = [&] {
    if (running_.empty() || running_.back()->priority() >= sequence.priority()) return false;
    preempt(*running_.back(), step);
    return true;
  };
  PrefixCache::Hit hit;
  for (;;) {
    if (static_cast<std::int64_t>(running_.size()) < limits_.max_sequences) {
      hit = reads_prefixes(sequence) ? prefixes_.find(sequence) : PrefixCache::Hit{};
      if (fits(sequence, hit)) break;
    }
    if (!give_way()) return false;
  }
  std::erase(waiting_, &sequence);
  insert_in_order(running_, &sequence);
  begin_with(sequence, hit);
  if (remaining(sequence) == 0) fork(sequence);
  schedule_rows(sequence, most, step);
  return true;
}

// Takes the rows that are known, and the blocks for all others of the prompt.
void Scheduler::begin_with(Sequence& sequence, const PrefixCache::Hit& hit) {
  prefixes_.take(sequence, hit);
  RequestState& request = *sequence.request;
  if (request.cached_rows < 0) {
    request.cached_rows = hit.rows;
    if (reads_prefixes(sequence)) prefixes_.count_query(sequence.rows(), hit.rows);
  }
  const std::int64_t more =
      full_blocks_needed(spec_, sequence.rows()) - static_cast<std::int64_t>(sequence.blocks.full.size());
  prefixes_.make_room({more - blocks_.full().free_count(), 0});
  [[maybe_unused]] const bool reserved = blocks_.reserve_full(sequence.blocks, sequence.rows());
  GOV_DCHECK(reserved);  // fits() saw to it
}

// Whether a new sequence can compute all its rows now, and each running one a further block. What the prefix cache
// alone keeps is there to be taken. One block of each kind may be copied before it is written.
bool Scheduler::fits(const Sequence& sequence, const PrefixCache::Hit& hit) const {
  if (running_.empty()) return true;
  const std::int64_t others = static_cast<std::int64_t>(running_.size()), copied = hit.rows % spec_.block_size > 0;
  const std::int64_t sliding = sliding_blocks_needed(spec_, config_, sequence.rows(), most_rows(limits_));
  return available(blocks_.full()) >= full_blocks_needed(spec_, sequence.rows()) - hit.owned_blocks + others + copied &&
         available(blocks_.sliding()) >= sliding + copied;
}

void Scheduler::preempt(Sequence& sequence, Step& step) {
  remove(sequence);
  add(sequence);
  std::erase_if(step.rows, [&](const ScheduledRows& r) { return r.sequence == &sequence; });
  ++preemptions_;
}

bool Scheduler::is_running(const Sequence* sequence) const {
  return std::find(running_.begin(), running_.end(), sequence) != running_.end();
}

std::string Scheduler::check() const {
  std::vector<const BlockTables*> tables;
  for (const Sequence* s : running_) tables.push_back(&s->blocks);
  for (const Sequence* s : waiting_) {
    if (!s->blocks.full.empty() || !s->blocks.sliding.empty()) return "a waiting sequence holds blocks";
  }
  const std::string fault = blocks_.check(tables, prefixes_.kept());
  return fault.empty() ? prefixes_.check() : fault;
}

}  // namespace gov
