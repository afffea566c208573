#pragma once
// An Engine in a thread of its own, for servers: requests come from any thread, callbacks are called from the engine's.

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>

#include "engine/engine.h"

namespace gov {

struct LoopLimits {
  std::int64_t queue = 1024;  // requests that wait or run; more are refused
  std::int64_t queue_per_tenant = 256;
};

// Every function may be called from any thread, also from a callback, except drain() and the destructor, which wait.
class EngineLoop {
 public:
  struct Ticket;  // a submitted request
  // Either a result or an error. What was cancelled has a result, with finish reason cancelled.
  using Done = std::function<void(RequestResult result, std::exception_ptr error)>;

  // Starts the thread. `engine` is used by it alone from now on and must outlive the loop.
  EngineLoop(Engine& engine, const LoopLimits& limits = {});
  ~EngineLoop();  // cancels what still runs, then joins

  // Queues a request. Request::on_token and `done` are called from the engine's thread and must not block; `done`
  // exactly once, also after cancel(). Errors of the request's contents go to `done`; a full queue is Error kOverloaded
  // here, a loop that drains or has failed kUnavailable. An exception of `done` itself is dropped: the request is over.
  std::shared_ptr<Ticket> submit(Request request, Done done);
  void cancel(const std::shared_ptr<Ticket>& ticket);  // within one step

  void reset_prefix_cache();  // before the next step; running requests keep what they use

  // No new requests (Error kUnavailable); waits until all are done or `seconds` have passed; false if some still run.
  bool drain(double seconds);
  // A copy, not older than the last request that ended, else by at most 20 ms than the last step. With the queue's
  // requests and refusals.
  EngineStats stats() const;
  std::int64_t waiting() const;  // requests not started yet
  std::int64_t running() const;
  const EngineOptions& engine_options() const;
  const LoopLimits& limits() const;
  bool failed() const;  // the device is lost; readiness is gone

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gov
