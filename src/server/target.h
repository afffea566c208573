#pragma once
// The target of a request line: path and query, percent-decoded.

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gov::server {

struct Target {
  std::vector<std::string> segments;         // of the path, decoded one by one: "%2F" does not part them
  std::string path;                          // decoded
  std::map<std::string, std::string> query;  // decoded; of several with one name the first
  std::string authority;                     // of "http://host/path", else empty
};

// "%41" -> "A". Empty for a "%" without two hexadecimal digits, and for what is not UTF-8 or has control bytes
// afterwards. plus: "+" is a space, as in queries.
std::optional<std::string> percent_decode(std::string_view text, bool plus = false);

// "/path?query", "http://authority/path?query" or "*". Empty when malformed.
std::optional<Target> parse_target(std::string_view text);

}  // namespace gov::server
