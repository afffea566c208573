#include "engine/engine_loop.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/timer.h"

namespace gov {

struct EngineLoop::Ticket {
  Ticket(Request r, Done d) : request(std::move(r)), done(std::move(d)), tenant(request.tenant) {}

  Request request;  // until the engine has it
  Done done;
  std::string tenant;
  Timer timer;
  RequestId id = 0;
  std::atomic<bool> cancelled{false};
};

struct EngineLoop::Impl {
  using TicketPtr = std::shared_ptr<Ticket>;

  Impl(Engine& e, const LoopLimits& l) : engine(e), limits(l), published(e.stats()) {}

  // Of the thread.
  void loop();
  bool wait_for_work(std::vector<TicketPtr>& arrived);
  void hand_over(const TicketPtr& ticket);
  bool collect();
  void end(const TicketPtr& ticket, RequestResult result, std::exception_ptr error);
  void fail_everything(const std::exception_ptr& error);
  void publish();

  Engine& engine;
  const LoopLimits limits;
  std::vector<TicketPtr> active;  // in the engine; the thread's own
  Timer since_published;          // the thread's own

  mutable std::mutex mutex;
  std::condition_variable work, ended;
  std::deque<TicketPtr> inbox;
  std::map<std::string, std::int64_t> by_tenant;  // tickets that have not ended
  std::int64_t tickets = 0, refused = 0;
  bool draining = false, stopping = false, broken = false, reset_cache = false;
  EngineStats published;
  std::thread thread;  // last: it uses all of the above
};

EngineLoop::EngineLoop(Engine& engine, const LoopLimits& limits) : impl_(std::make_unique<Impl>(engine, limits)) {
  impl_->thread = std::thread([impl = impl_.get()] { impl->loop(); });
}

EngineLoop::~EngineLoop() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->work.notify_one();
  impl_->thread.join();
}

std::shared_ptr<EngineLoop::Ticket> EngineLoop::submit(Request request, Done done) {
  Impl& l = *impl_;
  if (l.engine.options().prefix_cache) digest_images(request);  // here rather than while others wait for a step
  auto ticket = std::make_shared<Ticket>(std::move(request), std::move(done));
  {
    const std::lock_guard lock(l.mutex);
    if (l.broken) fail(ErrorCode::kUnavailable, "the engine has failed");
    if (l.draining || l.stopping) fail(ErrorCode::kUnavailable, "shutting down: no new requests");
    const auto of_tenant = l.by_tenant.find(ticket->tenant);
    const std::int64_t own = of_tenant == l.by_tenant.end() ? 0 : of_tenant->second;
    if (l.tickets >= l.limits.queue || own >= l.limits.queue_per_tenant) {
      ++l.refused;
      const bool all = l.tickets >= l.limits.queue;
      fail(ErrorCode::kOverloaded, "{} requests wait or run {}, no more are taken", all ? l.tickets : own,
           all ? "already" : "for this client");
    }
    ++l.tickets;
    ++l.by_tenant[ticket->tenant];
    l.inbox.push_back(ticket);
  }
  l.work.notify_one();
  return ticket;
}

void EngineLoop::cancel(const std::shared_ptr<Ticket>& ticket) {
  // The thread looks at it before its next step; it does not sleep while there are tickets.
  ticket->cancelled.store(true, std::memory_order_relaxed);
}

void EngineLoop::reset_prefix_cache() {
  const std::lock_guard lock(impl_->mutex);
  impl_->reset_cache = true;
  impl_->work.notify_one();
}

bool EngineLoop::drain(double seconds) {
  Impl& l = *impl_;
  std::unique_lock lock(l.mutex);
  l.draining = true;
  // Waiting for longer than a year would overflow the clock.
  const std::chrono::duration<double> most(std::clamp(seconds, 0.0, 3e7));
  return l.ended.wait_for(lock, std::chrono::duration_cast<std::chrono::microseconds>(most),
                          [&] { return l.tickets == 0; });
}

EngineStats EngineLoop::stats() const {
  const std::lock_guard lock(impl_->mutex);
  EngineStats stats = impl_->published;
  stats.waiting += static_cast<std::int64_t>(impl_->inbox.size());
  stats.rejected += impl_->refused;
  return stats;
}

std::int64_t EngineLoop::waiting() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->published.waiting + static_cast<std::int64_t>(impl_->inbox.size());
}

std::int64_t EngineLoop::running() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->published.running;
}

const EngineOptions& EngineLoop::engine_options() const { return impl_->engine.options(); }

const LoopLimits& EngineLoop::limits() const { return impl_->limits; }

bool EngineLoop::failed() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->broken;
}

void EngineLoop::Impl::loop() {
  std::vector<TicketPtr> arrived;
  while (wait_for_work(arrived)) {
    for (const TicketPtr& ticket : arrived) hand_over(ticket);
    if (!arrived.empty()) publish();
    arrived.clear();
    if (broken) continue;  // what an engine that failed holds is of no use
    try {
      // A request's own cancel word may be someone else's: a ticket's is looked at here.
      for (const TicketPtr& ticket : active) {
        if (ticket->cancelled.load(std::memory_order_relaxed)) engine.cancel(ticket->id);
      }
      engine.step();
      if (!collect() && since_published.seconds() > 0.02) publish();
    } catch (...) {  // not of one request: a rule of ours is broken
      fail_everything(std::current_exception());
    }
    if (engine.stats().device_lost) {
      fail_everything(std::make_exception_ptr(Error(ErrorCode::kDevice, "the device is lost")));
    }
  }
  try {
    for (const TicketPtr& ticket : active) engine.cancel(ticket->id);
    collect();
  } catch (...) {
    fail_everything(std::current_exception());
  }
}

// False when the loop is to end. Otherwise there is a request somewhere, or the cache was emptied.
bool EngineLoop::Impl::wait_for_work(std::vector<TicketPtr>& arrived) {
  std::unique_lock lock(mutex);
  if (active.empty() && inbox.empty() && !stopping && !reset_cache) {
    lock.unlock();
    publish();
    lock.lock();
    work.wait(lock, [&] { return stopping || reset_cache || !inbox.empty(); });
  }
  const bool reset = std::exchange(reset_cache, false) && !broken, ends = stopping;
  arrived.assign(std::make_move_iterator(inbox.begin()), std::make_move_iterator(inbox.end()));
  inbox.clear();
  lock.unlock();
  if (reset) engine.reset_prefix_cache();  // takes a while; submit() must not wait for it
  if (!ends) return true;
  for (const TicketPtr& ticket : arrived) hand_over(ticket);
  return false;
}

void EngineLoop::Impl::hand_over(const TicketPtr& ticket) {
  try {
    if (broken) fail(ErrorCode::kUnavailable, "the engine has failed");
    Request request = std::move(ticket->request);
    if (!request.cancel) request.cancel = &ticket->cancelled;  // heeded within a step
    ticket->id = engine.submit(std::move(request), ticket->timer);
    active.push_back(ticket);
  } catch (...) {
    end(ticket, {}, std::current_exception());
  }
}

// Ends what the engine has finished; whether there was any.
bool EngineLoop::Impl::collect() {
  const auto middle = std::stable_partition(active.begin(), active.end(),
                                            [&](const TicketPtr& ticket) { return !engine.finished(ticket->id); });
  const std::vector<TicketPtr> finished(middle, active.end());
  active.erase(middle, active.end());
  if (!finished.empty()) publish();
  for (const TicketPtr& ticket : finished) {
    RequestResult result;
    std::exception_ptr error;
    try {
      result = engine.take(ticket->id);
    } catch (...) {
      error = std::current_exception();
    }
    end(ticket, std::move(result), error);
  }
  return !finished.empty();
}

// The ticket counts until its callback is over, so that drain() waits for it.
void EngineLoop::Impl::end(const TicketPtr& ticket, RequestResult result, std::exception_ptr error) {
  try {
    if (const Done done = std::move(ticket->done)) done(std::move(result), error);
  } catch (...) {  // nobody is left to tell
  }
  const std::lock_guard lock(mutex);
  --tickets;
  const auto own = by_tenant.find(ticket->tenant);
  if (--own->second == 0) by_tenant.erase(own);
  if (tickets == 0) ended.notify_all();
}

void EngineLoop::Impl::fail_everything(const std::exception_ptr& error) {
  {
    const std::lock_guard lock(mutex);
    broken = true;
  }
  publish();
  for (const TicketPtr& ticket : std::exchange(active, {})) {
    try {
      engine.cancel(ticket->id);
      engine.take(ticket->id);
    } catch (...) {  // its blocks are of no use any more
    }
    end(ticket, {}, error);
  }
}

void EngineLoop::Impl::publish() {
  since_published = {};
  const std::lock_guard lock(mutex);
  published = engine.stats();
}

}  // namespace gov
