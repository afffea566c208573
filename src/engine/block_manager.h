#pragma once
// Who owns which block of the paged cache. Two pools: blocks of the full-attention layers, and blocks of the sliding
// layers, of which a sequence keeps only those that its window can still see. Blocks may be shared (choices of one
// prompt, a prefix that the cache knows); a shared block is copied before it is written.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/kv_cache.h"

namespace gov {

// Blocks 0 .. size-1 with a count of owners (sequences) each. Besides, the prefix cache may keep a block: its first
// rows then must not change, but the rows after them may still be written by a sequence that is the only owner.
class BlockPool {
 public:
  explicit BlockPool(std::int64_t size);
  std::int64_t size() const { return static_cast<std::int64_t>(owners_.size()); }
  std::int64_t free_count() const { return static_cast<std::int64_t>(free_.size()); }
  // Blocks that the prefix cache alone keeps: it can give them up.
  std::int64_t idle_count() const { return idle_; }
  std::int64_t kept_count() const { return kept_count_; }
  // A free block, now with one owner. The block freed last comes first, so that little memory is touched. There must be
  // one.
  std::int32_t allocate();
  void retain(std::int32_t block);  // one that is owned or kept
  void release(std::int32_t block);
  std::int32_t owners(std::int32_t block) const { return owners_[static_cast<std::size_t>(block)]; }

  // Keeps the first `rows` (> 0) rows of a block that is owned or kept already.
  void keep(std::int32_t block, std::int32_t rows);
  void give_up(std::int32_t block);  // a kept one
  std::int32_t kept_rows(std::int32_t block) const { return kept_rows_[static_cast<std::size_t>(block)]; }

  bool is_free(std::int32_t block) const { return owners(block) == 0 && kept_rows(block) == 0; }
  // Whether the only owner may write row `row` of the block and those after it.
  bool writable(std::int32_t block, std::int64_t row) const { return owners(block) == 1 && kept_rows(block) <= row; }

 private:
  std::vector<std::int32_t> owners_;     // [size]
  std::vector<std::int32_t> kept_rows_;  // [size], 0 = not kept
  std::vector<std::int32_t> free_;
  std::int64_t idle_ = 0, kept_count_ = 0;
};

// Physical blocks of one sequence, indexed by position / block_size; -1 where the window has passed.
struct BlockTables {
  std::vector<std::int32_t> full;
  std::vector<std::int32_t> sliding;
  std::size_t sliding_begin = 0;  // entries before are -1
};

// Copies all rows of block `from` to block `to`, in every layer of the pool. Copies are done in the order of their
// list, before anything else is written.
struct BlockCopy {
  bool sliding;
  std::int32_t from, to;
};

class BlockManager {
 public:
  // window: visible keys of the sliding layers, the row itself included.
  BlockManager(const KvCacheSpec& spec, std::int64_t window);

  const BlockPool& full() const { return full_; }
  const BlockPool& sliding() const { return sliding_; }
  BlockPool& full() { return full_; }
  BlockPool& sliding() { return sliding_; }
  std::int64_t block_size() const { return block_size_; }
  // Of the row `begin`: the first sliding block that it or a later row sees.
  std::int64_t first_seen(std::int64_t begin) const {
    return std::max<std::int64_t>(0, begin - window_ + 1) / block_size_;
  }

  // Makes positions [begin, end) writable, and everything that row `begin` and later ones see readable: frees sliding
  // blocks behind the window of row `begin`, allocates what is missing, and lists a copy for a shared block. Returns
  // false, with nothing allocated, if blocks are missing.
  bool prepare(BlockTables& tables, std::int64_t begin, std::int64_t end, std::vector<BlockCopy>& copies);
  // Free blocks that prepare() would need beyond those there are, after it returned false; of each pool.
  struct Shortage {
    std::int64_t full = 0, sliding = 0;
  };
  Shortage shortage(const BlockTables& tables, std::int64_t begin, std::int64_t end) const;
  // Allocates the full blocks of positions [0, end) ahead of time, so that another prompt cannot take them.
  bool reserve_full(BlockTables& tables, std::int64_t end);
  // Tables for a second sequence with the same first `positions` rows: every block is shared.
  BlockTables fork(const BlockTables& tables, std::int64_t positions);
  void release(BlockTables& tables);

  // Slots of the caches for a position, as ops::kv_append takes them.
  std::int64_t full_slot(const BlockTables& tables, std::int64_t position) const { return slot(tables.full, position); }
  std::int64_t sliding_slot(const BlockTables& tables, std::int64_t position) const {
    return slot(tables.sliding, position);
  }

  // Checks that the given tables are all there is: the owners of each block are counted right, no table holds a block
  // twice, free + used = total, and the blocks that are kept are those in `kept`. Returns the first fault in words, or
  // an empty text.
  struct Kept {
    std::vector<std::int32_t> full, sliding;
  };
  std::string check(std::span<const BlockTables* const> tables, const Kept& kept = {}) const;

 private:
  std::int64_t missing(const BlockPool& pool, const std::vector<std::int32_t>& table, std::int64_t begin,
                       std::int64_t end) const;
  bool shared(const BlockPool& pool, const std::vector<std::int32_t>& table, std::int64_t begin) const;
  std::int64_t blocks_for(std::int64_t positions) const { return (positions + block_size_ - 1) / block_size_; }
  std::int64_t slot(const std::vector<std::int32_t>& table, std::int64_t position) const {
    return table[static_cast<std::size_t>(position / block_size_)] * block_size_ + position % block_size_;
  }

  std::int64_t block_size_;
  std::int64_t window_;
  BlockPool full_, sliding_;
};

}  // namespace gov
