// gpt-oss-vision debug forward: drives the model directly, all rows of all sequences in one packed batch, and writes
// what passes its trace points.

#include <algorithm>

#include "cli/debug.h"
#include "cli/debug_files.h"
#include "model/losses.h"

namespace gov::cli {
namespace {

// F32 values in memory of their own where the context computes.
struct Rows {
  Buffer memory;
  Tensor t;
};

Rows make_rows(const Context& ctx, Shape shape, std::string_view name) {
  Rows rows{Buffer(static_cast<std::size_t>(shape.elements()) * sizeof(float), ctx.device, name), {}};
  rows.t = Tensor(rows.memory.data(), DType::kF32, shape, name, ctx.device);
  return rows;
}

std::vector<float> to_host(const Context& ctx, const Tensor& t) {
  std::vector<float> values(static_cast<std::size_t>(t.elements()));
  copy_bytes(values.data(), DeviceKind::kCpu, t.data, t.device, t.bytes(), ctx.stream);
  if (ctx.on_cuda()) synchronize(ctx.stream);
  return values;
}

// The image rows [B * n, H], empty without pictures.
Rows encode(Context& ctx, const Model& model, DType dtype, const Inputs& in, Results& results) {
  if (in.pixels.empty()) return {};
  const Config& c = model.config;
  const std::int64_t side = c.vision.image_size, n = c.vision.tokens();
  VisionActivations acts(c, in.batch, {ctx.device, dtype});
  const Rows pixels = make_rows(ctx, {in.batch, 3, side, side}, "pixel_values");
  copy_bytes(pixels.t.data, ctx.device, in.pixels.data(), DeviceKind::kCpu, pixels.t.bytes(), ctx.stream);
  Rows rows = make_rows(ctx, {in.batch * n, c.hidden_size}, "vision_embeds");
  encode_images(ctx, model, pixels.t, acts, rows.t);
  put_result<float>(results, "vision_embeds", Shape{in.batch, n, c.hidden_size}, to_host(ctx, rows.t));
  return rows;
}

// Fills `builder` with all rows: per sequence its image rows, then its text. Every sequence has its own run of blocks.
void build_batch(BatchBuilder& builder, const Inputs& in, const float* image_rows, const KvCacheSpec& spec,
                 std::int64_t rows) {
  const std::int64_t image = rows - in.text, blocks = full_blocks_needed(spec, rows);
  builder.clear(blocks);
  for (std::int64_t b = 0; b < in.batch; ++b) {
    std::vector<std::int32_t> table;
    for (std::int64_t i = 0; i < blocks; ++i) table.push_back(static_cast<std::int32_t>(b * blocks + i));
    builder.begin_sequence(static_cast<std::int32_t>(rows), table, table);
    for (std::int64_t s = 0; s < rows; ++s) {
      const std::int64_t slot = b * blocks * spec.block_size + s;
      const ImageRow image_row = s < image ? ImageRow{image_rows, b * image + s} : ImageRow{};
      const std::int32_t token =
          s < image ? 0 : static_cast<std::int32_t>(in.ids[static_cast<std::size_t>(b * in.text + s - image)]);
      builder.add_row(token, static_cast<std::int32_t>(s), slot, slot, image_row);
      builder.want_logits();
    }
  }
}

// Copies what passes a trace point: [B * S, width] becomes [B, S, width], indices become I64.
void record(Results& results, std::string_view name, const Tensor& value, std::int64_t batch, std::int64_t rows) {
  if (name == "vision_embeds") return;
  const Shape shape{batch, rows, value.elements() / (batch * rows)};
  if (value.dtype == DType::kI32) {
    const std::vector<std::int64_t> wide(value.as<std::int32_t>(), value.as<std::int32_t>() + value.elements());
    put_result<std::int64_t>(results, std::string(name), shape, wide);
  } else {
    put_result<float>(results, std::string(name), shape,
                      std::span<const float>(value.as<float>(), static_cast<std::size_t>(value.elements())));
  }
}

void run_model(Context& ctx, const Model& model, const EngineOptions& types, const Inputs& in, Results& results) {
  const Config& c = model.config;
  const Rows image_rows = encode(ctx, model, types.dtype, in, results);
  const std::int64_t rows = in.text + (in.pixels.empty() ? 0 : c.vision.tokens());
  KvCacheSpec spec;
  spec.block_size = types.block_size;
  spec.dtype = types.kv_dtype;
  const std::int64_t blocks = full_blocks_needed(spec, rows);
  spec.full_blocks = spec.sliding_blocks = in.batch * blocks;
  const KvCache cache(c, spec, ctx.device);
  Activations acts(c, in.batch * rows, in.batch * rows, {ctx.device, types.dtype});
  BatchBuilder builder;
  build_batch(builder, in, static_cast<const float*>(image_rows.memory.data()), spec, rows);
  ctx.trace = [&](std::string_view name, const Tensor& value) { record(results, name, value, in.batch, rows); };
  if (ctx.on_cuda()) {
    BatchUploader uploader(in.batch * rows, in.batch, blocks, c.hidden_size);
    forward(ctx, model, uploader.upload(builder, ctx.stream), cache, acts);
    synchronize(ctx.stream);
  } else {
    forward(ctx, model, builder.view(c.hidden_size), cache, acts);
  }
  ctx.trace = {};
  put_result<float>(results, "logits", Shape{in.batch, rows, c.vocab_size},
                    to_host(ctx, acts.logits.slice(0, in.batch * rows)));
}

const Result& find(const Results& results, const std::string& name) {
  const auto found = results.find(name);
  if (found == results.end()) fail(ErrorCode::kUnsupported, "the model did not trace {}", name);
  return found->second;
}

// ctx: of the CPU, where the traced values are.
void add_losses(Context& ctx, const Model& model, const Inputs& in, Results& results) {
  const Config& c = model.config;
  const Result& logits = find(results, "logits");
  const Tensor logits_view(const_cast<std::byte*>(logits.bytes.data()), DType::kF32, logits.shape, "logits");
  const auto loss =
      static_cast<float>(text_loss(ctx, logits_view, in.ids, in.loss_mask, in.pixels.empty() ? 0 : c.vision.tokens()));
  std::vector<float> router;
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const Result& layer = find(results, fmt::format("router_logits.{}", i));
    const auto* values = reinterpret_cast<const float*>(layer.bytes.data());
    router.insert(router.end(), values, values + layer.shape.elements());
  }
  const auto aux = static_cast<float>(load_balancing_loss(router, c.num_local_experts, c.num_experts_per_tok));
  put_result<float>(results, "loss", Shape{1}, std::span(&loss, 1));
  put_result<float>(results, "aux_loss", Shape{1}, std::span(&aux, 1));
}

// Greedy continuations of the first text tokens of every row, through the engine, as a user would get them.
void add_generated(const DebugForwardOptions& o, const Model& model, EngineOptions options, const Inputs& in,
                   ThreadPool& pool, CpuIsa isa, Results& results) {
  if (o.generate == 0) return;
  const Config& c = model.config;
  const std::int64_t prompt = std::min(o.generate_prompt, in.text);
  options.context = prompt + o.generate + (in.pixels.empty() ? 0 : c.vision.tokens()) + 1;
  options.max_sequences = in.batch;
  Engine engine(model, nullptr, {}, options, pool);
  engine.context().isa = isa;
  std::vector<Request> requests;
  for (std::int64_t b = 0; b < in.batch; ++b) {
    Request request;
    request.prompt.assign(in.ids.begin() + b * in.text, in.ids.begin() + b * in.text + prompt);
    if (!in.pixels.empty()) {
      const auto size = static_cast<std::int64_t>(in.pixels.size()) / in.batch;
      request.images.emplace_back(in.pixels.begin() + b * size, in.pixels.begin() + (b + 1) * size);
    }
    request.options.sampling.temperature = 0;
    request.options.max_new_tokens = o.generate;
    request.options.ignore_eos = true;
    requests.push_back(std::move(request));
  }
  std::vector<std::int64_t> ids;
  for (std::int64_t b = 0; const RequestResult& result : generate(engine, std::move(requests))) {
    ids.insert(ids.end(), in.ids.begin() + b * in.text, in.ids.begin() + b * in.text + prompt);
    const auto& tokens = result.choices.front().tokens;
    ids.insert(ids.end(), tokens.begin(), tokens.end());
    ++b;
  }
  put_result<std::int64_t>(results, "generated_ids", Shape{in.batch, prompt + o.generate}, ids);
}

}  // namespace

int run_debug_forward(const Program& program, const DebugForwardOptions& o) {
  const Machine machine = choose_machine(o.common);
  const EngineOptions options = engine_options(o.common, machine);
  ThreadPool pool(o.common.threads);
  const Model model = place_model(load_model(resolve_model(o.common.model, program), pool, make_log(o.common)),
                                  o.common, options, machine, pool);
  const Inputs in = read_inputs(o.inputs, model.config);
  Workplace place(machine, pool, choose_isa(o.common)), host({}, pool, choose_isa(o.common));
  place.ctx.cancel = program.cancel;
  Results results;
  run_model(place.ctx, model, options, in, results);
  put_result<float>(results, "inv_freq", Shape{static_cast<std::int64_t>(model.inv_freq.size())}, model.inv_freq);
  add_losses(host.ctx, model, in, results);
  add_generated(o, model, options, in, pool, host.ctx.isa, results);
  write_results(o.output, results);
  return 0;
}

}  // namespace gov::cli
