#include "server/workers.h"

#include "base/error.h"

namespace gov::server {
namespace {

// The last resort: one request's failure must not take the process with it.
void run_alone(const Workers::Job& job) {
  try {
    job();
  } catch (...) {
  }
}

}  // namespace

Workers::Workers(int threads, std::size_t most_waiting) : most_waiting_(most_waiting) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
}

Workers::~Workers() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Workers::post(Job job) {
  const std::lock_guard lock(mutex_);
  if (jobs_.size() >= most_waiting_) fail(ErrorCode::kOverloaded, "too many requests are waiting to be read");
  jobs_.push_back(std::move(job));
  changed_.notify_one();  // under the lock: the job may be what the end of these workers waits for
}

void Workers::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    {
      const Job job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      run_alone(job);
    }  // what the job holds is let go of without the lock
    lock.lock();
  }
}

void Strand::post(Workers::Job job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
    if (scheduled_) return;
    scheduled_ = true;
  }
  workers_.post([self = shared_from_this()] { self->run(); });
}

void Strand::run() {
  constexpr int kTurn = 64;  // then others get theirs
  for (int i = 0; i < kTurn; ++i) {
    Workers::Job job;
    {
      const std::lock_guard lock(mutex_);
      if (jobs_.empty()) {
        scheduled_ = false;
        return;
      }
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    run_alone(job);
  }
  workers_.post([self = shared_from_this()] { self->run(); });
}

}  // namespace gov::server
