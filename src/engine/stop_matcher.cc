#include "engine/stop_matcher.h"

#include <algorithm>

namespace gov {

std::string StopMatcher::append(std::string_view text) {
  if (match_) return {};
  pending_ += text;
  std::size_t first_end = std::string::npos, first_begin = 0;
  for (const std::string& stop : stops_) {
    const std::size_t begin = pending_.find(stop);
    if (begin == std::string::npos) continue;
    const std::size_t end = begin + stop.size();
    if (end < first_end || (end == first_end && begin < first_begin)) {
      first_end = end;
      first_begin = begin;
      match_ = stop;
    }
  }
  const std::size_t ready = match_ ? first_begin : pending_.size() - held_back();
  std::string out = pending_.substr(0, ready);
  if (match_) pending_.clear();
  else pending_.erase(0, ready);
  return out;
}

std::string StopMatcher::flush() {
  std::string rest = std::move(pending_);
  pending_.clear();
  return rest;
}

// Length of the longest end of the pending text with which a stop string begins.
std::size_t StopMatcher::held_back() const {
  std::size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t length = std::min(stop.size() - 1, pending_.size()); length > longest; --length) {
      if (std::string_view(pending_).ends_with(std::string_view(stop).substr(0, length))) longest = length;
    }
  }
  return longest;
}

}  // namespace gov
