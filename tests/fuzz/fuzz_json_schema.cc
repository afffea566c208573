// A JSON schema: any bytes give a grammar or an Error; a text made by following it never runs into a dead end, and is a
// JSON document if it ends.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "text/grammar/run.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::shared_ptr<const gov::Grammar> grammar;
  try {
    gov::GrammarLimits limits;
    limits.dfa_states = 2000;
    grammar = gov::Grammar::json_schema(gov::Json::parse({reinterpret_cast<const char*>(data), size}), limits);
  } catch (const gov::Error&) {
    return 0;
  }
  gov::GrammarThreads threads = gov::start_threads(grammar->impl()), next;
  std::uint32_t seed = static_cast<std::uint32_t>(size) + 1;
  std::string text;
  for (int i = 0; i < 300; ++i) {
    const bool complete = gov::is_complete(threads);
    bool any = false;
    seed = seed * 1664525 + 1013904223;
    // Brackets and quotes first, so that texts end.
    static constexpr std::string_view kFirst = "}]\"0";
    for (unsigned b = 0; b < 260 && !any; ++b) {
      const unsigned byte = b < 4 ? static_cast<unsigned char>(kFirst[(b + seed) & 3]) : b - 4 + (seed >> 24);
      gov::step_threads(grammar->impl(), threads, static_cast<std::uint8_t>(byte), next);
      any = !next.empty();
      if (any) text += static_cast<char>(static_cast<unsigned char>(byte));
    }
    if (!any && !complete) std::abort();
    if (complete) (void)gov::Json::parse(any ? text.substr(0, text.size() - 1) : text);  // an Error here is a finding
    if (!any) return 0;
    std::swap(threads, next);
  }
  return 0;
}
