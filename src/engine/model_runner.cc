#include "engine/model_runner.h"

#include <cstring>

namespace gov {

ModelRunner::ModelRunner(const Model& model, const KvCacheSpec& spec, const SchedulerLimits& limits, ThreadPool& pool)
    : model_(model),
      cache_(model.config, spec),
      acts_(model.config, Scheduler::most_rows(limits), limits.max_sequences) {
  ctx_.pool = &pool;
  if (model.config.use_vision) vision_acts_.emplace(model.config, 1);
}

std::int64_t ModelRunner::encode_images(const ScheduledRows& rows) {
  RequestState& state = *rows.sequence->request;
  const VisionConfig& vision = model_.config.vision;
  const std::int64_t side = vision.image_size, tokens = vision.tokens(), hidden = model_.config.hidden_size;
  std::int64_t encoded = 0;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const std::int32_t image_row = rows.sequence->image_row(row);
    if (image_row < 0) continue;
    const std::size_t image = static_cast<std::size_t>(image_row / tokens);
    if (!state.image_embeds[image].empty()) continue;
    std::vector<float>& pixels = state.request.images[image];
    std::vector<float> embeds(static_cast<std::size_t>(tokens * hidden));
    gov::encode_images(ctx_, model_, Tensor::of(pixels.data(), {1, vision.num_channels, side, side}, "pixel_values"),
                       *vision_acts_, Tensor::of(embeds.data(), {tokens, hidden}, "vision_embeds"));
    state.image_embeds[image] = std::move(embeds);
    pixels = {};
    ++encoded;
  }
  return encoded;
}

std::vector<Drawn> ModelRunner::run(const Step& step, const BlockManager& blocks) {
  for (const BlockCopy& copy : step.copies) copy_block(copy);
  std::int64_t longest = 0;
  for (const ScheduledRows& rows : step.rows) longest = std::max(longest, rows.end);
  batch_.clear(full_blocks_needed(cache_.spec(), longest));
  for (const ScheduledRows& rows : step.rows) add_rows(rows, blocks);
  forward(ctx_, model_, batch_.view(model_.config.hidden_size), cache_, acts_);
  return sample(step);
}

void ModelRunner::add_rows(const ScheduledRows& rows, const BlockManager& blocks) {
  const Sequence& s = *rows.sequence;
  const std::int64_t hidden = model_.config.hidden_size, per_image = model_.config.vision.tokens();
  const std::size_t used = static_cast<std::size_t>(full_blocks_needed(cache_.spec(), rows.end));
  // Full blocks may be reserved further ahead than this step goes.
  batch_.begin_sequence(static_cast<std::int32_t>(rows.end), std::span(s.blocks.full).first(used),
                        std::span(s.blocks.sliding).first(used));
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const float* embed = nullptr;
    if (const std::int32_t image_row = s.image_row(row); image_row >= 0) {
      const std::vector<float>& embeds = s.request->image_embeds[static_cast<std::size_t>(image_row / per_image)];
      embed = embeds.data() + (image_row % per_image) * hidden;
    }
    batch_.add_row(s.token(row), static_cast<std::int32_t>(row), blocks.full_slot(s.blocks, row),
                   blocks.sliding_slot(s.blocks, row), embed, hidden);
  }
  if (rows.sample) batch_.want_logits();
}

std::vector<Drawn> ModelRunner::sample(const Step& step) {
  std::vector<Drawn> drawn;
  std::vector<ops::SampleRow> sample_rows;
  for (const ScheduledRows& rows : step.rows) {
    if (!rows.sample) continue;
    drawn.push_back({rows.sequence, {}});
    sample_rows.push_back(rows.sequence->sample_row());
  }
  if (drawn.empty()) return drawn;
  ops::SampleResult none;
  none.token = -1;
  std::vector<ops::SampleResult> results(drawn.size(), none);
  try {
    ops::sample(ctx_, acts_.logits.slice(0, static_cast<std::int64_t>(drawn.size())), sample_rows, results);
  } catch (const Error& error) {
    // Rows without a finite logit have token -1; the others are drawn.
    if (error.code() != ErrorCode::kDevice) throw;
  }
  for (std::size_t i = 0; i < drawn.size(); ++i) drawn[i].result = results[i];
  return drawn;
}

void ModelRunner::copy_block(const BlockCopy& copy) {
  for (std::int64_t layer = 0; layer < model_.config.num_hidden_layers; ++layer) {
    if (model_.config.is_sliding(layer) != copy.sliding) continue;
    for (const Tensor& cache : {cache_.layer(layer).k, cache_.layer(layer).v}) {
      const Tensor from = cache.slice(copy.from, 1), to = cache.slice(copy.to, 1);
      std::memcpy(to.data, from.data, from.bytes());
    }
  }
}

void ModelRunner::poison_free_blocks(const BlockManager& blocks) {
  for (std::int64_t layer = 0; layer < model_.config.num_hidden_layers; ++layer) {
    const BlockPool& pool = model_.config.is_sliding(layer) ? blocks.sliding() : blocks.full();
    for (std::int32_t block = 0; block < pool.size(); ++block) {
      if (pool.owners(block) > 0) continue;
      // All bits set is NaN in F32 and in BF16.
      for (const Tensor& cache : {cache_.layer(layer).k, cache_.layer(layer).v}) {
        const Tensor rows = cache.slice(block, 1);
        std::memset(rows.data, 0xff, rows.bytes());
      }
    }
  }
}

}  // namespace gov
