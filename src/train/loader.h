#pragma once
// Loader: batches in the order of draw_order.h, made ahead by worker threads. What comes out depends on the sources,
// the seed and the state only, never on threads or timing.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "train/packed_batch.h"
#include "train/source.h"

namespace gov::train {

struct LoaderOptions {
  std::int64_t tokens_per_batch = 8192;
  std::int64_t max_length = 4096;
  OnLong on_long = OnLong::kTruncate;
  OnBad on_bad = OnBad::kSkip;
  int workers = 0;            // 0: one a core
  std::int64_t prefetch = 0;  // draws made ahead; 0: eight a worker
  std::size_t rank = 0;       // of the state's ranks
  std::int64_t end = -1;      // number of the first draw that is no longer wanted; -1: endless
};
LoaderOptions loader_options(const DataConfig& data, std::size_t rank);

// What became of the draws behind the batches that were taken.
struct LoaderReport {
  std::int64_t samples = 0;          // documents in batches
  std::int64_t bad = 0;              // draws that could not be read
  std::int64_t truncated = 0;        // documents cut to max_length
  std::int64_t skipped_long = 0;     // documents left out because they are longer
  std::vector<std::string> reasons;  // "file:line: reason" of the first kMostReasons bad ones
  static constexpr std::size_t kMostReasons = 20;
  friend bool operator==(const LoaderReport&, const LoaderReport&) = default;
};

class Loader {
 public:
  // Error kInvalidArgument when the state is not one of these sources.
  Loader(std::vector<Source> sources, std::shared_ptr<const SampleRules> rules, const LoaderOptions& options,
         const DataState& state);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // The next batch; empty at the end. Error: the first bad sample with on_bad = fail (kCorrupt, with its place), or
  // when ten thousand draws in a row, or a whole epoch, were bad.
  std::optional<PackedBatch> next();
  // After the batch that next() gave last: with it a new loader goes on exactly there. Only this rank's share of `used`
  // is known here; a run of several ranks gathers them, then calls compact().
  const DataState& state() const;
  const LoaderReport& report() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gov::train
