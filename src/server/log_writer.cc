#include "server/log_writer.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

namespace gov::server {

LogWriter::LogWriter(int descriptor, std::size_t most_waiting)
    : descriptor_(descriptor), most_waiting_(most_waiting), thread_([this] { run(); }) {}

LogWriter::~LogWriter() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void LogWriter::add(std::string_view line) {
  {
    const std::lock_guard lock(mutex_);
    if (lines_.size() >= most_waiting_) {
      ++dropped_;
      return;
    }
    lines_.emplace_back(line).push_back('\n');
  }
  changed_.notify_one();
}

void LogWriter::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !lines_.empty(); });
    if (lines_.empty()) return;
    const std::string line = std::move(lines_.front());
    lines_.pop_front();
    lock.unlock();
    const bool written = write(line);
    lock.lock();
    if (!written) ++dropped_;
    if (!written && stopping_) return;
  }
}

// False: nobody reads any more, or not before the server ends. The descriptor is other programs', too, and stays
// blocking: a pipe that poll() finds writable takes PIPE_BUF bytes at once.
bool LogWriter::write(std::string_view text) {
  constexpr int kLookAgain = 100;  // milliseconds
  while (!text.empty()) {
    pollfd ready{descriptor_, POLLOUT, 0};
    const int count = poll(&ready, 1, kLookAgain);
    if (count == 0 && stopping_) return false;
    if (count <= 0) continue;
    const ssize_t sent = ::write(descriptor_, text.data(), std::min<std::size_t>(text.size(), PIPE_BUF));
    if (sent < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (sent < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

}  // namespace gov::server
