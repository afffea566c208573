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

void Scheduler::add(Sequence& sequence) { insert_in_order(waiting_, &sequence); }

void Scheduler::remove(Sequence& sequence) {
  std::erase(running_, &sequence);
  std::erase(waiting_, &sequence);
  prefixes_.leave(sequence, faulty(sequence));
  blocks_.release(sequence.blocks);
  sequence.computed = 0;
}

Step Scheduler::schedule() {
  Step step;
  const std::int64_t preempted_before = preemptions_;
  for (Sequence* s : std::vector<Sequence*>(running_)) {
    if (!s->forks.empty() && remaining(*s) == 0) fork(*s);
  }
  const std::vector<Sequence*> order = running_;  // preemption shortens running_ below
  for (Sequence* s : order) {
    if (remaining(*s) == 1 && is_running(s)) schedule_rows(*s, 1, step);
  }
  bool first_prompt = true;
  for (Sequence* s : order) {
    if (!is_running(s) || remaining(*s) <= 1) continue;
    // Decoding rows may fill the chunk; one prompt still advances, or it would wait until they end.
    const std::int64_t left = std::max<std::int64_t>(limits_.chunk - rows_of(step), first_prompt ? 1 : 0);
    first_prompt = false;
    if (left > 0) schedule_rows(*s, left, step);
  }
  // Blocks that were just taken from a sequence are not for a new one.
  if (preemptions_ == preempted_before) admit(step);
  return step;
}

void Scheduler::set_computed(Sequence& sequence, std::int64_t rows) {
  const std::int64_t begin = std::exchange(sequence.computed, rows);
  prefixes_.store(sequence, begin);
}

bool Scheduler::schedule_ahead(std::span<Sequence* const> sequences, Step& step) {
  if (!std::equal(running_.begin(), running_.end(), sequences.begin(), sequences.end())) return false;
  if (!waiting_.empty() && static_cast<std::int64_t>(running_.size()) < limits_.max_sequences) return false;
  for (Sequence* s : sequences) {
    const std::int64_t row = s->rows();  // of the token that is being drawn
    if (!s->forks.empty() || !prepare(*s, row, row + 1, step.copies)) return false;
    step.rows.push_back({s, row, row + 1, true});
  }
  return true;
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
  step.rows.push_back({&sequence, begin, end, end == sequence.rows()});
}

// BlockManager::prepare, with what the prefix cache can give up.
bool Scheduler::prepare(Sequence& sequence, std::int64_t begin, std::int64_t end, std::vector<BlockCopy>& copies) {
  if (blocks_.prepare(sequence.blocks, begin, end, copies)) return true;
  prefixes_.make_room(blocks_.shortage(sequence.blocks, begin, end));
  if (blocks_.prepare(sequence.blocks, begin, end, copies)) return true;
  prefixes_.unshare(sequence, begin);  // rather than a copy
  return blocks_.prepare(sequence.blocks, begin, end, copies);
}

void Scheduler::admit(Step& step) {
  while (!waiting_.empty() && static_cast<std::int64_t>(running_.size()) < limits_.max_sequences) {
    Sequence& next = *waiting_.front();
    const std::int64_t left = limits_.chunk - rows_of(step);
    if (left <= 0) return;
    PrefixCache::Hit hit;
    if (reads_prefixes(next)) hit = prefixes_.find(next);
    if (!fits(next, hit)) return;
    waiting_.pop_front();
    insert_in_order(running_, &next);
    begin_with(next, hit);
    if (remaining(next) == 0) fork(next);
    schedule_rows(next, left, step);
  }
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
  blocks_.reserve_full(sequence.blocks, sequence.rows());
}

// Whether a new sequence can compute all its rows now, and each running one a further block. What the prefix cache
// alone keeps is there to be taken. One block of each kind may be copied before it is written.
bool Scheduler::fits(const Sequence& sequence, const PrefixCache::Hit& hit) const {
  if (running_.empty()) return true;
  const auto available = [](const BlockPool& pool) { return pool.free_count() + pool.idle_count(); };
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
