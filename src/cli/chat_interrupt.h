#pragma once
// Ctrl-C in a conversation: it stops the answer, not the program.

#include <atomic>

namespace gov::cli {

// From here to its end SIGINT sets flag() instead of ending the program; the third one that nobody asked about ends it
// all the same, in case nothing else does. One at a time: the flag belongs to the process, as signals do.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  const std::atomic<bool>& flag() const;
  bool take();  // whether it was set; resets it
};

}  // namespace gov::cli
