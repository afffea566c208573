#pragma once
// Keeps the keys and values of finished and running sequences, so that a sequence which begins with the same rows need
// not compute them again. What it then draws is what it would have drawn: bit for bit on the CPU; on a GPU rows that
// were computed in other company differ by rounding, which may decide between tokens that are almost equally likely.
//
// The rows of all sequences form a tree for each salt: a node is one cache block's rows (token ids, or an image's
// digest and the row within it), compared as they are, not by a hash. A node keeps the block of the full layers. A row
// is of use to the sliding layers only together with the window before it, and almost all windows have passed: a node
// keeps its sliding block only where a window snapshot was taken, which is
//   - at the end of every prompt and of every sequence (the next turn of a chat, another answer),
//   - where a sequence found more rows known than it could use (a shared beginning, from the second user on),
//   - weaker, every kSnapshotBlocks blocks.
// Prefixes can be used up to a row whose window is still kept. Rows are exact: the last node of a branch may be a block
// that is not full, and only a part of a node may match; such a block is copied before it is written.
//
// Nothing here takes memory from sequences: what no sequence owns is given up when a block is needed, the least
// recently used first (of the full blocks: leaves of the tree first; of the sliding ones: weak snapshots first).

#include <list>
#include <map>
#include <memory>
#include <set>

#include "engine/prefix_stats.h"
#include "engine/sequence.h"

namespace gov {

struct PrefixOrder {
  bool operator()(const PrefixRows& a, const PrefixRows& b) const;
};
// Rows that are equal at the beginning of both.
std::int64_t common_rows(const PrefixRows& a, const PrefixRows& b);

class PrefixCache {
 public:
  // `blocks` must outlive the cache. Off: nothing is kept or found.
  PrefixCache(BlockManager& blocks, bool on);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  struct Hit {
    std::vector<PrefixNode*> path;  // nodes that hold the rows, from the first
    std::int64_t rows = 0;          // that can be used
    std::int64_t known_rows = 0;    // that are known; more than `rows` where windows are missing
    std::int64_t owned_blocks = 0;  // full blocks of these that sequences own already
  };
  // Never the last row of the sequence: that has to be computed to give logits.
  Hit find(const Sequence& sequence) const;
  // Gives a sequence without blocks the rows of a hit just found.
  void take(Sequence& sequence, const Hit& hit);
  // After rows `begin` .. sequence.computed were computed: keeps their full blocks, and windows where they are wanted.
  void store(Sequence& sequence, std::int64_t begin);
  // Before the sequence's blocks are released: keeps all that it has computed; with `faulty`, forgets everything that
  // it began with instead.
  void leave(Sequence& sequence, bool faulty = false);

  // Gives up blocks that no sequence owns until this many more are free, or none is left.
  void make_room(const BlockManager::Shortage& shortage);
  // Gives up what it keeps of the blocks of the sequence's row `row`, in the pools that are short, so that the sequence
  // may write it if nobody else owns them.
  void unshare(const Sequence& sequence, std::int64_t row, const BlockManager::Shortage& shortage);
  // Forgets everything.
  void reset();

  void count_query(std::int64_t rows, std::int64_t hit_rows);
  PrefixStats stats() const;
  BlockManager::Kept kept() const;
  // The first fault of the tree in words, or an empty text.
  std::string check() const;

  static constexpr std::int64_t kSnapshotBlocks = 32;

 private:
  using Nodes = std::list<PrefixNode>;
  using Roots = std::map<std::string, PrefixNode*>;
  PrefixNode* root(const std::string& salt);
  PrefixNode* add(PrefixNode* parent, const Sequence& sequence, std::int64_t index, std::int64_t count);
  void set_full(PrefixNode& node, std::int32_t block, std::int64_t rows);
  void move_cursor(Sequence& sequence, PrefixNode* node);
  void keep_window(const Sequence& sequence, PrefixNode* node, std::int64_t border, bool strong);
  void touch(PrefixNode& node);
  void touch_window(PrefixNode& node, bool strong);
  void drop(PrefixNode* node);
  void drop_all(PrefixNode* node);
  void drop_window(PrefixNode& node);
  void erase_if_unused(PrefixNode* node);
  bool evict_full();
  bool evict_sliding();

  BlockManager& blocks_;
  bool on_;
  std::int64_t size_;  // of a block
  Nodes nodes_;        // all, also detached ones that a sequence still points to
  Roots roots_;        // by salt
  struct Older {
    bool operator()(const PrefixNode* a, const PrefixNode* b) const;
  };
  std::set<PrefixNode*, Older> leaves_;            // the least recently used first
  std::list<PrefixNode*> weak_, strong_;           // with a sliding block; the least recently used last
  std::vector<PrefixNode*> of_full_, of_sliding_;  // by block: the node that keeps it, or null
  std::uint64_t now_ = 0;
  PrefixStats stats_;
};

}  // namespace gov
