#pragma once
// What may stand in a header. Names from outside cannot hold anything that would read as another part of it.

#include <string_view>

namespace gov {

inline bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
}

inline bool is_name(std::string_view text, std::size_t max_length = 64) {
  if (text.empty() || text.size() > max_length) return false;
  for (const char c : text) {
    if (!is_name_char(c)) return false;
  }
  return true;
}

// A tool's name behind its namespace: each part may have 64 characters.
inline constexpr std::size_t kMaxToolName = 129;
// Longer words are no content type: with one, a header that is rendered again would be longer than a parser reads.
inline constexpr std::size_t kMaxContentType = 24;

inline constexpr std::string_view kChannels[] = {"analysis", "commentary", "final"};

}  // namespace gov
