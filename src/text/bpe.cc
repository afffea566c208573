#include "text/bpe.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <limits>
#include <queue>
#include <unordered_map>
#include <utility>

#include "base/error.h"

namespace gov {
namespace {

constexpr std::size_t kShortPiece = 256;  // up to here scanning for the minimum beats any queue
constexpr std::uint32_t kNoRank = std::numeric_limits<std::uint32_t>::max();

std::uint8_t byte_at(std::string_view piece, std::size_t i) { return static_cast<std::uint8_t>(piece[i]); }

void encode_short(const Bpe& bpe, std::string_view piece, std::vector<std::int32_t>& out) {
  std::int32_t ids[kShortPiece], joined[kShortPiece];
  std::uint32_t ranks[kShortPiece];  // of the pair (i, i + 1)
  std::size_t n = piece.size();
  for (std::size_t i = 0; i < n; ++i) ids[i] = bpe.byte_ids[byte_at(piece, i)];
  const auto look_up = [&](std::size_t i) {
    const Merge* m = i + 1 < n ? bpe.merges.find(ids[i], ids[i + 1]) : nullptr;
    ranks[i] = m ? m->rank : kNoRank;
    joined[i] = m ? m->id : -1;
  };
  for (std::size_t i = 0; i < n; ++i) look_up(i);
  for (;;) {
    std::uint32_t lowest = kNoRank;
    for (std::size_t i = 0; i < n; ++i) lowest = std::min(lowest, ranks[i]);
    if (lowest == kNoRank) break;
    const std::size_t at = static_cast<std::size_t>(std::find(ranks, ranks + n, lowest) - ranks);
    ids[at] = joined[at];
    std::copy(ids + at + 2, ids + n, ids + at + 1);
    std::copy(ranks + at + 2, ranks + n, ranks + at + 1);
    std::copy(joined + at + 2, joined + n, joined + at + 1);
    --n;
    look_up(at);
    if (at > 0) look_up(at - 1);
  }
  out.insert(out.end(), ids, ids + n);
}

// Positions with one rank, smallest first. They nearly always arrive in ascending order; the others go to a heap.
struct PositionQueue {
  std::deque<std::uint32_t> ascending;
  std::priority_queue<std::uint32_t, std::vector<std::uint32_t>, std::greater<>> late;
  bool pending = false;

  bool empty() const { return ascending.empty() && late.empty(); }
  void push(std::uint32_t position) {
    if (ascending.empty() || ascending.back() <= position) {
      ascending.push_back(position);
    } else {
      late.push(position);
    }
  }
  std::uint32_t pop() {
    std::uint32_t position;
    if (late.empty() || (!ascending.empty() && ascending.front() <= late.top())) {
      position = ascending.front();
      ascending.pop_front();
    } else {
      position = late.top();
      late.pop();
    }
    return position;
  }
};

// A long piece. tags_ is the doubly linked list of its symbols without links: a symbol's id stands at its first byte,
// and ~id at its last byte when that is another one, so both neighbours are found through the tokens' lengths. Inner
// bytes hold negative values that are never read as an end. A queued position whose pair has changed since is skipped.
class LongPiece {
 public:
  LongPiece(const Bpe& bpe, const Vocabulary& vocabulary, std::string_view piece)
      : bpe_(bpe), vocabulary_(vocabulary), tags_(piece.size()) {
    for (std::size_t i = 0; i < piece.size(); ++i) tags_[i] = bpe.byte_ids[byte_at(piece, i)];
  }

  void encode(std::vector<std::int32_t>& out, const std::atomic<bool>* cancel) {
    for (std::size_t i = 0; i + 1 < tags_.size(); ++i) push(i, tags_[i], tags_[i + 1]);
    std::size_t steps = 0;
    while (!pending_.empty()) {
      if ((++steps & 0xFFFF) == 0) check_cancelled(cancel);
      const auto [rank, queue] = pending_.top();
      if (queue->empty()) {
        pending_.pop();
        queue->pending = false;
      } else {
        merge(queue->pop(), rank);
      }
    }
    std::size_t count = out.size();
    for (std::size_t i = 0; i < tags_.size(); i += vocabulary_.length(tags_[i])) ++count;
    // Grown at most once for this piece: doubling step by step would copy megabytes and touch fresh pages each time.
    if (count > out.capacity()) out.reserve(std::max(count, out.capacity() * 2));
    for (std::size_t i = 0; i < tags_.size(); i += vocabulary_.length(tags_[i])) out.push_back(tags_[i]);
  }

 private:
  void push(std::size_t position, std::int32_t left, std::int32_t right) {
    const Merge* m = bpe_.merges.find(left, right);
    if (!m) return;
    PositionQueue& queue = queue_of(m->rank);
    queue.push(static_cast<std::uint32_t>(position));
    if (!queue.pending) pending_.emplace(m->rank, &queue);
    queue.pending = true;
  }

  PositionQueue& queue_of(std::uint32_t rank) {
    auto& [recent_rank, recent_queue] = recent_[rank % std::size(recent_)];
    if (recent_rank != rank || !recent_queue) {
      const auto [it, is_new] = queue_of_rank_.try_emplace(rank, nullptr);
      if (is_new) it->second = &queues_.emplace_back();
      recent_rank = rank;
      recent_queue = it->second;
    }
    return *recent_queue;
  }

  void merge(std::size_t at, std::uint32_t rank) {
    const std::int32_t left = tags_[at];
    if (left < 0) return;
    const std::size_t middle = at + vocabulary_.length(left);
    if (middle >= tags_.size()) return;
    const std::int32_t right = tags_[middle];
    const Merge* m = bpe_.merges.find(left, right);
    if (!m || m->rank != rank) return;
    const std::size_t end = middle + vocabulary_.length(right);
    tags_[middle - 1] = tags_[middle] = -1;
    tags_[end - 1] = ~m->id;
    tags_[at] = m->id;
    if (at > 0) {
      const std::int32_t tag = tags_[at - 1], before = tag < 0 ? ~tag : tag;
      push(at - vocabulary_.length(before), before, m->id);
    }
    if (end < tags_.size()) push(at, m->id, tags_[end]);
  }

  const Bpe& bpe_;
  const Vocabulary& vocabulary_;
  std::vector<std::int32_t> tags_;
  using RankAndQueue = std::pair<std::uint32_t, PositionQueue*>;
  std::deque<PositionQueue> queues_;  // a deque: they stay where they are
  std::unordered_map<std::uint32_t, PositionQueue*> queue_of_rank_;
  RankAndQueue recent_[64] = {};  // of queue_of_rank_, by the rank's low bits
  std::priority_queue<RankAndQueue, std::vector<RankAndQueue>, std::greater<>> pending_;  // lowest rank on top
};

}  // namespace

void MergeTable::resize(unsigned bits) {
  const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(std::size_t{1} << bits));
  shift_ = 64 - bits;
  size_ = 0;
  for (const Slot& s : old) {
    if (s.merge.id >= 0) set(s.left, s.right, s.merge);
  }
}

void MergeTable::reserve(std::size_t count) {
  unsigned bits = 64 - shift_;
  while ((std::size_t{1} << bits) < count * 2) ++bits;
  if (bits != 64 - shift_) resize(bits);
}

void MergeTable::set(std::int32_t left, std::int32_t right, Merge merge) {
  GOV_DCHECK(merge.id >= 0);
  if ((size_ + 1) * 2 > slots_.size()) resize(64 - shift_ + 1);
  for (std::size_t i = slot_of(left, right);; i = (i + 1) & (slots_.size() - 1)) {
    Slot& s = slots_[i];
    if (s.merge.id >= 0 && (s.left != left || s.right != right)) continue;
    if (s.merge.id < 0) ++size_;
    s = {left, right, merge};
    return;
  }
}

void check_cancelled(const std::atomic<bool>* cancel) {
  if (cancel && cancel->load(std::memory_order_relaxed)) fail(ErrorCode::kCancelled, "tokenizing was cancelled");
}

void bpe_encode(const Bpe& bpe, const Vocabulary& vocabulary, std::string_view piece, std::vector<std::int32_t>& ids,
                const std::atomic<bool>* cancel) {
  if (piece.size() <= kShortPiece) {
    encode_short(bpe, piece, ids);
  } else {
    GOV_DCHECK(piece.size() < (std::size_t{1} << 31));
    LongPiece(bpe, vocabulary, piece).encode(ids, cancel);
  }
}

}  // namespace gov
