#include "train/config.h"

#include <algorithm>
#include <cmath>

namespace gov::train {

Schedule TrainConfig::schedule_for(std::int64_t total_steps) const {
  std::int64_t warmup = schedule.warmup;
  if (warmup == 0)
    warmup = static_cast<std::int64_t>(std::ceil(schedule.warmup_share * static_cast<double>(total_steps)));
  return {schedule.kind,    optimizer.lr,        std::min(warmup, total_steps), std::max<std::int64_t>(total_steps, 1),
          schedule.minimum, schedule.decay_share};
}

}  // namespace gov::train
