#pragma once
// Who owns which block of the paged cache. Two pools: blocks of the full-attention layers, and blocks of the sliding
// layers, of which a sequence keeps only those that its window can still see. Blocks may be shared (choices of one
// prompt); a shared block is copied before it is written.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/kv_cache.h"

namespace gov {

// Blocks 0 .. size-1 with a count of owners each.
class BlockPool {
 public:
  explicit BlockPool(std::int64_t size);
  std::int64_t size() const { return static_cast<std::int64_t>(owners_.size()); }
  std::int64_t free_count() const { return static_cast<std::int64_t>(free_.size()); }
  // A free block, now with one owner. The block freed last comes first, so that little memory is touched. There must be
  // one.
  std::int32_t allocate();
  void retain(std::int32_t block);
  void release(std::int32_t block);
  std::int32_t owners(std::int32_t block) const { return owners_[static_cast<std::size_t>(block)]; }

 private:
  std::vector<std::int32_t> owners_;  // [size], 0 = free
  std::vector<std::int32_t> free_;
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
  std::int64_t block_size() const { return block_size_; }

  // Makes positions [begin, end) writable, and everything that row `begin` and later ones see readable: frees sliding
  // blocks behind the window of row `begin`, allocates what is missing, and lists a copy for a shared block. Returns
  // false, with nothing allocated, if blocks are missing.
  bool prepare(BlockTables& tables, std::int64_t begin, std::int64_t end, std::vector<BlockCopy>& copies);
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
  // twice, free + used = total. Returns the first fault in words, or an empty text.
  std::string check(std::span<const BlockTables* const> tables) const;

 private:
  std::int64_t blocks_for(std::int64_t positions) const { return (positions + block_size_ - 1) / block_size_; }
  std::int64_t slot(const std::vector<std::int32_t>& table, std::int64_t position) const {
    return table[static_cast<std::size_t>(position / block_size_)] * block_size_ + position % block_size_;
  }

  std::int64_t block_size_;
  std::int64_t window_;
  BlockPool full_, sliding_;
};

}  // namespace gov
