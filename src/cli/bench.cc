// gpt-oss-vision bench: load, prompt processing, generation and picture encoding, beside what the machine allows.

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <span>

#include "base/json_writer.h"
#include "base/philox.h"
#include "base/timer.h"
#include "cli/bench_decode.h"
#include "cli/bench_limits.h"
#include "cli/common.h"
#include "cli/format.h"
#include "model/memory_plan.h"

namespace gov::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  gpt-oss-vision bench                                        the embedded nano\n"
    "  gpt-oss-vision bench --synthetic mini --prompt 512 --generate 64\n"
    "  gpt-oss-vision bench --model ~/models/gpt-oss-20b --batch 8 --context 1024 --json >> log.jsonl\n"
    "  gpt-oss-vision bench --synthetic gpt_oss_20b --device cuda --prompt 512,8192 --batch 1,32 --context 0,131000\n"
    "  gpt-oss-vision bench --device-limits";

struct BenchOptions {
  CommonOptions common;
  std::string synthetic;
  std::vector<std::int64_t> prompts{512}, batches{1}, contexts{0};
  std::int64_t generate = 64, images = 4, chunk = 0, repeat = 3;
  std::uint64_t seed = 0;
  bool device_limits = false, engine = false;
};

struct Row {
  std::string work;
  std::int64_t batch = 1, context = 0;
  double value = 0;
  std::string unit;
  double limit = 0;    // in the same unit
  double seconds = 0;  // of the median repetition
  Cost cost;           // of that repetition, by the formulas
  bool lower_is_better = false;
  double experts_touched = 0;  // of a decode row on a GPU: counted
  std::string path;            // likewise: how its steps ran
  std::string rest;            // type of the weights but the experts, if not as stored
};

// Reads every byte once, with all threads.
void read_all(std::span<const std::byte> bytes, ThreadPool& pool) {
  constexpr std::int64_t kGrain = 1 << 20;
  const auto words = static_cast<std::int64_t>(bytes.size() / sizeof(std::uint64_t));
  const auto* from = reinterpret_cast<const std::uint64_t*>(bytes.data());
  std::atomic<std::uint64_t> all{0};  // used, so that the reads cannot be left out
  pool.parallel_for(words, kGrain, [&](std::int64_t begin, std::int64_t end, int) {
    std::uint64_t mixed = 0;
    for (std::int64_t i = begin; i < end; ++i) mixed ^= from[i];
    all.fetch_xor(mixed, std::memory_order_relaxed);
  });
}

class Bench {
 public:
  Bench(const BenchOptions& o, const Program& program)
      : o_(o),
        program_(program),
        machine_(choose_machine(o.common)),
        types_(engine_options(o.common, machine_)),
        pool_(o.common.threads),
        isa_(choose_isa(o.common)) {
    if (o.chunk > 0) types_.chunk = o.chunk;
    types_.prefix_cache = false;  // what is measured has to be computed
  }

  int run() {
    if (!o_.device_limits) open_model();
    measure_limits();
    if (o_.device_limits) {
      print_limits();
      return 0;
    }
    for (Row& row : rows_)  // of loading
      row.limit = row.cost.bytes / ((machine_.on_cuda() ? limits_.host_gbps : limits_.read_gbps) * 1e9);
    for (const std::int64_t batch : o_.batches) {
      for (const std::int64_t prompt : o_.prompts) {
        if (prompt > 0) where_it_fits([&] { prefill(batch, prompt); });
      }
    }
    for (const std::int64_t context : o_.contexts) {
      for (const std::int64_t batch : o_.batches) {
        if (o_.generate == 0) continue;
        where_it_fits(
            [&] { machine_.on_cuda() && !o_.engine ? decode_on_device(batch, context) : decode(batch, context); });
      }
    }
    if (model_->config.use_vision && o_.images > 0) encode();
    print();
    return 0;
  }

 private:
  void check_cancel() const {
    if (program_.cancel->load()) fail(ErrorCode::kCancelled, "the benchmark is incomplete");
  }

  // Of several rows those that exceed the memory are left out with a warning.
  template <class Work>
  void where_it_fits(Work&& work) {
    try {
      work();
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kOutOfMemory || o_.batches.size() * o_.contexts.size() * o_.prompts.size() == 1)
        throw;
      make_log(o_.common).warn("{}", error.what());
    }
  }

  void measure_limits() {
    if (!machine_.on_cuda()) {
      limits_ = ops::measure_device_limits(pool_, isa_);
      return;
    }
    Workplace place(machine_, pool_, isa_);
    limits_ = ops::measure_cuda_limits(place.ctx);
  }

  std::int64_t most(const std::vector<std::int64_t>& values) const {
    return *std::max_element(values.begin(), values.end());
  }

  void open_model() {
    const Log log = make_log(o_.common);
    if (!o_.synthetic.empty()) {
      name_ = o_.synthetic;
      const Config config = preset(o_.synthetic);
      EngineOptions options = types_;
      options.context = std::max(most(o_.prompts), most(o_.contexts) + o_.generate);
      options.max_sequences = most(o_.batches);
      if (!machine_.on_cuda()) {
        RunShape shape;
        shape.context = options.context;
        shape.sequences = options.max_sequences;
        shape.chunk = options.chunk;
        shape.kv_dtype = options.kv_dtype;
        const std::uint64_t limit = o_.common.memory_limit > 0 ? o_.common.memory_limit : available_memory();
        require_fits(plan_memory(config, 0, stored_weight_bytes(config), shape, limit));
      }
      const Timer timer;
      model_ = std::make_unique<Model>(place_random_model(config, o_.seed, o_.common, options, machine_, pool_));
      log.info("random weights in {:.2f} s", timer.seconds());
      return;
    }
    const auto folder = resolve_model(o_.common.model, program_);
    name_ = std::filesystem::absolute(folder).lexically_normal().filename().string();
    if (name_.empty()) name_ = folder.string();
    const Timer timer;
    const std::future<void> warm = warm_up(machine_);
    model_ = std::make_unique<Model>(load_model(folder, pool_, log));
    warm.wait();
    const auto file_bytes = static_cast<double>(model_->weights.mapped ? model_->weights.mapped->file_bytes() : 0);
    // Mapping alone costs nothing; a model is loaded when every byte has come into memory.
    if (machine_.on_cuda()) {
      EngineOptions options = types_;
      options.context = std::max(most(o_.prompts), most(o_.contexts) + o_.generate);
      options.max_sequences = most(o_.batches);
      *model_ = place_model(std::move(*model_), o_.common, options, machine_, pool_);
    } else if (model_->weights.mapped) {
      for (const SafetensorsFile& file : model_->weights.mapped->files()) read_all(file.mapped().bytes(), pool_);
    }
    Row row;
    row.work = "load";
    row.seconds = row.value = timer.seconds();
    row.unit = "s";
    row.cost.bytes = file_bytes;
    row.lower_is_better = true;
    rows_.push_back(row);
  }

  // Distinct random ids; a picture's placeholder would ask for a picture.
  std::vector<std::int32_t> random_prompt(std::int64_t tokens, std::uint64_t stream) const {
    const Config& c = model_->config;
    std::vector<std::int32_t> ids;
    for (std::uint64_t i = 0; static_cast<std::int64_t>(ids.size()) < tokens; ++i) {
      const auto word = Philox{o_.seed + 1}(i, stream)[0];
      const auto id = static_cast<std::int32_t>(word % static_cast<std::uint64_t>(c.vocab_size));
      if (id != c.image_token_id) ids.push_back(id);
    }
    return ids;
  }

  std::unique_ptr<Engine> make_engine(std::int64_t batch, std::int64_t positions) {
    EngineOptions options = types_;
    // Room beyond what is needed: near the end of the cache a sequence would wait for another's blocks.
    options.context = std::min(positions + 4 * options.block_size, model_->config.max_position_embeddings);
    options.max_sequences = batch;
    auto engine =
        std::make_unique<Engine>(*model_, nullptr, std::vector<std::int32_t>{}, options, pool_, make_log(o_.common));
    engine->context().isa = isa_;
    return engine;
  }

  void submit(Engine& engine, std::int64_t batch, std::int64_t prompt, std::int64_t generate,
              std::uint64_t repetition) {
    ids_.clear();
    for (std::int64_t i = 0; i < batch; ++i) {
      Request request;
      request.prompt = random_prompt(prompt, repetition * 1000 + static_cast<std::uint64_t>(i));
      request.options.sampling.temperature = 0;
      request.options.max_new_tokens = generate;
      request.options.ignore_eos = true;
      request.cancel = program_.cancel;
      ids_.push_back(engine.submit(std::move(request)));
    }
  }

  void drain(Engine& engine) {
    while (engine.step()) {
    }
    for (const RequestId id : ids_) engine.take(id);
    check_cancel();
  }

  void prefill(std::int64_t batch, std::int64_t prompt) {
    const auto engine = make_engine(batch, prompt);
    std::vector<double> seconds;
    for (std::int64_t i = 0; i <= o_.repeat; ++i) {  // the first warms caches up
      submit(*engine, batch, prompt, 1, static_cast<std::uint64_t>(i));
      const Timer timer;
      drain(*engine);
      if (i > 0) seconds.push_back(timer.seconds());
    }
    Row row;
    row.work = "prefill";
    row.batch = batch;
    row.context = prompt;
    row.seconds = median(seconds);
    row.cost = prefill_cost(*model_, batch, prompt);
    const auto tokens = static_cast<double>(batch * prompt);
    row.value = tokens / row.seconds;
    row.limit = tokens / least_seconds(row.cost, limits_);
    row.unit = "tok/s";
    rows_.push_back(row);
  }

  // Only steps in which every sequence gained a token and no prompt was read are counted.
  void decode(std::int64_t batch, std::int64_t context) {
    const std::int64_t prompt = std::max<std::int64_t>(context, 1);
    const auto engine = make_engine(batch, prompt + o_.generate);
    std::vector<double> seconds;
    for (std::int64_t i = 0; i <= o_.repeat; ++i) {
      submit(*engine, batch, prompt, o_.generate + 1, 500 + static_cast<std::uint64_t>(i));
      double total = 0;
      std::int64_t steps = 0;
      for (bool more = true; more;) {
        const EngineStats before = engine->stats();
        const Timer timer;
        more = engine->step();
        const double elapsed = timer.seconds();
        if (engine->stats().prompt_rows != before.prompt_rows ||
            engine->stats().decode_rows - before.decode_rows != batch)
          continue;
        total += elapsed;
        ++steps;
      }
      drain(*engine);
      if (steps == 0)
        fail(ErrorCode::kInvalidArgument,
             "--batch {}: the sequences never ran together; less context or more memory is needed", batch);
      if (i > 0) seconds.push_back(total / static_cast<double>(steps));
    }
    add_decode_row(batch, context, median(seconds), {});
    if (o_.engine) rows_.back().path = "engine, " + engine->stats().decode_path;
  }

  void decode_on_device(std::int64_t batch, std::int64_t context) {
    Workplace place(machine_, pool_, isa_);
    place.ctx.cancel = program_.cancel;
    DecodeBench bench;
    bench.batch = batch;
    bench.context = context;
    bench.steps = o_.generate;
    bench.repeat = o_.repeat;
    bench.seed = o_.seed;
    bench.dtype = types_.dtype;
    bench.kv_dtype = types_.kv_dtype;
    bench.block_size = types_.block_size;
    bench.path = types_.decode_path;
    const DecodeTiming timing = time_decode(place, *model_, bench);
    const bool eight_bit = batch == 1 && timing.path == "fused-int8";
    add_decode_row(batch, context, timing.seconds, timing.experts_touched, eight_bit);
    Row& row = rows_.back();
    row.experts_touched = timing.experts_touched.value_or(0);
    row.path = batch == 1 ? timing.path : "ops";  // the fused step hands batches on
    if (eight_bit) row.rest = "8bit";
    check_cancel();
  }

  void add_decode_row(std::int64_t batch, std::int64_t context, double seconds, std::optional<double> touched,
                      bool eight_bit = false) {
    Row row;
    row.work = "decode";
    row.batch = batch;
    row.context = context;
    row.seconds = seconds;
    row.cost = decode_cost(*model_, batch, std::max<std::int64_t>(context, 1) + o_.generate / 2, types_.kv_dtype,
                           touched, eight_bit);
    row.value = static_cast<double>(batch) / row.seconds;
    row.limit = static_cast<double>(batch) / least_seconds(row.cost, limits_);
    row.unit = "tok/s";
    rows_.push_back(row);
  }

  void encode() {
    const Config& c = model_->config;
    const std::int64_t side = c.vision.image_size, n = o_.images;
    Workplace place(machine_, pool_, isa_);
    place.ctx.cancel = program_.cancel;
    std::vector<float> values;
    for (std::int64_t i = 0; i < n * 3 * side * side; ++i)
      values.push_back(4 * Philox{o_.seed}.uniform(static_cast<std::uint64_t>(i)) - 2);
    const auto floats = [](std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); };
    const Buffer pixels(floats(n * 3 * side * side), machine_.device, "benchmark pictures");
    const Buffer rows(floats(n * c.vision.tokens() * c.hidden_size), machine_.device, "benchmark pictures");
    copy_bytes(pixels.data(), machine_.device, values.data(), DeviceKind::kCpu, pixels.bytes(), place.ctx.stream);
    VisionActivations acts(c, n, {machine_.device, types_.dtype});
    const Tensor in(pixels.data(), DType::kF32, Shape{n, 3, side, side}, "pixel_values", machine_.device);
    const Tensor out(rows.data(), DType::kF32, Shape{n * c.vision.tokens(), c.hidden_size}, "vision_embeds",
                     machine_.device);
    std::vector<double> seconds;
    for (std::int64_t i = 0; i <= o_.repeat; ++i) {
      if (machine_.on_cuda()) synchronize(place.ctx.stream);
      const Timer timer;
      encode_images(place.ctx, *model_, in, acts, out);
      if (machine_.on_cuda()) synchronize(place.ctx.stream);
      if (i > 0) seconds.push_back(timer.seconds());
    }
    Row row;
    row.work = "encode";
    row.batch = n;
    row.seconds = median(seconds);
    row.cost = encode_cost(*model_);
    row.cost.flops *= static_cast<double>(n);
    row.value = static_cast<double>(n) / row.seconds;
    row.limit = static_cast<double>(n) / least_seconds(row.cost, limits_);
    row.unit = "images/s";
    rows_.push_back(row);
  }

  std::string rest() const { return dtype_name(model_->weights.layers.front().attention.q.dtype); }
  static double percent(const Row& row) {
    return 100 * (row.lower_is_better ? row.limit / row.value : row.value / row.limit);
  }
  // GB/s where memory sets the limit, GFLOP/s where arithmetic does.
  bool memory_bound(const Row& row) const {
    return row.cost.bytes / limits_.read_gbps >= row.cost.flops / limits_.fma_gflops;
  }
  static double gbps(const Row& row) { return row.cost.bytes / row.seconds / 1e9; }
  static double gflops(const Row& row) { return row.cost.flops / row.seconds / 1e9; }

  // What is used of the machine: threads and kernels, or the types of a run on a GPU.
  void put_machine(JsonWriter& json) const {
    json.field("threads", pool_.size());
    if (machine_.on_cuda()) json.field("dtype", dtype_name(types_.dtype));
    else json.field("isa", cpu_isa_name(isa_));
  }

  void print_limits() const {
    if (o_.common.json) {
      JsonWriter json;
      json.begin_object().field("device", machine_.name());
      put_machine(json);
      json.field("read_gbps", limits_.read_gbps).field("fma_gflops", limits_.fma_gflops);
      if (machine_.on_cuda()) json.field("copy_gbps", limits_.copy_gbps).field("host_gbps", limits_.host_gbps);
      put(json.field("date", utc_time()).end_object().take() + "\n");
      return;
    }
    if (machine_.on_cuda()) {
      put(
          fmt::format("{}, {} activations, {} cache: read {:.0f} GB/s, copy {:.0f} GB/s, bf16 products {:.0f} TFLOP/s, "
                      "from the host {:.1f} GB/s\n",
                      machine_.name(), dtype_name(types_.dtype), dtype_name(types_.kv_dtype), limits_.read_gbps,
                      limits_.copy_gbps, limits_.fma_gflops / 1e3, limits_.host_gbps));
      return;
    }
    put(fmt::format("{}, {} threads, {}: read {:.1f} GB/s, f32 multiply-add {:.0f} GFLOP/s\n", machine_.name(),
                    pool_.size(), cpu_isa_name(isa_), limits_.read_gbps, limits_.fma_gflops));
  }

  void print() const {
    if (o_.common.json) {
      for (const Row& row : rows_) put(row_json(row) + "\n");
      return;
    }
    Table table({"work", "batch", "context", "value", "unit", "rate", "limit", "percent", "path"});
    for (const Row& row : rows_) {
      const std::string rate =
          memory_bound(row) ? fmt::format("{:.2f} GB/s", gbps(row)) : fmt::format("{:.1f} GFLOP/s", gflops(row));
      table.add({row.work, std::to_string(row.batch), std::to_string(row.context), fmt::format("{:.3f}", row.value),
                 row.unit, rate, fmt::format("{:.3f}", row.limit), fmt::format("{:.1f} %", percent(row)), row.path});
    }
    put(fmt::format("{} ({}), ", name_, rest()));
    print_limits();
    put(table.str());
  }

  std::string row_json(const Row& row) const {
    const char* commit = std::getenv("GPT_OSS_VISION_COMMIT");
    JsonWriter json;
    json.begin_object().field("work", row.work).field("model", name_).field("device", machine_.name());
    json.field("batch", row.batch).field("context", row.context).field("rest", row.rest.empty() ? rest() : row.rest);
    json.field("value", row.value).field("unit", row.unit).field("limit", row.limit).field("percent", percent(row));
    json.field("gbps", gbps(row)).field("gflops", gflops(row)).field("seconds", row.seconds);
    put_machine(json);
    json.field("kv_dtype", dtype_name(types_.kv_dtype));
    if (!row.path.empty()) json.field("path", row.path);
    if (row.experts_touched > 0) json.field("experts_touched", row.experts_touched);
    json.field("read_gbps", limits_.read_gbps).field("fma_gflops", limits_.fma_gflops).field("repeat", o_.repeat);
    json.field("commit", commit != nullptr ? commit : GOV_COMMIT).field("date", utc_time());
    return json.end_object().take();
  }

  const BenchOptions& o_;
  const Program& program_;
  Machine machine_;
  EngineOptions types_;  // of every engine, but for its size
  ThreadPool pool_;
  CpuIsa isa_;
  ops::DeviceLimits limits_;
  std::unique_ptr<Model> model_;
  std::string name_;
  std::vector<RequestId> ids_;
  std::vector<Row> rows_;
};

}  // namespace

void add_bench(CLI::App& root, Program& program) {
  const auto o = std::make_shared<BenchOptions>();
  CLI::App& app = *root.add_subcommand("bench", "Speed of a model beside the machine's measured limits");
  add_model_option(app, o->common);
  app.add_option("--synthetic", o->synthetic,
                 fmt::format("Random weights of a preset's shape, in memory: {}", fmt::join(preset_names(), ", ")))
      ->type_name("PRESET")
      ->excludes("--model");
  const auto number = [&](const char* names, std::int64_t& value, std::int64_t least, const char* help) {
    app.add_option(names, value, help)
        ->check(CLI::Range(least, std::int64_t{1} << 20))
        ->type_name("N")
        ->capture_default_str();
  };
  const auto numbers = [&](const char* names, std::vector<std::int64_t>& values, std::int64_t least, const char* help) {
    app.add_option(names, values, help)
        ->delimiter(',')
        ->allow_extra_args(false)
        ->check(CLI::Range(least, std::int64_t{1} << 20))
        ->type_name("N,..")
        ->capture_default_str();
  };
  numbers("-p,--prompt", o->prompts, 0,
          "Tokens of the prompts of the prefill row; 0 = no such row; several: a row each");
  number("-n,--generate", o->generate, 0, "Tokens of the decode row; 0 = no such row");
  numbers("-b,--batch", o->batches, 1, "Sequences at once; several: a row each");
  numbers("-c,--context", o->contexts, 0, "Positions in the cache when the decode row starts; several: a row each");
  number("--images", o->images, 0, "Pictures of the encode row; 0 = no such row");
  number("--chunk", o->chunk, 0, "Most rows of one step; 0 = 512, on a GPU 4096");
  number("--repeat", o->repeat, 1, "Repetitions, of which the median counts");
  app.add_flag("--engine", o->engine,
               "Decode rows through the engine, as answers are made; on a GPU they are timed without it otherwise");
  app.add_flag("--device-limits", o->device_limits, "Only measure what the machine can do");
  app.add_option("--seed", o->seed, "Of weights and prompts")->type_name("N")->capture_default_str();
  add_type_options(app, o->common);
  add_decode_option(app, o->common);
  add_size(app, "--memory-limit", o->common.memory_limit, "Memory to use at most, e.g. 24GiB");
  add_machine_options(app, o->common);
  add_output_options(app, o->common);
  app.footer(kExamples);
  app.callback([&program, o] { program.action = [&program, o] { return Bench(*o, program).run(); }; });
}

}  // namespace gov::cli
