#include "engine/model_runner.h"

#include <algorithm>

#include "engine/prompt_rows.h"

namespace gov {

namespace {

Stream stream_for(const Model& model) {
  if (model.device == DeviceKind::kCpu) return {};
  use_cuda_device(model.ordinal);
  return Stream::create();
}

Context context_for(const Model& model, const Stream& stream) {
  return model.device == DeviceKind::kCpu ? Context() : Context(model.ordinal, stream.get());
}

}  // namespace

ModelRunner::ModelRunner(const Model& model, const Plan& plan, ThreadPool& pool)
    : model_(model),
      stream_(stream_for(model)),
      ctx_(context_for(model, stream_)),
      cache_(model.config, plan.spec, model.device),
      acts_(model.config, Scheduler::most_rows(plan.limits), Scheduler::most_logits(plan.limits),
            {model.device, plan.dtype}) {
  ctx_.pool = &pool;
  const Config& c = model.config;
  Tensor& load = acts_.expert_load;
  load = Tensor(nullptr, DType::kI64, {2, c.num_hidden_layers, c.num_local_experts}, "expert load", model.device);
  expert_load_ = Buffer(load.bytes(), model.device, "expert load");
  load.data = expert_load_.data();
  fill_bytes(load.data, model.device, 0, load.bytes(), ctx_.stream);
  if (c.use_vision) {
    const std::int64_t images = most_images(model.device);
    vision_acts_.emplace(c, images, Place{model.device, plan.dtype});
    const std::int64_t side = c.vision.image_size;
    const auto floats = [](std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); };
    pixels_ = Buffer(floats(images * c.vision.num_channels * side * side), model.device, "pixel values");
    embeds_ = Buffer(floats(images * c.vision.tokens() * c.hidden_size), model.device, "image embeddings");
  }
  if (model.device == DeviceKind::kCpu) return;
  const std::int64_t max_blocks = full_blocks_needed(plan.spec, plan.context);
  uploader_.emplace(Scheduler::most_rows(plan.limits), plan.limits.max_sequences, max_blocks, c.hidden_size);
  decode_.emplace(model, cache_, acts_, plan.limits.max_sequences, max_blocks, plan.decode_path);
}

void ModelRunner::read_expert_load(ExpertLoad& load) {
  const Tensor& counts = acts_.expert_load;
  for (std::vector<std::int64_t>* part : {&load.text, &load.image}) {
    const Tensor from = counts.slice(part == &load.text ? 0 : 1, 1);
    part->resize(static_cast<std::size_t>(from.elements()));
    copy_bytes(part->data(), DeviceKind::kCpu, from.data, from.device, from.bytes(), ctx_.stream);
  }
  if (ctx_.on_cuda()) synchronize(ctx_.stream);
}

std::int64_t ModelRunner::encode_images(const ScheduledRows& rows) {
  RequestState& state = *rows.sequence->request;
  const std::int64_t tokens = model_.config.vision.tokens();
  std::vector<std::size_t> missing;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const std::int32_t image_row = rows.sequence->image_row(row);
    if (image_row < 0) continue;
    const std::size_t image = static_cast<std::size_t>(image_row / tokens);
    if (state.image_embeds[image].data() || (!missing.empty() && missing.back() == image)) continue;
    missing.push_back(image);
  }
  const std::size_t most = missing.empty() ? 1 : static_cast<std::size_t>(vision_acts_->max_images);
  for (std::size_t begin = 0; begin < missing.size(); begin += most)
    encode(state, std::span(missing).subspan(begin, std::min(most, missing.size() - begin)));
  return static_cast<std::int64_t>(missing.size());
}

void ModelRunner::encode(RequestState& state, std::span<const std::size_t> images) {
  const VisionConfig& vision = model_.config.vision;
  const auto count = static_cast<std::int64_t>(images.size());
  const Tensor pixels(pixels_.data(), DType::kF32, {count, vision.num_channels, vision.image_size, vision.image_size},
                      "pixel_values", model_.device);
  const Tensor embeds(embeds_.data(), DType::kF32, {count * vision.tokens(), model_.config.hidden_size},
                      "vision_embeds", model_.device);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::vector<float>& values = state.request.images[images[static_cast<std::size_t>(i)]];
    const Tensor at = pixels.slice(i, 1);
    copy_bytes(at.data, model_.device, values.data(), DeviceKind::kCpu, at.bytes(), ctx_.stream);
  }
  gov::encode_images(ctx_, model_, pixels, *vision_acts_, embeds);
  for (std::int64_t i = 0; i < count; ++i) {
    const Tensor from = embeds.slice(i * vision.tokens(), vision.tokens());
    Buffer own(from.bytes(), model_.device, "image embeddings");
    copy_bytes(own.data(), model_.device, from.data, model_.device, from.bytes(), ctx_.stream);
    state.image_embeds[images[static_cast<std::size_t>(i)]] = std::move(own);
  }
  if (ctx_.on_cuda()) synchronize(ctx_.stream);  // the pixels were read, and an error belongs to this request
  for (const std::size_t image : images) state.request.images[image] = {};
}

std::vector<Drawn> ModelRunner::run(const Step& step, const BlockManager& blocks) {
  copy_blocks(step.copies);
  std::int64_t longest = 0;
  for (const ScheduledRows& rows : step.rows) longest = std::max(longest, rows.end);
  batch_.clear(full_blocks_needed(cache_.spec(), longest));
  for (const ScheduledRows& rows : step.rows) add_rows(rows, blocks);
  const Batch batch = uploader_ ? uploader_->upload(batch_, ctx_.stream) : batch_.view(model_.config.hidden_size);
  forward(ctx_, model_, batch, cache_, acts_);
  return sample(step);
}

void ModelRunner::read_prompts(const Step& step) {
  std::int64_t first = 0;
  for (const ScheduledRows& rows : step.rows) {
    if (rows.sequence->request->reads_prompt()) read_prompt_rows(ctx_, model_, acts_, rows, first);
    first += rows.end - rows.begin;
  }
}

bool ModelRunner::can_start(const Step& step) const {
  return decode_ && !step.rows.empty() && !ctx_.trace &&
         std::all_of(step.rows.begin(), step.rows.end(), [](const ScheduledRows& rows) {
           return rows.sample && rows.end - rows.begin == 1 && rows.sequence->image_row(rows.begin) < 0;
         });
}

void ModelRunner::start(const Step& step, const BlockManager& blocks, bool ahead) {
  copy_blocks(step.copies);
  std::vector<DecodeRow> rows;
  Started started{{}, turn_ ^= 1};
  for (const ScheduledRows& scheduled : step.rows) {
    Sequence& s = *scheduled.sequence;
    const std::int64_t position = scheduled.begin;
    const auto used = static_cast<std::size_t>(full_blocks_needed(cache_.spec(), position + 1));
    rows.push_back({ahead ? 0 : s.token(position), static_cast<std::int32_t>(position),
                    blocks.full_slot(s.blocks, position), blocks.sliding_slot(s.blocks, position),
                    std::span(s.blocks.full).first(used), std::span(s.blocks.sliding).first(used)});
    started.sequences.push_back(scheduled.sequence);
  }
  ops::DeviceSampler& sampler = samplers_[started.sampler];
  decode_->set(ctx_, rows, ahead);
  decode_->run(ctx_);
  std::vector<ops::SampleRow> sample_rows;  // now: masks are made while the device works
  for (Sequence* const s : started.sequences) sample_rows.push_back(sample_row(*s, ahead ? 1 : 0));
  sampler.upload(ctx_, sample_rows);
  sampler.launch(ctx_, acts_.logits.slice(0, static_cast<std::int64_t>(rows.size())), decode_->tokens());
  sampler.send(ctx_);
  started_.push_back(std::move(started));
}

std::vector<Drawn> ModelRunner::finish() {
  const Started started = std::move(started_.front());
  started_.pop_front();
  std::vector<ops::SampleResult> results(started.sequences.size());
  samplers_[started.sampler].read(ctx_, results);
  std::vector<Drawn> drawn;
  for (std::size_t i = 0; i < results.size(); ++i) drawn.push_back({started.sequences[i], results[i]});
  return drawn;
}

void ModelRunner::add_rows(const ScheduledRows& rows, const BlockManager& blocks) {
  const Sequence& s = *rows.sequence;
  const std::int64_t per_image = model_.config.vision.tokens();
  const std::size_t used = static_cast<std::size_t>(full_blocks_needed(cache_.spec(), rows.end));
  // Full blocks may be reserved further ahead than this step goes.
  batch_.begin_sequence(static_cast<std::int32_t>(rows.end), std::span(s.blocks.full).first(used),
                        std::span(s.blocks.sliding).first(used));
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    ImageRow image;
    if (const std::int32_t image_row = s.image_row(row); image_row >= 0) {
      const Buffer& embeds = s.request->image_embeds[static_cast<std::size_t>(image_row / per_image)];
      image = {static_cast<const float*>(embeds.data()), image_row % per_image};
    }
    batch_.add_row(s.token(row), static_cast<std::int32_t>(row), blocks.full_slot(s.blocks, row),
                   blocks.sliding_slot(s.blocks, row), image);
    if (rows.sample && row + 1 + rows.guessed >= rows.end) batch_.want_logits();
  }
}

ops::SampleRow ModelRunner::sample_row(Sequence& sequence, std::int64_t ahead) {
  if (sequence.constrained()) {
    const Timer timer;
    sequence.prepare_draw();
    mask_seconds_ += timer.seconds();
  }
  return sequence.sample_row(ahead);
}

std::vector<Drawn> ModelRunner::sample(const Step& step) {
  std::vector<DrawFrom> from;
  std::int64_t next = 0;
  for (const ScheduledRows& rows : step.rows) {
    if (!rows.sample) continue;
    from.push_back({rows.sequence, next, rows.guessed});
    next += 1 + rows.guessed;
  }
  return draw(from);
}

std::vector<Drawn> ModelRunner::draw(std::span<const DrawFrom> from) {
  std::vector<Drawn> drawn;
  std::vector<ops::SampleRow> rows;
  std::vector<ops::SampleResult> results(from.size());
  for (const DrawFrom& f : from) rows.push_back(sample_row(*f.sequence, 0));
  for (std::size_t begin = 0; begin < from.size();) {  // rows that stand beside each other at once
    std::size_t end = begin + 1;
    while (end < from.size() && from[end].logits_row == from[end - 1].logits_row + 1) ++end;
    ops::sample(ctx_, acts_.logits.slice(from[begin].logits_row, static_cast<std::int64_t>(end - begin)),
                std::span(rows).subspan(begin, end - begin), std::span(results).subspan(begin, end - begin));
    begin = end;
  }
  for (std::size_t i = 0; i < from.size(); ++i)
    drawn.push_back({from[i].sequence, results[i], from[i].logits_row, from[i].guessed});
  return drawn;
}

void ModelRunner::copy_blocks(std::span<const BlockCopy> copies) {
  for (const BlockCopy& copy : copies) {
    for (std::int64_t layer = 0; layer < model_.config.num_hidden_layers; ++layer) {
      if (model_.config.is_sliding(layer) != copy.sliding) continue;
      for (const Tensor& cache : {cache_.layer(layer).k, cache_.layer(layer).v}) {
        const Tensor from = cache.slice(copy.from, 1), to = cache.slice(copy.to, 1);
        copy_bytes(to.data, to.device, from.data, from.device, from.bytes(), ctx_.stream);
      }
    }
  }
}

void ModelRunner::poison_free_blocks(const BlockManager& blocks) {
  for (std::int64_t layer = 0; layer < model_.config.num_hidden_layers; ++layer) {
    const BlockPool& pool = model_.config.is_sliding(layer) ? blocks.sliding() : blocks.full();
    for (std::int32_t block = 0; block < pool.size(); ++block) {
      if (!pool.is_free(block)) continue;
      // All bits set is NaN in every type of the cache.
      for (const Tensor& cache : {cache_.layer(layer).k, cache_.layer(layer).v}) {
        const Tensor rows = cache.slice(block, 1);
        fill_bytes(rows.data, rows.device, 0xff, rows.bytes(), ctx_.stream);
      }
    }
  }
}

}  // namespace gov
