#pragma once
// How much context and how many blocks of cache an engine gets, from its options and the memory there is.

#include "engine/engine.h"
#include "engine/scheduler.h"

namespace gov {

struct CacheSize {
  EngineOptions options;  // with the defaults filled in
  KvCacheSpec spec;
  MemoryPlan plan;
};

SchedulerLimits scheduler_limits(const EngineOptions& options);

// Error kInvalidArgument for an option out of range; kOutOfMemory when not even one sequence of the wanted context
// fits, or with context 0 one of 1,024 tokens (the model's maximum, if that is less).
CacheSize choose_cache_size(const Model& model, const EngineOptions& options);

}  // namespace gov
