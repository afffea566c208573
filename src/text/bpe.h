#pragma once
// Byte-pair merging of one piece: always the adjacent pair of lowest rank, the leftmost among equals. Exact and close
// to linear: short pieces scan a small array, long ones keep one queue of positions per rank.

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace gov {

struct Merge {
  std::uint32_t rank;  // lower merges first
  std::int32_t id;     // of the joined token
};

// (left id, right id) -> Merge: open addressing, at most half full.
class MergeTable {
 public:
  void reserve(std::size_t count);
  // A second merge of the same pair replaces the first.
  void set(std::int32_t left, std::int32_t right, Merge merge);
  const Merge* find(std::int32_t left, std::int32_t right) const {
    for (std::size_t i = slot_of(left, right);; i = (i + 1) & (slots_.size() - 1)) {
      const Slot& s = slots_[i];
      if (s.merge.id < 0) return nullptr;
      if (s.left == left && s.right == right) return &s.merge;
    }
  }
  std::size_t size() const { return size_; }

 private:
  struct Slot {
    std::int32_t left = 0, right = 0;
    Merge merge{0, -1};  // id -1: free
  };
  std::size_t slot_of(std::int32_t left, std::int32_t right) const {
    const std::uint64_t key =
        (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) | static_cast<std::uint32_t>(right);
    return (key * 0x9E3779B97F4A7C15ull) >> shift_;
  }
  void resize(unsigned bits);

  std::vector<Slot> slots_ = std::vector<Slot>(2);
  unsigned shift_ = 63;  // 64 - log2(slots)
  std::size_t size_ = 0;
};

struct Bpe {
  std::array<std::int32_t, 256> byte_ids;  // the one-byte token of every byte; -1: the vocabulary lacks it
  MergeTable merges;                       // every joined token is as long as its two halves together
};

// Throws Error kCancelled when the word is set; null never cancels.
void check_cancelled(const std::atomic<bool>* cancel);

// Appends the tokens of `piece` to `ids`. Every byte of the piece must have a one-byte token, and the piece must be
// shorter than 2^31 bytes.
void bpe_encode(const Bpe& bpe, const Vocabulary& vocabulary, std::string_view piece, std::vector<std::int32_t>& ids,
                const std::atomic<bool>* cancel = nullptr);

}  // namespace gov
