#include "engine/block_manager.h"

#include <algorithm>
#include <utility>

namespace gov {

BlockPool::BlockPool(std::int64_t size)
    : owners_(static_cast<std::size_t>(size), 0), kept_rows_(static_cast<std::size_t>(size), 0) {
  free_.reserve(owners_.size());
  for (std::int64_t block = size - 1; block >= 0; --block) free_.push_back(static_cast<std::int32_t>(block));
}

std::int32_t BlockPool::allocate() {
  GOV_DCHECK(!free_.empty());
  const std::int32_t block = free_.back();
  free_.pop_back();
  owners_[static_cast<std::size_t>(block)] = 1;
  return block;
}

void BlockPool::retain(std::int32_t block) {
  GOV_DCHECK(!is_free(block));
  if (owners_[static_cast<std::size_t>(block)]++ == 0) --idle_;
}

void BlockPool::release(std::int32_t block) {
  GOV_DCHECK(owners(block) > 0);
  if (--owners_[static_cast<std::size_t>(block)] > 0) return;
  if (kept_rows(block) > 0) ++idle_;
  else free_.push_back(block);
}

void BlockPool::keep(std::int32_t block, std::int32_t rows) {
  GOV_DCHECK(!is_free(block) && rows > 0);
  kept_count_ += kept_rows(block) == 0;
  kept_rows_[static_cast<std::size_t>(block)] = rows;
}

void BlockPool::give_up(std::int32_t block) {
  GOV_DCHECK(kept_rows(block) > 0);
  kept_rows_[static_cast<std::size_t>(block)] = 0;
  --kept_count_;
  if (owners(block) > 0) return;
  --idle_;
  free_.push_back(block);
}

BlockManager::BlockManager(const KvCacheSpec& spec, std::int64_t window)
    : block_size_(spec.block_size), window_(window), full_(spec.full_blocks), sliding_(spec.sliding_blocks) {}

// Whether the block of the first row to write is to be copied before.
bool BlockManager::shared(const BlockPool& pool, const std::vector<std::int32_t>& table, std::int64_t begin) const {
  const std::size_t written = static_cast<std::size_t>(begin / block_size_);
  return written < table.size() && !pool.writable(table[written], begin % block_size_);
}

std::int64_t BlockManager::missing(const BlockPool& pool, const std::vector<std::int32_t>& table, std::int64_t begin,
                                   std::int64_t end) const {
  const std::int64_t more = blocks_for(end) - static_cast<std::int64_t>(table.size());
  return std::max<std::int64_t>(0, more) + (shared(pool, table, begin) ? 1 : 0);
}

bool BlockManager::prepare(BlockTables& tables, std::int64_t begin, std::int64_t end, std::vector<BlockCopy>& copies) {
  for (; static_cast<std::int64_t>(tables.sliding_begin) < first_seen(begin); ++tables.sliding_begin) {
    if (tables.sliding_begin == tables.sliding.size()) tables.sliding.push_back(-1);
    std::int32_t& block = tables.sliding[tables.sliding_begin];
    if (block >= 0) sliding_.release(block);
    block = -1;
  }
  const Shortage lacks = shortage(tables, begin, end);
  if (lacks.full > 0 || lacks.sliding > 0) return false;
  const std::size_t written = static_cast<std::size_t>(begin / block_size_);
  const auto make_writable = [&](BlockPool& pool, std::vector<std::int32_t>& table, bool is_sliding) {
    if (shared(pool, table, begin)) {
      const std::int32_t own = pool.allocate();
      copies.push_back({is_sliding, table[written], own});
      pool.release(table[written]);
      table[written] = own;
    }
    while (static_cast<std::int64_t>(table.size()) < blocks_for(end)) table.push_back(pool.allocate());
  };
  make_writable(full_, tables.full, false);
  make_writable(sliding_, tables.sliding, true);
  return true;
}

BlockManager::Shortage BlockManager::shortage(const BlockTables& tables, std::int64_t begin, std::int64_t end) const {
  return {std::max<std::int64_t>(0, missing(full_, tables.full, begin, end) - full_.free_count()),
          std::max<std::int64_t>(0, missing(sliding_, tables.sliding, begin, end) - sliding_.free_count())};
}

bool BlockManager::reserve_full(BlockTables& tables, std::int64_t end) {
  const std::int64_t more = blocks_for(end) - static_cast<std::int64_t>(tables.full.size());
  if (more > full_.free_count()) return false;
  for (std::int64_t i = 0; i < more; ++i) tables.full.push_back(full_.allocate());
  return true;
}

BlockTables BlockManager::fork(const BlockTables& tables, std::int64_t positions) {
  const std::size_t blocks = static_cast<std::size_t>(blocks_for(positions));
  const auto first = [&](const std::vector<std::int32_t>& table) {
    return std::vector<std::int32_t>(table.begin(),
                                     table.begin() + static_cast<std::ptrdiff_t>(std::min(blocks, table.size())));
  };
  BlockTables copy{first(tables.full), first(tables.sliding), std::min(tables.sliding_begin, blocks)};
  for (const std::int32_t block : copy.full) full_.retain(block);
  for (const std::int32_t block : copy.sliding) {
    if (block >= 0) sliding_.retain(block);
  }
  return copy;
}

void BlockManager::release(BlockTables& tables) {
  for (const std::int32_t block : tables.full) full_.release(block);
  for (const std::int32_t block : tables.sliding) {
    if (block >= 0) sliding_.release(block);
  }
  tables = {};
}

namespace {

std::string check_pool(const char* name, const BlockPool& pool,
                       const std::vector<std::span<const std::int32_t>>& tables, std::span<const std::int32_t> kept) {
  std::vector<std::int32_t> owners(static_cast<std::size_t>(pool.size()), 0);
  std::vector<std::int64_t> last_table(owners.size(), -1);
  std::vector<char> is_kept(owners.size(), 0);
  for (std::size_t t = 0; t < tables.size(); ++t) {
    for (const std::int32_t block : tables[t]) {
      if (block < 0) continue;
      if (block >= pool.size()) return fmt::format("{} block {} does not exist", name, block);
      const std::size_t i = static_cast<std::size_t>(block);
      if (last_table[i] == static_cast<std::int64_t>(t))
        return fmt::format("{} block {} is twice in one table", name, block);
      last_table[i] = static_cast<std::int64_t>(t);
      ++owners[i];
    }
  }
  for (const std::int32_t block : kept) {
    if (std::exchange(is_kept[static_cast<std::size_t>(block)], 1))
      return fmt::format("{} block {} is kept twice", name, block);
  }
  std::int64_t used = 0, idle = 0;
  for (std::int32_t block = 0; block < pool.size(); ++block) {
    const std::int32_t real = owners[static_cast<std::size_t>(block)];
    if (real != pool.owners(block)) {
      return fmt::format("{} block {} has {} owners but counts {}", name, block, real, pool.owners(block));
    }
    const bool keeps = is_kept[static_cast<std::size_t>(block)];
    if (keeps != (pool.kept_rows(block) > 0)) return fmt::format("{} block {} is kept by nobody", name, block);
    used += real > 0 || keeps;
    idle += real == 0 && keeps;
  }
  if (used + pool.free_count() != pool.size()) {
    return fmt::format("{} blocks: {} used + {} free is not {}", name, used, pool.free_count(), pool.size());
  }
  if (idle != pool.idle_count()) return fmt::format("{} idle {} blocks count as {}", idle, name, pool.idle_count());
  return {};
}

}  // namespace

std::string BlockManager::check(std::span<const BlockTables* const> tables, const Kept& kept) const {
  std::vector<std::span<const std::int32_t>> full, sliding;
  for (const BlockTables* table : tables) {
    full.push_back(table->full);
    sliding.push_back(table->sliding);
    for (std::size_t i = 0; i < table->sliding.size(); ++i) {
      if ((table->sliding[i] < 0) != (i < table->sliding_begin))
        return fmt::format("sliding entry {} is not where the window is", i);
    }
  }
  const std::string fault = check_pool("full", full_, full, kept.full);
  return fault.empty() ? check_pool("sliding", sliding_, sliding, kept.sliding) : fault;
}

}  // namespace gov
