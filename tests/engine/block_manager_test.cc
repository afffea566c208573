#include "engine/block_manager.h"

#include <gtest/gtest.h>

#include "base/philox.h"
#include "model/config.h"

namespace gov {
namespace {

constexpr std::int64_t kWindow = 20;

// A table with what a cache would hold: for each slot the position and owner written last.
struct Model {
  explicit Model(const KvCacheSpec& spec)
      : manager(spec, kWindow),
        full(static_cast<std::size_t>(spec.full_blocks * spec.block_size), -1),
        sliding(static_cast<std::size_t>(spec.sliding_blocks * spec.block_size), -1) {}

  struct Owned {
    BlockTables tables;
    std::int64_t rows = 0;
    std::vector<std::int64_t> written;  // [rows], the value that each row wrote
  };

  void copy_all(const std::vector<BlockCopy>& copies) {
    for (const BlockCopy& copy : copies) {
      auto& cache = copy.sliding ? sliding : full;
      for (std::int64_t i = 0; i < manager.block_size(); ++i) {
        cache[static_cast<std::size_t>(copy.to * manager.block_size() + i)] =
            cache[static_cast<std::size_t>(copy.from * manager.block_size() + i)];
      }
    }
  }

  bool grow(Owned& s, std::int64_t count) {
    std::vector<BlockCopy> copies;
    if (!manager.prepare(s.tables, s.rows, s.rows + count, copies)) return false;
    copy_all(copies);
    for (std::int64_t i = 0; i < count; ++i, ++s.rows) {
      s.written.push_back(next_value++);
      full[static_cast<std::size_t>(manager.full_slot(s.tables, s.rows))] = s.written.back();
      sliding[static_cast<std::size_t>(manager.sliding_slot(s.tables, s.rows))] = s.written.back();
    }
    return true;
  }

  // Every row that a next row could see still holds what this sequence (or the one it was forked from) wrote.
  void expect_readable(const Owned& s) const {
    for (std::int64_t row = 0; row < s.rows; ++row) {
      const std::int64_t value = s.written[static_cast<std::size_t>(row)];
      ASSERT_EQ(full[static_cast<std::size_t>(manager.full_slot(s.tables, row))], value);
      if (row < s.rows - kWindow + 1) continue;
      ASSERT_EQ(sliding[static_cast<std::size_t>(manager.sliding_slot(s.tables, row))], value);
    }
  }

  BlockManager manager;
  std::vector<std::int64_t> full, sliding;
  std::int64_t next_value = 0;
};

TEST(BlockManager, RandomOperationsKeepTheInvariants) {
  for (const std::int64_t block_size : {1, 8, 16, 64}) {
    const KvCacheSpec spec{block_size, 640 / block_size, 320 / block_size, DType::kF32};
    Model m(spec);
    std::vector<Model::Owned> sequences;
    const Philox random{static_cast<std::uint64_t>(block_size)};
    std::uint64_t counter = 0;
    const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random(counter++)[0]) % n; };
    int refused = 0, forked = 0;
    for (int operation = 0; operation < 10000; ++operation) {
      const std::size_t kind = below(10);
      const bool room = sequences.size() < 10;
      if (sequences.empty() || (kind == 0 && room)) {
        sequences.emplace_back();
      } else if (kind == 0 || kind == 1) {
        const std::size_t i = below(sequences.size());
        m.manager.release(sequences[i].tables);
        sequences.erase(sequences.begin() + static_cast<std::ptrdiff_t>(i));
      } else if (kind == 2 && room) {
        const Model::Owned& from = sequences[below(sequences.size())];
        Model::Owned copy{m.manager.fork(from.tables, from.rows), from.rows, from.written};
        sequences.push_back(std::move(copy));
        ++forked;
      } else if (kind == 3) {
        Model::Owned& s = sequences[below(sequences.size())];
        m.manager.reserve_full(s.tables, s.rows + static_cast<std::int64_t>(below(30)));
      } else {
        Model::Owned& s = sequences[below(sequences.size())];
        const std::int64_t free_full = m.manager.full().free_count();
        if (!m.grow(s, 1 + static_cast<std::int64_t>(below(25)))) {
          ++refused;
          ASSERT_EQ(m.manager.full().free_count(), free_full);  // nothing was allocated
        }
      }
      std::vector<const BlockTables*> tables;
      for (const Model::Owned& s : sequences) tables.push_back(&s.tables);
      ASSERT_EQ(m.manager.check(tables), "") << "block size " << block_size << ", operation " << operation;
      if (operation % 10 == 0) {
        for (const Model::Owned& s : sequences) m.expect_readable(s);
      }
      if (testing::Test::HasFatalFailure()) return;
    }
    EXPECT_GT(refused, 10);
    EXPECT_GT(forked, 100);
    for (Model::Owned& s : sequences) m.manager.release(s.tables);
    EXPECT_EQ(m.manager.full().free_count(), spec.full_blocks);
    EXPECT_EQ(m.manager.sliding().free_count(), spec.sliding_blocks);
  }
}

TEST(BlockManager, SlidingBlocksStayWithinTheirBound) {
  Config config;
  config.sliding_window = kWindow;
  for (const std::int64_t block_size : {1, 7, 16}) {
    for (const std::int64_t chunk : {1, 5, 64}) {
      KvCacheSpec spec{block_size, 3000, 0, DType::kF32};
      spec.sliding_blocks = sliding_blocks_needed(spec, config, 2000, chunk);
      BlockManager manager(spec, kWindow);
      BlockTables tables;
      std::vector<BlockCopy> copies;
      for (std::int64_t row = 0; row < 2000; row += chunk)
        ASSERT_TRUE(manager.prepare(tables, row, row + chunk, copies));
      EXPECT_TRUE(copies.empty());
    }
  }
}

TEST(BlockManager, CheckerSeesEveryKindOfFault) {
  const KvCacheSpec spec{4, 8, 8, DType::kF32};
  BlockManager manager(spec, 4);
  BlockTables a, b;
  std::vector<BlockCopy> copies;
  ASSERT_TRUE(manager.prepare(a, 0, 8, copies));
  ASSERT_TRUE(manager.prepare(b, 0, 8, copies));
  const auto fault = [&](const BlockTables& x, const BlockTables& y) {
    const BlockTables* const both[] = {&x, &y};
    return manager.check(both);
  };
  EXPECT_EQ(fault(a, b), "");
  BlockTables wrong = a;
  wrong.full[1] = wrong.full[0];
  EXPECT_NE(fault(wrong, b).find("twice in one table"), std::string::npos);
  wrong = a;
  wrong.full[1] = b.full[0];  // owned by both without being counted
  EXPECT_NE(fault(wrong, b).find("owners but counts"), std::string::npos);
  wrong = a;
  wrong.sliding[0] = 99;
  EXPECT_NE(fault(wrong, b).find("does not exist"), std::string::npos);
  wrong = a;
  wrong.sliding[1] = -1;
  EXPECT_NE(fault(wrong, b).find("window"), std::string::npos);
  wrong = a;
  wrong.full.pop_back();  // leaked
  EXPECT_NE(fault(wrong, b).find("owners but counts"), std::string::npos);
}

}  // namespace
}  // namespace gov
