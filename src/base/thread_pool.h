#pragma once
// A pool of threads for loops over independent items. Workers spin for a short while after a loop, then sleep: the ops
// of one token follow each other within microseconds, while an idle program must use no CPU.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace gov {

class ThreadPool {
 public:
  // threads: total, the caller included; 0 means one per usable core.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end, thread) for chunks of at most `grain` items that together cover [0, count) once; thread is
  // in [0, size()). Returns when all are done; rethrows the first exception. Not reentrant, one caller at a time.
  template <class Body>
  void parallel_for(std::int64_t count, std::int64_t grain, Body&& body) {
    if (count <= 0) return;
    if (workers_.empty() || count <= grain) {
      body(std::int64_t{0}, count, 0);
      return;
    }
    run(count, grain, &body, [](void* b, std::int64_t begin, std::int64_t end, int thread) {
      (*static_cast<std::remove_reference_t<Body>*>(b))(begin, end, thread);
    });
  }

 private:
  using Call = void (*)(void*, std::int64_t, std::int64_t, int);
  void run(std::int64_t count, std::int64_t grain, void* body, Call call);
  void work(int thread);
  void worker_loop(int thread);

  std::vector<std::thread> workers_;
  // The current loop; written by the caller before the generation is published.
  Call call_ = nullptr;
  void* body_ = nullptr;
  std::int64_t count_ = 0;
  std::int64_t grain_ = 1;
  std::exception_ptr error_;
  std::mutex error_mutex_;
  alignas(64) std::atomic<std::int64_t> next_{0};
  // Number of the loop, whether it may still be entered, and how many workers are inside. A worker that wakes too late
  // finds the loop closed: the caller waits only for those who entered, never for a thread that is not being scheduled.
  alignas(64) std::atomic<std::uint64_t> state_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  std::mutex sleep_mutex_;
  std::condition_variable wake_;
};

// Cores this process may run on (affinity mask and cgroup quota taken into account), at least 1.
int usable_cores();

}  // namespace gov
