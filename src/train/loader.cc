#include "train/loader.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "base/thread_pool.h"

namespace gov::train {
namespace {

constexpr std::int64_t kMostBadInARow = 10'000;
constexpr std::size_t kBatchesAhead = 2;

// What a worker made of one draw.
struct Made {
  Draw draw;
  bool ready = false;
  std::vector<Sample> samples;
  std::int64_t truncated = 0, skipped_long = 0;
  std::string bad;            // why the draw cannot be used; empty: it can
  std::exception_ptr broken;  // no fault of the data
};

struct Ready {
  PackedBatch batch;
  std::int64_t used = 0;
  LoaderReport report;
};

}  // namespace

LoaderOptions loader_options(const DataConfig& data, std::size_t rank) {
  LoaderOptions options;
  options.tokens_per_batch = data.tokens_per_batch;
  options.max_length = data.max_length;
  options.on_long = data.on_long;
  options.on_bad = data.on_bad;
  options.workers = static_cast<int>(data.workers);
  options.prefetch = data.prefetch;
  options.rank = rank;
  return options;
}

struct Loader::Impl {
  Impl(std::vector<Source> s, std::shared_ptr<const SampleRules> r, const LoaderOptions& o, const DataState& start)
      : sources(std::move(s)),
        rules(std::move(r)),
        options(o),
        draws(shapes_of(sources), start, o.rank),
        packer(o.tokens_per_batch, std::max<std::int64_t>(rules->image_rows, 1)),
        state(start),
        first_used(start.used[o.rank]) {
    const int workers = options.workers > 0 ? options.workers : usable_cores();
    made.resize(static_cast<std::size_t>(options.prefetch > 0 ? options.prefetch : std::int64_t{8} * workers));
    for (const Source& source : sources) epoch += source.size;
    threads.emplace_back([this] { pack_loop(); });
    for (int i = 0; i < workers; ++i) threads.emplace_back([this] { work_loop(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    changed.notify_all();
    for (std::thread& thread : threads) thread.join();
  }

  Made& slot(std::int64_t ticket) { return made[static_cast<std::size_t>(ticket) % made.size()]; }

  void make(const Draw& draw, Made& to) const {
    try {
      to.samples = sources[draw.source].make(draw.index, draw.epoch);
      for (Sample& sample : to.samples) {
        if (options.on_long == OnLong::kSkip && sample.rows() > options.max_length) {
          sample = {};
          ++to.skipped_long;
          continue;
        }
        to.truncated += truncate(sample, options.max_length, rules->image_rows) ? 1 : 0;
        check_sample(sample, rules->vocab_size, rules->image_rows, rules->pixels());
      }
      std::erase_if(to.samples, [](const Sample& sample) { return sample.tokens.empty(); });
      std::int64_t rows = 0;
      for (const Sample& sample : to.samples) rows += sample.rows();
      if (rows > options.tokens_per_batch)
        fail(ErrorCode::kInvalidArgument, "{} rows that belong together, a batch has {}", rows,
             options.tokens_per_batch);
    } catch (const Error& e) {
      if (e.code() == ErrorCode::kOutOfMemory) to.broken = std::current_exception();
      to.bad = e.what();
    } catch (...) {
      to.broken = std::current_exception();
    }
  }

  void work_loop() {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] {
        return stop || last_ticket >= 0 || tickets < consumed + static_cast<std::int64_t>(made.size());
      });
      if (stop || last_ticket >= 0) return;
      const Draw draw = draws.next();
      if (options.end >= 0 && draw.number >= options.end) {
        last_ticket = tickets;
        changed.notify_all();
        return;
      }
      const std::int64_t ticket = tickets++;
      lock.unlock();
      Made result;
      result.draw = draw;
      make(draw, result);
      result.ready = true;
      lock.lock();
      slot(ticket) = std::move(result);
      changed.notify_all();
    }
  }

  // The result of a ticket in its turn; false at the end or when the loader is given up.
  bool take(std::int64_t ticket, Made& out) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return stop || slot(ticket).ready || (last_ticket >= 0 && ticket >= last_ticket); });
    if (stop || !slot(ticket).ready) return false;
    out = std::exchange(slot(ticket), Made{});
    consumed = ticket + 1;
    changed.notify_all();
    return true;
  }

  void emit(std::int64_t used, const LoaderReport& report) {
    if (packer.empty()) return;
    Ready ready{packer.take(), used, report};
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return stop || batches.size() < kBatchesAhead; });
    batches.push_back(std::move(ready));
    changed.notify_all();
  }

  void note_bad(const Made& result, LoaderReport& report) const {
    const Source& source = sources[result.draw.source];
    const bool fails = options.on_bad == OnBad::kFail;
    ++report.bad;
    if (!fails && report.reasons.size() >= LoaderReport::kMostReasons) return;
    const std::string reason = fmt::format("{}: {}", source.where(result.draw.index), result.bad);
    if (fails) fail(ErrorCode::kCorrupt, "{}", reason);
    if (std::find(report.reasons.begin(), report.reasons.end(), reason) == report.reasons.end())
      report.reasons.push_back(reason);
  }

  void pack() {
    LoaderReport report;
    Made result;
    std::int64_t ticket = 0, bad_in_a_row = 0;
    for (; take(ticket, result); ++ticket) {
      if (result.broken) std::rethrow_exception(result.broken);
      if (!result.bad.empty()) {
        note_bad(result, report);
        if (++bad_in_a_row >= std::min(kMostBadInARow, epoch))
          fail(ErrorCode::kCorrupt, "{} samples in a row cannot be used; the first: {}", bad_in_a_row,
               report.reasons.front());
        continue;
      }
      bad_in_a_row = 0;
      const LoaderReport before = report;
      report.truncated += result.truncated;
      report.skipped_long += result.skipped_long;
      report.samples += static_cast<std::int64_t>(result.samples.size());
      if (packer.add(result.samples)) continue;
      emit(ticket, before);
      packer.add(result.samples);
    }
    emit(ticket, report);
  }

  void pack_loop() {
    std::exception_ptr error;
    try {
      pack();
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard lock(mutex);
    failure = error;
    finished = true;
    changed.notify_all();
  }

  std::optional<PackedBatch> next() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return !batches.empty() || finished; });
    if (batches.empty()) {
      if (failure) std::rethrow_exception(failure);
      return std::nullopt;
    }
    Ready ready = std::move(batches.front());
    batches.pop_front();
    changed.notify_all();
    lock.unlock();
    state.used[options.rank] = first_used + ready.used;
    report = std::move(ready.report);
    return std::move(ready.batch);
  }

  const std::vector<Source> sources;
  const std::shared_ptr<const SampleRules> rules;
  const LoaderOptions options;
  std::int64_t epoch = 0;

  std::mutex mutex;  // guards what follows, up to `finished`
  std::condition_variable changed;
  RankDraws draws;
  std::vector<Made> made;         // ring, by ticket
  std::int64_t tickets = 0;       // draws given to workers
  std::int64_t consumed = 0;      // tickets that the packer has taken
  std::int64_t last_ticket = -1;  // tickets in all, once that is known
  std::deque<Ready> batches;
  std::exception_ptr failure;
  bool stop = false, finished = false;

  BatchPacker packer;  // of the packing thread
  DataState state;     // of the caller's thread, like the report
  std::int64_t first_used;
  LoaderReport report;
  std::vector<std::thread> threads;
};

Loader::Loader(std::vector<Source> sources, std::shared_ptr<const SampleRules> rules, const LoaderOptions& options,
               const DataState& state) {
  if (options.rank >= state.used.size())
    fail(ErrorCode::kInvalidArgument, "data: rank {}, but the state is of {} ranks", options.rank, state.used.size());
  impl_ = std::make_unique<Impl>(std::move(sources), std::move(rules), options, state);
}
Loader::~Loader() = default;
std::optional<PackedBatch> Loader::next() { return impl_->next(); }
const DataState& Loader::state() const { return impl_->state; }
const LoaderReport& Loader::report() const { return impl_->report; }

}  // namespace gov::train
