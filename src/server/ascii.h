#pragma once
// Letters as protocols see them: no locale may change what a header or a host name is.

#include <string>
#include <string_view>

namespace gov::server {

inline char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

inline std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = lower(c);
  return out;
}

}  // namespace gov::server
