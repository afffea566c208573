#pragma once
// The learning rate of each step.

#include <cstdint>

namespace gov::train {

enum class ScheduleKind { kConstant, kLinear, kCosine, kWsd };

// Steps count from 0. Warm-up: step s < warmup has the share (s + 1) / warmup of the peak. Then, with p = (s - warmup)
// / (total - warmup):
//   constant  1
//   linear    1 - (1 - minimum) p
//   cosine    minimum + (1 - minimum) (1 + cos(pi p)) / 2
//   wsd       1 until the last `decay_share` of all steps, then minimum + (1 - minimum) (1 - sqrt(q)), q the part of
//   the
//             decay that is done (Haegele et al., arXiv 2405.18392)
// From `total` on, the share stays at the end's (p = q = 1).
struct Schedule {
  ScheduleKind kind = ScheduleKind::kCosine;
  double peak = 1e-3;
  std::int64_t warmup = 0;   // steps
  std::int64_t total = 1;    // steps, warm-up included
  double minimum = 0.1;      // of the peak
  double decay_share = 0.2;  // wsd
  double lr(std::int64_t step) const;
};

}  // namespace gov::train
