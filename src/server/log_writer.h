#pragma once
// Lines for a file, a terminal or a pipe, written by a thread of their own: whoever reads them slowly, or not at all,
// keeps nobody waiting. Lines that find no room are dropped and counted.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

namespace gov::server {

class LogWriter {
 public:
  explicit LogWriter(int descriptor, std::size_t most_waiting = 16384);
  // Writes what still waits, as long as its reader takes it.
  ~LogWriter();
  LogWriter(const LogWriter&) = delete;

  void add(std::string_view line);  // any thread; never waits for the reader
  std::int64_t dropped() const { return dropped_; }

 private:
  void run();
  bool write(std::string_view text);

  const int descriptor_;
  const std::size_t most_waiting_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> lines_;
  std::atomic<bool> stopping_ = false;
  std::atomic<std::int64_t> dropped_ = 0;
  std::thread thread_;
};

}  // namespace gov::server
