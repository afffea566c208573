#pragma once
// What compiling a grammar may cost: GrammarLimits, counted while it runs. Private to src/text.

#include <chrono>
#include <cstddef>

#include "base/error.h"
#include "text/grammar/grammar.h"

namespace gov {

class GrammarBudget {
 public:
  explicit GrammarBudget(const GrammarLimits& limits)
      : limits_(limits),
        deadline_(std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                                         std::chrono::duration<double>(limits.seconds))) {}

  const GrammarLimits& limits() const { return limits_; }

  void states(std::size_t count) {
    states_ += count;
    check_states(states_);
  }
  void bytes(std::size_t count) {
    bytes_ += count;
    check_bytes(bytes_);
  }
  // Of one thing while it is made. Looked at but not added up, since it is given back.
  void check_states(std::size_t count) const {
    if (count > static_cast<std::size_t>(limits_.dfa_states))
      fail(ErrorCode::kInvalidArgument, "needs an automaton of more than {} states", limits_.dfa_states);
  }
  void check_bytes(std::size_t count) const {
    if (count > limits_.bytes) fail(ErrorCode::kInvalidArgument, "takes more than {} bytes to compile", limits_.bytes);
  }
  // Called in every loop whose length the schema decides; looks at the clock now and then.
  void tick() {
    if (++ticks_ % 64 == 0 && std::chrono::steady_clock::now() > deadline_)
      fail(ErrorCode::kInvalidArgument, "takes longer than {} s to compile", limits_.seconds);
  }
  std::size_t used_bytes() const { return bytes_; }

 private:
  GrammarLimits limits_;
  std::chrono::steady_clock::time_point deadline_;
  std::size_t states_ = 0, bytes_ = 0, ticks_ = 0;
};

}  // namespace gov
