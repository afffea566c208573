#pragma once
// RunState: where a run stands, beside its tensors; what a checkpoint's state.json holds.

#include <optional>
#include <string>
#include <string_view>

#include "train/draw_order.h"

namespace gov::train {

struct RunState {
  std::int64_t step = 0;              // steps done, those without an update included
  std::int64_t updates = 0;           // of the weights
  std::int64_t skipped = 0;           // steps without an update
  std::int64_t skipped_in_a_row = 0;  // the last of them, up to now
  std::int64_t rows = 0, samples = 0;
  double seconds = 0;  // of training
  std::optional<double> best_eval;
  std::int64_t stale_evals = 0;  // evaluations since then
  DataState data;

  std::string json() const;
  // Error kCorrupt naming the member.
  static RunState from_json(std::string_view text);
  friend bool operator==(const RunState&, const RunState&) = default;
};

}  // namespace gov::train
