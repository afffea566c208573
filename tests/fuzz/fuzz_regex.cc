// A pattern: any bytes give a grammar or an Error; a text made by following it is matched.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "text/grammar/run.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::shared_ptr<const gov::Grammar> grammar;
  try {
    gov::GrammarLimits limits;
    limits.dfa_states = 2000;
    grammar = gov::Grammar::regex({reinterpret_cast<const char*>(data), size}, limits);
  } catch (const gov::Error&) {
    return 0;
  }
  gov::GrammarThreads threads = gov::start_threads(grammar->impl()), next;
  std::uint32_t seed = static_cast<std::uint32_t>(size) + 1;
  for (int i = 0; i < 200; ++i) {
    if (threads.empty()) std::abort();
    bool any = gov::is_complete(threads);
    seed = seed * 1664525 + 1013904223;
    for (unsigned b = 0; b < 256; ++b) {
      gov::step_threads(grammar->impl(), threads, static_cast<std::uint8_t>(b + (seed >> 24)), next);
      if (next.empty()) continue;
      any = true;
      break;
    }
    if (!any) std::abort();  // a dead end
    if (next.empty()) return 0;
    std::swap(threads, next);
  }
  return 0;
}
