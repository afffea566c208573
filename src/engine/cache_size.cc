#include "engine/cache_size.h"

#include <algorithm>
#include <limits>

#include "base/cpu_info.h"
#include "engine/model_runner.h"
#include "model/fused_decode.h"
#include "tensor/device.h"

namespace gov {
namespace {

// The largest value in [low, high] that fits, given that `low` does and that a smaller value fits if a larger one does.
template <class Fits>
std::int64_t largest_that_fits(std::int64_t low, std::int64_t high, Fits&& fits) {
  while (low < high) {
    const std::int64_t middle = low + (high - low + 1) / 2;
    if (fits(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}

void check_range(const char* name, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value < low || value > high) {
    fail(ErrorCode::kInvalidArgument, "engine option {} is {}, it must be {} to {}", name, value, low, high);
  }
}

void check_types(DeviceKind device, const EngineOptions& o) {
  const bool gpu = device != DeviceKind::kCpu;
  if (o.dtype != DType::kF32 && !(gpu && o.dtype == DType::kBF16)) {
    fail(ErrorCode::kInvalidArgument, "engine option dtype is {}, it must be {}", dtype_name(o.dtype),
         gpu ? "f32 or bf16" : "f32");
  }
  if (o.kv_dtype != DType::kF32 && o.kv_dtype != DType::kBF16 && !(gpu && o.kv_dtype == DType::kF8E4M3)) {
    fail(ErrorCode::kInvalidArgument, "engine option kv_dtype is {}, it must be {}", dtype_name(o.kv_dtype),
         gpu ? "f32, bf16 or f8_e4m3" : "f32 or bf16");
  }
}

void check_options(const Config& config, DeviceKind device, const EngineOptions& o) {
  check_range("context", o.context, 0, config.max_position_embeddings);
  check_range("max_sequences", o.max_sequences, 1, 4096);
  check_range("chunk", o.chunk, 1, 65536);
  check_range("block_size", o.block_size, 8, 1024);
  check_range("draft_tokens", o.draft_tokens, 0, 64);
  if (o.block_size % 8 != 0) {  // ops::attention reads keys by eights
    fail(ErrorCode::kInvalidArgument, "engine option block_size is {}, it must be a multiple of 8", o.block_size);
  }
  if (!(o.snapshot_share >= 0 && o.snapshot_share <= 1)) {
    fail(ErrorCode::kInvalidArgument, "engine option snapshot_share is {}, it must be 0 to 1", o.snapshot_share);
  }
  check_types(device, o);
}

// The plan for a context and a number of blocks.
struct Planner {
  const Model& model;
  const EngineOptions& options;
  std::uint64_t limit;
  WeightForms forms;
  std::uint64_t decode_bytes;  // of the decode step itself
  std::int64_t chunk;          // rows of the largest step

  KvCacheSpec one_sequence(std::int64_t context) const {
    KvCacheSpec spec{options.block_size, 0, 0, options.kv_dtype};
    spec.full_blocks = full_blocks_needed(spec, context);
    spec.sliding_blocks = sliding_blocks_needed(spec, model.config, context, chunk);
    return spec;
  }
  MemoryPlan plan(std::int64_t context, const KvCacheSpec& spec) const {
    RunShape shape;
    shape.context = context;
    shape.sequences = options.max_sequences;
    shape.logits_rows = Scheduler::most_logits(scheduler_limits(options));
    shape.chunk = chunk;
    shape.images = ModelRunner::most_images(model.device);
    shape.kv_dtype = options.kv_dtype;
    shape.block_size = options.block_size;
    shape.place = {model.device, options.dtype};
    MemoryPlan plan = plan_memory(model.config, model.weights.mapped_bytes, model.weights.owned_bytes, shape, limit);
    plan.forms = forms;
    plan.workspace += decode_bytes;
    plan.kv_cache = kv_cache_bytes(model.config, spec);
    return plan;
  }
  bool fits(std::int64_t context, const KvCacheSpec& spec) const { return plan(context, spec).total() <= limit; }
};

// Sliding blocks for the windows that the prefix cache keeps: up to eight windows a sequence.
void add_snapshots(const Planner& planner, std::int64_t context, std::int64_t sequences, KvCacheSpec& spec) {
  constexpr std::int64_t kSnapshots = 8;
  const std::int64_t window = full_blocks_needed(spec, planner.model.config.sliding_window) + 1;
  const std::uint64_t used = planner.plan(context, spec).total(), left = planner.limit - std::min(planner.limit, used);
  const auto share = static_cast<std::uint64_t>(planner.options.snapshot_share * static_cast<double>(left));
  const std::int64_t most = std::min(sequences * kSnapshots, full_blocks_needed(spec, context) * sequences) * window;
  spec.sliding_blocks += largest_that_fits(0, most, [&](std::int64_t count) {
    KvCacheSpec larger = spec;
    larger.sliding_blocks += count;
    return planner.plan(context, larger).total() <= used + share;
  });
}

// Up to `sequences` times the blocks of one sequence: first of the sliding pool, which is small, then of the full one.
KvCacheSpec most_blocks(const Planner& planner, std::int64_t context, std::int64_t sequences) {
  constexpr std::int64_t kMostBlocks = std::numeric_limits<std::int32_t>::max();  // block numbers are 32 bits
  KvCacheSpec spec = planner.one_sequence(context);
  const auto grow = [&](std::int64_t& blocks) {
    const std::int64_t high = std::min(kMostBlocks, blocks * sequences);
    blocks = largest_that_fits(blocks, high, [&](std::int64_t count) {
      KvCacheSpec larger = spec;
      (&blocks == &spec.full_blocks ? larger.full_blocks : larger.sliding_blocks) = count;
      return planner.fits(context, larger);
    });
  };
  grow(spec.sliding_blocks);
  if (planner.options.prefix_cache) add_snapshots(planner, context, sequences, spec);
  grow(spec.full_blocks);
  return spec;
}

}  // namespace

SchedulerLimits scheduler_limits(const EngineOptions& o) {
  constexpr std::int64_t kDrafting = 4;  // guesses pay while few sequences decode
  return {o.max_sequences, o.chunk, o.prefix_cache, o.draft_tokens * std::min(kDrafting, o.max_sequences)};
}

CacheSize choose_cache_size(const Model& model, const EngineOptions& options) {
  constexpr std::int64_t kLeastContext = 1024, kLeastChunk = 512;
  const bool gpu = model.device != DeviceKind::kCpu;
  check_options(model.config, model.device, options);
  CacheSize size;
  size.options = options;
  // What the weights own is taken already: it is part of the plan, but no longer of what is available.
  if (options.memory_limit == 0) {
    if (gpu) use_cuda_device(model.ordinal);
    size.options.memory_limit = (gpu ? cuda_free_memory() : available_memory()) + model.weights.owned_bytes;
  }
  const std::int64_t longest = model.config.max_position_embeddings;
  const std::int64_t least = options.context > 0 ? options.context : std::min(kLeastContext, longest);
  const auto rows = [&](std::int64_t chunk) { return Scheduler::most_rows({options.max_sequences, chunk}); };
  const bool fused = gpu && options.decode_path != "ops" && fused_decode_supported(model);
  const bool eight_bit = options.decode_path == "fused-int8";
  Planner planner{model,
                  options,
                  size.options.memory_limit,
                  gpu ? weight_forms(model.config, model.weights) : WeightForms{},
                  fused ? fused_decode_bytes(model.config, eight_bit) : 0,
                  rows(options.chunk)};
  const std::int64_t wanted = options.context > 0 ? least : longest;
  while (gpu && size.options.chunk / 2 >= kLeastChunk && !planner.fits(wanted, planner.one_sequence(wanted))) {
    size.options.chunk /= 2;
    planner.chunk = rows(size.options.chunk);
  }
  require_fits(planner.plan(least, planner.one_sequence(least)));
  size.options.context = least;
  if (options.context == 0) {
    size.options.context = largest_that_fits(
        least, longest, [&](std::int64_t context) { return planner.fits(context, planner.one_sequence(context)); });
  }
  size.spec = most_blocks(planner, size.options.context, options.max_sequences);
  size.plan = planner.plan(size.options.context, size.spec);
  return size;
}

}  // namespace gov
