#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>

namespace gov {
namespace {

// About 50 us of polling on current cores: longer than the serial gaps inside a forward pass, short for an idle server.
constexpr int kSpins = 4000;

// ThreadPool::state_: workers inside in the low bits, the open flag, the loop's number above.
constexpr std::uint64_t kInside = 0xffff;
constexpr std::uint64_t kOpen = 0x10000;
constexpr int kNumberShift = 17;

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Quota of the control group (version 2), in cores; 0 when there is none.
double cgroup_cores() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return 0;
  return std::atof(quota.c_str()) / period;
}

}  // namespace

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                          : static_cast<int>(std::thread::hardware_concurrency());
  if (const double quota = cgroup_cores(); quota > 0) cores = std::min(cores, static_cast<int>(std::ceil(quota)));
  return std::max(cores, 1);
}

ThreadPool::ThreadPool(int threads) {
  if (threads <= 0) threads = usable_cores();
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { worker_loop(i); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(sleep_mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::run(std::int64_t count, std::int64_t grain, void* body, Call call) {
  call_ = call;
  body_ = body;
  count_ = count;
  grain_ = std::max<std::int64_t>(grain, 1);
  error_ = nullptr;
  next_.store(0, std::memory_order_relaxed);
  const std::uint64_t number = (state_.load(std::memory_order_relaxed) >> kNumberShift) + 1;
  state_.store((number << kNumberShift) | kOpen);  // publishes the loop; sequentially consistent against sleepers_
  if (sleepers_.load() > 0) {
    std::lock_guard lock(sleep_mutex_);
    wake_.notify_all();
  }
  work(0);
  state_.fetch_and(~kOpen);
  for (int spins = 0; (state_.load(std::memory_order_acquire) & kInside) != 0;) {
    if (++spins < kSpins) pause_cpu();
    else std::this_thread::yield();  // more threads than free cores: let the worker finish
  }
  if (error_) std::rethrow_exception(error_);
}

void ThreadPool::work(int thread) {
  try {
    for (;;) {
      const std::int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= count_) return;
      call_(body_, begin, std::min(begin + grain_, count_), thread);
    }
  } catch (...) {  // carried to the caller of parallel_for, whatever its type
    next_.store(count_, std::memory_order_relaxed);
    std::lock_guard lock(error_mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

void ThreadPool::worker_loop(int thread) {
  std::uint64_t seen = 0;
  const auto number = [this] { return state_.load() >> kNumberShift; };
  for (;;) {
    int spins = 0;
    while (number() == seen && !stop_.load(std::memory_order_relaxed)) {
      if (++spins < kSpins) {
        pause_cpu();
        continue;
      }
      std::unique_lock lock(sleep_mutex_);
      sleepers_.fetch_add(1);
      wake_.wait(lock, [&] { return number() != seen || stop_; });
      sleepers_.fetch_sub(1);
    }
    if (stop_) return;
    std::uint64_t state = state_.load();
    while ((state & kOpen) && !state_.compare_exchange_weak(state, state + 1)) {
    }
    seen = state >> kNumberShift;
    if (!(state & kOpen)) continue;  // that loop is over
    work(thread);
    state_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace gov
