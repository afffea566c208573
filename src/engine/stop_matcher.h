#pragma once
// Finds stop strings in text that arrives in pieces and holds back what could still become one.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gov {

// The stop string that is complete first ends the text; of several that end at the same byte, the longest. This does
// not depend on how the text was cut into pieces. Memory and time are bounded by the longest stop string.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Takes more text (whole UTF-8 characters) and returns what can no longer be part of a stop string. After a match the
  // matcher takes no more text: what it returned ends before the match.
  std::string append(std::string_view text);
  // The text still held back, which turned out not to be a stop string.
  std::string flush();
  // The stop string that was found.
  const std::optional<std::string>& match() const { return match_; }

 private:
  std::size_t held_back() const;

  std::vector<std::string> stops_;  // not empty strings
  std::string pending_;             // text that was not returned yet
  std::optional<std::string> match_;
};

}  // namespace gov
