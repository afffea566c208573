#pragma once
// Speculative decoding by prompt look-up: what followed the same last tokens before is likely to follow them again
// (quotations, code, tables). The guess goes through the model as further rows of one step; each token is then drawn
// as ever, and rows count only as long as their token is the one that was drawn. So the text does not change, only the
// number of steps: bit for bit on the CPU; on a GPU, where rounding depends on the number of rows, up to tokens that
// are almost equally likely.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace gov {

// Finds the last place where the last 3, 2 or 1 tokens stood before. Constant time for each token.
class NgramIndex {
 public:
  static constexpr std::int32_t kNone = -1;  // a row that is not a token (of a picture); equals nothing

  std::int64_t size() const { return static_cast<std::int64_t>(history_.size()); }
  void push(std::int32_t token);
  // Appends up to `most` tokens that followed there; where they reach the end, what was found goes on repeating.
  void guess(std::int64_t most, std::vector<std::int32_t>& out) const;

 private:
  static constexpr std::int64_t kLongest = 3;
  std::size_t place(std::int64_t length, std::int64_t end) const;
  bool comparable(std::int64_t length, std::int64_t end) const;
  void enter(std::int64_t end);

  std::vector<std::int32_t> history_;
  // For each length: by a hash of the tokens, the position after the last place where they stood; 0: nowhere. Places
  // that fall on each other are forgotten: a guess need not be the best.
  std::array<std::vector<std::int32_t>, kLongest> last_;
};

// How many tokens to guess: twice as many after all were right, half as many after none was; after vain ones of one
// token a pause, each longer than the one before.
class DraftLength {
 public:
  explicit DraftLength(std::int64_t most) : most_(most), length_(most) {}
  // When the sequence has `rows` rows; 0: none.
  std::int64_t at(std::int64_t rows) const { return rows < resume_ ? 0 : length_; }
  // What came of a guess of `drafted` tokens at `rows` rows.
  void learn(std::int64_t rows, std::int64_t drafted, std::int64_t accepted);

 private:
  static constexpr std::int64_t kFirstPause = 8, kLongestPause = 128;  // rows
  std::int64_t most_, length_, resume_ = 0, pause_ = kFirstPause;
};

struct DraftStats {
  std::int64_t drafted = 0, accepted = 0;  // tokens
};

}  // namespace gov
