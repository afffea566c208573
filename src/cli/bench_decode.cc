#include "cli/bench_decode.h"

#include <algorithm>
#include <set>

#include "base/philox.h"
#include "cli/format.h"
#include "model/decode.h"
#include "ops/device_only.h"

namespace gov::cli {
namespace {

// Blocks of one sequence: all in full layers, those that the window can see from its first step on in sliding ones.
struct Blocks {
  std::int64_t full, first_sliding;
  std::int64_t sliding() const { return full - first_sliding; }
};

Blocks blocks_of(const Config& c, const DecodeBench& o) {
  const std::int64_t positions = o.context + o.steps + 1;
  return {(positions + o.block_size - 1) / o.block_size,
          std::max<std::int64_t>(0, o.context + 1 - c.sliding_window) / o.block_size};
}

struct Sequences {
  std::vector<std::vector<std::int32_t>> full, sliding;  // block tables
  std::vector<DecodeRow> rows;
};

Sequences make_sequences(const Config& c, const DecodeBench& o) {
  const Blocks blocks = blocks_of(c, o);
  Sequences s;
  s.full.resize(static_cast<std::size_t>(o.batch));
  s.sliding.resize(static_cast<std::size_t>(o.batch));
  for (std::int64_t b = 0; b < o.batch; ++b) {
    auto &full = s.full[static_cast<std::size_t>(b)], &sliding = s.sliding[static_cast<std::size_t>(b)];
    for (std::int64_t i = 0; i < blocks.full; ++i) {
      full.push_back(static_cast<std::int32_t>(b * blocks.full + i));
      const std::int64_t window_block = b * blocks.sliding() + i - blocks.first_sliding;
      sliding.push_back(i < blocks.first_sliding ? -1 : static_cast<std::int32_t>(window_block));
    }
    const auto entry = static_cast<std::size_t>(o.context / o.block_size);
    const std::int64_t rest = o.context % o.block_size;
    DecodeRow row;
    const auto random = Philox{o.seed + 2}(static_cast<std::uint64_t>(b))[0];
    row.token = static_cast<std::int32_t>(random % static_cast<std::uint32_t>(c.vocab_size));
    row.position = static_cast<std::int32_t>(o.context);
    row.full_slot = full[entry] * o.block_size + rest;
    row.sliding_slot = sliding[entry] * o.block_size + rest;
    row.full_table = full;
    row.sliding_table = sliding;
    s.rows.push_back(row);
  }
  return s;
}

void fill_cache(Context& ctx, const Config& c, const KvCache& cache) {
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const auto key = static_cast<std::uint64_t>(2 * i);
    ops::fill_random(ctx, cache.layer(i).k, 1.f, key);
    ops::fill_random(ctx, cache.layer(i).v, 1.f, key + 1);
  }
}

// One more step, traced; a fused path has nothing to trace.
std::optional<double> count_experts(Workplace& place, DecodeRunner& runner, const Sequences& sequences,
                                    std::int64_t batch) {
  double touched = 0, layers = 0;
  place.ctx.trace = [&](std::string_view name, const Tensor& value) {
    if (!name.starts_with("router_indices.")) return;
    const auto* indices = value.as<std::int32_t>();
    const std::int64_t chosen = batch * value.shape[1];  // padding follows
    touched += static_cast<double>(std::set<std::int32_t>(indices, indices + chosen).size());
    ++layers;
  };
  runner.set(place.ctx, sequences.rows);
  runner.run(place.ctx);
  place.ctx.trace = {};
  return layers > 0 ? std::optional(touched / layers) : std::nullopt;
}

}  // namespace

DecodeTiming time_decode(Workplace& place, const Model& model, const DecodeBench& o) {
  const Config& c = model.config;
  if (o.context + o.steps + 1 > c.max_position_embeddings) {
    fail(ErrorCode::kContextLength, "{} positions and {} steps are more than the model's {}", o.context, o.steps,
         c.max_position_embeddings);
  }
  Context& ctx = place.ctx;
  const Blocks blocks = blocks_of(c, o);
  const KvCache cache(c, {o.block_size, o.batch * blocks.full, o.batch * blocks.sliding(), o.kv_dtype}, ctx.device);
  fill_cache(ctx, c, cache);
  Activations acts(c, o.batch, o.batch, {ctx.device, o.dtype});
  DecodeRunner runner(model, cache, acts, o.batch, blocks.full, o.path);
  const Sequences sequences = make_sequences(c, o);
  Event begin = Event::create(), end = Event::create();
  std::vector<double> seconds;
  for (std::int64_t i = 0; i <= o.repeat; ++i) {  // the first records the graphs
    runner.set(ctx, sequences.rows);
    synchronize(ctx.stream);
    begin.record(ctx.stream);
    for (std::int64_t step = 0; step < o.steps; ++step) runner.run(ctx, /*feed=*/true);
    end.record(ctx.stream);
    const double taken = end.seconds_since(begin);
    synchronize(ctx.stream);
    if (i > 0) seconds.push_back(taken / static_cast<double>(o.steps));
  }
  return {median(seconds), count_experts(place, runner, sequences, o.batch), runner.path()};
}

}  // namespace gov::cli
