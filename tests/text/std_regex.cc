// A file of its own: with sanitizers GCC 12 takes parts of <regex> for uninitialised (GCC bug 105562), whoever includes
// it.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "tests/text/std_regex.h"

#include <regex>

namespace gov::text_test {

bool std_regex_match(const std::string& text, const std::string& pattern) {
  return std::regex_match(text, std::regex(pattern));
}
bool std_regex_search(const std::string& text, const std::string& pattern) {
  return std::regex_search(text, std::regex(pattern));
}

}  // namespace gov::text_test
