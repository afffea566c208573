#include "cli/chat_interrupt.h"

#include <csignal>

namespace gov::cli {
namespace {

std::atomic<bool> interrupted{false};
std::atomic<int> unanswered{0};
struct sigaction previous {};

extern "C" void on_chat_interrupt(int signal) {
  interrupted.store(true, std::memory_order_relaxed);
  if (unanswered.fetch_add(1, std::memory_order_relaxed) < 2) return;
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

InterruptScope::InterruptScope() {
  struct sigaction action {};
  action.sa_handler = on_chat_interrupt;  // without SA_RESTART: a read that waits for a line ends
  sigaction(SIGINT, &action, &previous);
}

InterruptScope::~InterruptScope() { sigaction(SIGINT, &previous, nullptr); }

const std::atomic<bool>& InterruptScope::flag() const { return interrupted; }

bool InterruptScope::take() {
  unanswered.store(0, std::memory_order_relaxed);
  return interrupted.exchange(false, std::memory_order_relaxed);
}

}  // namespace gov::cli
