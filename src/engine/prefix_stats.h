#pragma once
// What the prefix cache counts.

#include <cstdint>

namespace gov {

struct PrefixStats {
  std::int64_t queries = 0, query_rows = 0;  // prompts looked up and their rows
  std::int64_t hits = 0, hit_rows = 0;       // of these, prompts with rows in the cache; those rows
  std::int64_t evictions = 0;                // full blocks given up
  std::int64_t snapshots = 0;                // windows kept, weak ones too
  std::int64_t snapshot_evictions = 0;       // sliding blocks given up
  std::int64_t cached_full_blocks = 0, cached_sliding_blocks = 0;  // kept now; those that nobody uses count as free
};

}  // namespace gov
