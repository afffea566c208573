// gpt-oss-vision bench: load, prompt processing, generation and picture encoding, beside what the machine allows.

#include <atomic>
#include <cstdlib>
#include <span>

#include "base/json_writer.h"
#include "base/philox.h"
#include "base/timer.h"
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
    "  gpt-oss-vision bench --device-limits";

struct BenchOptions {
  CommonOptions common;
  std::string synthetic;
  std::int64_t prompt = 512, generate = 64, batch = 1, context = 0, images = 4, chunk = 512, repeat = 3;
  std::uint64_t seed = 0;
  bool device_limits = false;
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
      : o_(o), program_(program), pool_(o.common.threads), isa_(choose_isa(o.common)) {}

  int run() {
    if (!o_.device_limits) open_model();
    limits_ = ops::measure_device_limits(pool_, isa_);
    if (o_.device_limits) {
      print_limits();
      return 0;
    }
    for (Row& row : rows_) row.limit = row.cost.bytes / (limits_.read_gbps * 1e9);  // of loading
    if (o_.prompt > 0) prefill();
    if (o_.generate > 0) decode();
    if (model_->config.use_vision && o_.images > 0) encode();
    print();
    return 0;
  }

 private:
  void check_cancel() const {
    if (program_.cancel->load()) fail(ErrorCode::kCancelled, "the benchmark is incomplete");
  }

  void open_model() {
    const Log log = make_log(o_.common);
    if (!o_.synthetic.empty()) {
      name_ = o_.synthetic;
      const Config config = preset(o_.synthetic);
      RunShape shape;
      shape.context = std::max(o_.prompt, o_.context + o_.generate);
      shape.sequences = o_.batch;
      shape.chunk = o_.chunk;
      shape.kv_dtype = kv_dtype_of(o_.common);
      const std::uint64_t limit = o_.common.memory_limit > 0 ? o_.common.memory_limit : available_memory();
      require_fits(plan_memory(config, 0, stored_weight_bytes(config), shape, limit));
      model_ = std::make_unique<Model>(random_model(config, o_.seed, pool_));
      return;
    }
    const auto folder = resolve_model(o_.common.model, program_);
    name_ = std::filesystem::absolute(folder).lexically_normal().filename().string();
    if (name_.empty()) name_ = folder.string();
    const Timer timer;
    model_ = std::make_unique<Model>(load_model(folder, pool_, log));
    // Mapping alone costs nothing; a model is loaded when every byte has come into memory.
    if (model_->weights.mapped) {
      for (const SafetensorsFile& file : model_->weights.mapped->files()) read_all(file.mapped().bytes(), pool_);
    }
    Row row;
    row.work = "load";
    row.seconds = row.value = timer.seconds();
    row.unit = "s";
    row.cost.bytes = static_cast<double>(model_->weights.mapped ? model_->weights.mapped->file_bytes() : 0);
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

  std::unique_ptr<Engine> make_engine(std::int64_t positions) {
    EngineOptions options = engine_options(o_.common);
    // Room beyond what is needed: near the end of the cache a sequence would wait for another's blocks.
    options.context = std::min(positions + 4 * options.block_size, model_->config.max_position_embeddings);
    options.max_sequences = o_.batch;
    options.chunk = o_.chunk;
    auto engine =
        std::make_unique<Engine>(*model_, nullptr, std::vector<std::int32_t>{}, options, pool_, make_log(o_.common));
    engine->context().isa = isa_;
    return engine;
  }

  void submit(Engine& engine, std::int64_t prompt, std::int64_t generate, std::uint64_t repetition) {
    ids_.clear();
    for (std::int64_t i = 0; i < o_.batch; ++i) {
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

  void prefill() {
    const auto engine = make_engine(o_.prompt);
    std::vector<double> seconds;
    for (std::int64_t i = 0; i <= o_.repeat; ++i) {  // the first warms caches up
      submit(*engine, o_.prompt, 1, static_cast<std::uint64_t>(i));
      const Timer timer;
      drain(*engine);
      if (i > 0) seconds.push_back(timer.seconds());
    }
    Row row;
    row.work = "prefill";
    row.batch = o_.batch;
    row.context = o_.prompt;
    row.seconds = median(seconds);
    row.cost = prefill_cost(*model_, o_.batch, o_.prompt);
    const auto tokens = static_cast<double>(o_.batch * o_.prompt);
    row.value = tokens / row.seconds;
    row.limit = tokens / least_seconds(row.cost, limits_);
    row.unit = "tok/s";
    rows_.push_back(row);
  }

  // Only steps in which every sequence gained a token and no prompt was read are counted.
  void decode() {
    const std::int64_t prompt = std::max<std::int64_t>(o_.context, 1);
    const auto engine = make_engine(prompt + o_.generate);
    std::vector<double> seconds;
    for (std::int64_t i = 0; i <= o_.repeat; ++i) {
      submit(*engine, prompt, o_.generate + 1, 500 + static_cast<std::uint64_t>(i));
      double total = 0;
      std::int64_t steps = 0;
      for (bool more = true; more;) {
        const EngineStats before = engine->stats();
        const Timer timer;
        more = engine->step();
        const double elapsed = timer.seconds();
        if (engine->stats().prompt_rows != before.prompt_rows ||
            engine->stats().decode_rows - before.decode_rows != o_.batch)
          continue;
        total += elapsed;
        ++steps;
      }
      drain(*engine);
      if (steps == 0)
        fail(ErrorCode::kInvalidArgument,
             "--batch {}: the sequences never ran together; less context or more memory is needed", o_.batch);
      if (i > 0) seconds.push_back(total / static_cast<double>(steps));
    }
    Row row;
    row.work = "decode";
    row.batch = o_.batch;
    row.context = o_.context;
    row.seconds = median(seconds);
    row.cost = decode_cost(*model_, o_.batch, prompt + o_.generate / 2, kv_dtype_of(o_.common));
    row.value = static_cast<double>(o_.batch) / row.seconds;
    row.limit = static_cast<double>(o_.batch) / least_seconds(row.cost, limits_);
    row.unit = "tok/s";
    rows_.push_back(row);
  }

  void encode() {
    const Config& c = model_->config;
    const std::int64_t side = c.vision.image_size, n = o_.images;
    Buffer pixels(static_cast<std::size_t>(n * 3 * side * side) * sizeof(float), DeviceKind::kCpu,
                  "benchmark pictures");
    Buffer rows(static_cast<std::size_t>(n * c.vision.tokens() * c.hidden_size) * sizeof(float), DeviceKind::kCpu,
                "benchmark pictures");
    auto* values = static_cast<float*>(pixels.data());
    for (std::int64_t i = 0; i < n * 3 * side * side; ++i)
      values[i] = 4 * Philox{o_.seed}.uniform(static_cast<std::uint64_t>(i)) - 2;
    VisionActivations acts(c, n);
    Context ctx;
    ctx.pool = &pool_;
    ctx.isa = isa_;
    ctx.cancel = program_.cancel;
    const Tensor out(rows.data(), DType::kF32, Shape{n * c.vision.tokens(), c.hidden_size}, "vision_embeds");
    std::vector<double> seconds;
    for (std::int64_t i = 0; i <= o_.repeat; ++i) {
      const Timer timer;
      encode_images(ctx, *model_, Tensor::of(values, Shape{n, 3, side, side}, "pixel_values"), acts, out);
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

  void print_limits() const {
    if (o_.common.json) {
      JsonWriter json;
      json.begin_object()
          .field("device", cpu_info().model)
          .field("threads", pool_.size())
          .field("isa", cpu_isa_name(isa_));
      json.field("read_gbps", limits_.read_gbps).field("fma_gflops", limits_.fma_gflops).field("date", utc_time());
      put(json.end_object().take() + "\n");
      return;
    }
    put(fmt::format("{}, {} threads, {}: read {:.1f} GB/s, f32 multiply-add {:.0f} GFLOP/s\n", cpu_info().model,
                    pool_.size(), cpu_isa_name(isa_), limits_.read_gbps, limits_.fma_gflops));
  }

  void print() const {
    if (o_.common.json) {
      for (const Row& row : rows_) put(row_json(row) + "\n");
      return;
    }
    Table table({"work", "batch", "context", "value", "unit", "rate", "limit", "percent"});
    for (const Row& row : rows_) {
      const std::string rate =
          memory_bound(row) ? fmt::format("{:.2f} GB/s", gbps(row)) : fmt::format("{:.1f} GFLOP/s", gflops(row));
      table.add({row.work, std::to_string(row.batch), std::to_string(row.context), fmt::format("{:.3f}", row.value),
                 row.unit, rate, fmt::format("{:.3f}", row.limit), fmt::format("{:.1f} %", percent(row))});
    }
    put(fmt::format("{} ({}), ", name_, rest()));
    print_limits();
    put(table.str());
  }

  std::string row_json(const Row& row) const {
    const char* commit = std::getenv("GPT_OSS_VISION_COMMIT");
    JsonWriter json;
    json.begin_object().field("work", row.work).field("model", name_).field("device", cpu_info().model);
    json.field("batch", row.batch).field("context", row.context).field("rest", rest());
    json.field("value", row.value).field("unit", row.unit).field("limit", row.limit).field("percent", percent(row));
    json.field("gbps", gbps(row)).field("gflops", gflops(row)).field("seconds", row.seconds);
    json.field("threads", pool_.size()).field("isa", cpu_isa_name(isa_)).field("kv_dtype", o_.common.kv_dtype);
    json.field("read_gbps", limits_.read_gbps).field("fma_gflops", limits_.fma_gflops).field("repeat", o_.repeat);
    json.field("commit", commit != nullptr ? commit : GOV_COMMIT).field("date", utc_time());
    return json.end_object().take();
  }

  const BenchOptions& o_;
  const Program& program_;
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
  number("-p,--prompt", o->prompt, 0, "Tokens of the prompts of the prefill row; 0 = no such row");
  number("-n,--generate", o->generate, 0, "Tokens of the decode row; 0 = no such row");
  number("-b,--batch", o->batch, 1, "Sequences at once");
  number("-c,--context", o->context, 0, "Positions in the cache when the decode row starts");
  number("--images", o->images, 0, "Pictures of the encode row; 0 = no such row");
  number("--chunk", o->chunk, 1, "Most rows of one step");
  number("--repeat", o->repeat, 1, "Repetitions, of which the median counts");
  app.add_flag("--device-limits", o->device_limits, "Only measure what the machine can do");
  app.add_option("--seed", o->seed, "Of weights and prompts")->type_name("N")->capture_default_str();
  app.add_option("--kv-dtype", o->common.kv_dtype, "Type of cached keys and values: f32 or bf16")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->type_name("TYPE")
      ->capture_default_str();
  add_size(app, "--memory-limit", o->common.memory_limit, "Memory to use at most, e.g. 24GiB");
  add_machine_options(app, o->common);
  add_output_options(app, o->common);
  app.footer(kExamples);
  app.callback([&program, o] {
    program.action = [&program, o] {
      check_device(o->common);
      return Bench(*o, program).run();
    };
  });
}

}  // namespace gov::cli
