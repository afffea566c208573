#include "engine/draft.h"

#include <algorithm>
#include <bit>

namespace gov {

void NgramIndex::push(std::int32_t token) {
  // What stood before this token is followed by it.
  enter(size());
  history_.push_back(token);
  const std::size_t wanted = std::bit_ceil(2 * std::max<std::size_t>(history_.size(), 64));
  if (last_[0].size() >= wanted) return;
  for (auto& table : last_) table.assign(wanted, 0);
  for (std::int64_t end = 1; end < size(); ++end) enter(end);
}

// Enters the tokens that end before position `end`.
void NgramIndex::enter(std::int64_t end) {
  for (std::int64_t length = 1; length <= kLongest; ++length) {
    auto& table = last_[static_cast<std::size_t>(length - 1)];
    if (!table.empty() && comparable(length, end)) table[place(length, end)] = static_cast<std::int32_t>(end);
  }
}

bool NgramIndex::comparable(std::int64_t length, std::int64_t end) const {
  if (end < length) return false;
  const auto last = history_.begin() + static_cast<std::ptrdiff_t>(end);
  return std::find(last - static_cast<std::ptrdiff_t>(length), last, kNone) == last;
}

std::size_t NgramIndex::place(std::int64_t length, std::int64_t end) const {
  std::uint64_t hash = 0;
  for (std::int64_t i = end - length; i < end; ++i) {
    hash = (hash ^ static_cast<std::uint32_t>(history_[static_cast<std::size_t>(i)])) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  }
  return static_cast<std::size_t>(hash) & (last_[0].size() - 1);
}

void NgramIndex::guess(std::int64_t most, std::vector<std::int32_t>& out) const {
  if (history_.empty()) return;
  for (std::int64_t length = kLongest; length >= 1; --length) {
    if (!comparable(length, size())) continue;
    const std::int64_t found = last_[static_cast<std::size_t>(length - 1)][place(length, size())];
    if (found == 0) continue;
    const auto tail = [&](std::int64_t end) { return history_.begin() + static_cast<std::ptrdiff_t>(end - length); };
    if (!std::equal(tail(found), tail(found) + static_cast<std::ptrdiff_t>(length), tail(size()))) continue;
    const std::int64_t period = size() - found;
    for (std::int64_t i = 0; i < most; ++i) {
      const std::int32_t token = history_[static_cast<std::size_t>(found + i % period)];
      if (token == kNone) break;
      out.push_back(token);
    }
    return;
  }
}

void DraftLength::learn(std::int64_t rows, std::int64_t drafted, std::int64_t accepted) {
  if (drafted == 0) return;
  if (accepted > 0) {
    pause_ = kFirstPause;
    length_ = accepted == drafted ? std::min(most_, 2 * length_) : std::min(most_, accepted + 1);
  } else if (length_ > 1) {
    length_ /= 2;
  } else {
    resume_ = rows + pause_;
    pause_ = std::min(kLongestPause, 2 * pause_);
  }
}

}  // namespace gov
