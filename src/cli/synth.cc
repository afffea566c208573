// gpt-oss-vision synth: writes a checkpoint of random weights, of a preset's or any other shape.

#include <atomic>
#include <filesystem>

#include "base/json_writer.h"
#include "cli/common.h"
#include "cli/format.h"
#include "cli/progress.h"
#include "io/checkpoint.h"
#include "model/parameters.h"
#include "model/random.h"
#include "train/export_model.h"

namespace gov::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  gpt-oss-vision synth /tmp/mini --preset mini\n"
    "  gpt-oss-vision synth /data/20b --preset gpt_oss_vision_20b --max-shard-size 5GB --seed 1\n"
    "  gpt-oss-vision synth /tmp/tiny --hidden-size 64 --intermediate-size 64 --layers 2 --experts 4 \\\n"
    "      --heads 4 --kv-heads 2 --vocab-size 4096 --vision --vision-size 56 --nope 2 --no-mxfp4 --dtype f32\n"
    "  gpt-oss-vision synth /tmp/with_words --preset mini --tokenizer ~/models/gpt-oss-20b/tokenizer.json";

struct SynthOptions {
  CommonOptions common;
  std::string folder, preset = "mini", dtype, tokenizer;
  std::uint64_t max_shard = 5'000'000'000, seed = 0;
  bool vision = false, no_vision = false, mxfp4 = false, no_mxfp4 = false;
  std::optional<std::int64_t> hidden, intermediate, layers, experts, experts_per_token, heads, kv_heads, head_dim,
      vocab, window, positions, nope;
  std::optional<std::int64_t> vision_size, vision_patch, vision_dim, vision_layers, vision_heads, vision_intermediate;
};

template <class T>
void set(T& field, const std::optional<std::int64_t>& given) {
  if (given) field = *given;
}

void set_vision(VisionConfig& v, const SynthOptions& o) {
  set(v.image_size, o.vision_size);
  set(v.patch_size, o.vision_patch);
  set(v.embed_dim, o.vision_dim);
  set(v.num_layers, o.vision_layers);
  set(v.num_heads, o.vision_heads);
  if (o.vision_dim)
    v.intermediate_size = std::max<std::int64_t>(4 * *o.vision_dim, 1024);  // config.json's rule for null
  set(v.intermediate_size, o.vision_intermediate);
}

// End, padding and image tokens: the tokenizer's own, else the preset's if the vocabulary holds them, else its last
// ids.
void set_special_tokens(Config& c, const std::optional<Tokenizer>& tokenizer) {
  const auto find = [&](const char* text) -> std::int64_t {
    return tokenizer ? tokenizer->find_special(text).value_or(-1) : -1;
  };
  if (tokenizer) {
    c.eos_token_ids.clear();
    for (const char* text : {"<|return|>", "<|endoftext|>", "<|call|>", "<|end|>"}) {
      if (const std::int64_t id = find(text); id >= 0 && c.eos_token_ids.size() < 3) c.eos_token_ids.push_back(id);
    }
    if (const std::int64_t id = find("<|endoftext|>"); id >= 0) c.pad_token_id = id;
    c.image_token_id = c.use_vision ? find("<|image|>") : -1;
  }
  std::erase_if(c.eos_token_ids, [&](std::int64_t id) { return id >= c.vocab_size; });
  if (c.eos_token_ids.empty()) c.eos_token_ids = {c.vocab_size - 1};
  if (c.pad_token_id >= c.vocab_size) c.pad_token_id = c.vocab_size - 1;
  if (!c.use_vision || c.image_token_id >= c.vocab_size) c.image_token_id = -1;
}

Config make_config(const SynthOptions& o, const std::optional<Tokenizer>& tokenizer) {
  Config c = preset(o.preset);
  set(c.hidden_size, o.hidden);
  set(c.intermediate_size, o.intermediate);
  set(c.num_hidden_layers, o.layers);
  set(c.num_local_experts, o.experts);
  c.num_experts_per_tok = std::min(c.num_experts_per_tok, c.num_local_experts);
  set(c.num_experts_per_tok, o.experts_per_token);
  set(c.num_attention_heads, o.heads);
  set(c.num_key_value_heads, o.kv_heads);
  set(c.head_dim, o.head_dim);
  set(c.sliding_window, o.window);
  set(c.max_position_embeddings, o.positions);
  if (tokenizer) c.vocab_size = std::max<std::int64_t>(c.vocab_size, tokenizer->vocab_size());
  set(c.vocab_size, o.vocab);
  if (tokenizer && c.vocab_size < tokenizer->vocab_size()) {
    fail(ErrorCode::kInvalidArgument, "--vocab-size {} is less than the tokenizer's {} tokens", c.vocab_size,
         tokenizer->vocab_size());
  }
  if (o.layers) {
    c.layer_types.clear();
    for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
      c.layer_types.push_back(i % 2 == 0 ? AttentionKind::kSliding : AttentionKind::kFull);
    }
  }
  if (o.vision) c.use_vision = true;
  if (o.no_vision) c.use_vision = false;
  c.model_type = c.use_vision || o.nope ? "gpt_oss_vision" : "gpt_oss";
  set_vision(c.vision, o);
  if (o.nope) {
    c.use_nope = true;
    c.nope_stride = *o.nope;
  }
  if (o.mxfp4) c.mxfp4_experts = true;
  if (o.no_mxfp4) c.mxfp4_experts = false;
  if (!o.dtype.empty()) c.dtype = o.dtype == "f32" ? "float32" : o.dtype == "f16" ? "float16" : "bfloat16";
  set_special_tokens(c, tokenizer);
  validate(c);
  return c;
}

DType stored_type(const ParameterSpec& spec, const Config& c) {
  if (spec.storage == Storage::kU8) return DType::kU8;
  return c.dtype == "float32" ? DType::kF32 : c.dtype == "float16" ? DType::kF16 : DType::kBF16;
}

void check_disk(const std::filesystem::path& folder, std::uint64_t bytes) {
  std::error_code error;
  auto parent = std::filesystem::absolute(folder, error).parent_path();
  const auto space = std::filesystem::space(parent, error);
  if (!error && space.available < bytes) {
    fail(ErrorCode::kIo, "'{}' has {} free, {} are needed", printable(parent.string()),
         human_bytes(static_cast<double>(space.available)), human_bytes(static_cast<double>(bytes)));
  }
}

// Fills the tensors one after another, a piece at a time, so that memory stays bounded whatever the model's size.
void write_tensors(CheckpointWriter& writer, const std::vector<ParameterSpec>& table, const Config& config,
                   std::uint64_t total, const SynthOptions& o, const Program& program) {
  constexpr std::int64_t kPiece = 32 << 20;  // bytes in memory
  constexpr std::int64_t kGrain = 64 << 10;  // elements of one task; even, so that a pair of normals is drawn once
  ThreadPool pool(o.common.threads);
  std::vector<std::byte> piece(kPiece);
  Progress progress("writing", static_cast<double>(total), Progress::Unit::kBytes, o.common);
  double done = 0;
  for (const ParameterSpec& spec : table) {
    const DType dtype = stored_type(spec, config);
    const auto element = static_cast<std::int64_t>(dtype_size(dtype));
    const std::int64_t elements = spec.shape.elements();
    for (std::int64_t first = 0; first < elements; first += kPiece / element) {
      if (program.cancel->load()) fail(ErrorCode::kCancelled, "nothing was written");
      const std::int64_t count = std::min(kPiece / element, elements - first);
      pool.parallel_for(count, kGrain, [&](std::int64_t begin, std::int64_t end, int) {
        fill_random(spec, config, o.seed, dtype, first + begin, end - begin, piece.data() + begin * element);
      });
      writer.write(spec.name, std::span(piece).first(static_cast<std::size_t>(count * element)));
      done += static_cast<double>(count * element);
      progress.update(done);
    }
  }
}

std::string generation_config(const Config& c) {
  JsonWriter json;
  json.begin_object().field("do_sample", false).key("eos_token_id").begin_array();
  for (const std::int64_t id : c.eos_token_ids) json.value(id);
  json.end_array();
  if (c.pad_token_id >= 0) json.field("pad_token_id", c.pad_token_id);
  return json.end_object().take() + "\n";
}

// ImageNet's mean and deviation, bicubic, as the model's own processor has them.
std::string preprocessor_config(const Config& c) {
  JsonWriter json;
  json.begin_object().field("image_processor_type", "ViTImageProcessor");
  json.field("do_resize", true).field("do_rescale", true).field("do_normalize", true).field("do_convert_rgb", true);
  json.key("size").begin_object().field("height", c.vision.image_size).field("width", c.vision.image_size).end_object();
  json.field("resample", 3).key("rescale_factor").raw("0.00392156862745098");
  json.key("image_mean").raw("[0.485,0.456,0.406]").key("image_std").raw("[0.229,0.224,0.225]");
  return json.end_object().take() + "\n";
}

int run_synth(const Program& program, const SynthOptions& o) {
  std::optional<Tokenizer> tokenizer;
  if (!o.tokenizer.empty()) tokenizer = Tokenizer::load(o.tokenizer);
  const Config config = make_config(o, tokenizer);
  const std::vector<ParameterSpec> table = parameter_table(config);
  std::vector<TensorSpec> specs;
  std::uint64_t total = 0;
  for (const ParameterSpec& spec : table) {
    specs.push_back({spec.name, stored_type(spec, config), spec.shape});
    total += specs.back().bytes();
  }
  check_disk(o.folder, total);
  const Timer timer;
  CheckpointWriter writer(o.folder, std::move(specs), o.max_shard);
  write_tensors(writer, table, config, total, o, program);
  writer.add_file("config.json", config_json(config));
  writer.add_file("generation_config.json", generation_config(config));
  if (config.use_vision) writer.add_file("preprocessor_config.json", preprocessor_config(config));
  if (tokenizer) train::copy_tokenizer_files(writer, o.tokenizer);
  writer.finish();
  const double seconds = timer.seconds();
  if (o.common.json) {
    JsonWriter json;
    json.begin_object().field("folder", o.folder).field("tensors", static_cast<std::int64_t>(table.size()));
    json.field("parameters", count_parameters(config).total).field("tensor_bytes", total).field("seed", o.seed);
    put(json.field("seconds", seconds).end_object().take() + "\n");
  } else if (!o.common.quiet) {
    put(fmt::format("{}: {} parameters in {} tensors, {} in {:.1f} s ({}/s)\n", o.folder,
                    with_commas(count_parameters(config).total), table.size(), human_bytes(static_cast<double>(total)),
                    seconds, human_bytes(static_cast<double>(total) / seconds)));
  }
  return 0;
}

void add_size_options(CLI::App& app, SynthOptions& o) {
  const auto size = [&](const char* name, std::optional<std::int64_t>& value, const char* help, const char* group) {
    app.add_option(name, value, help)
        ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 24))
        ->type_name("N")
        ->group(group);
  };
  const char* kText = "Sizes (default: the preset's)";
  size("--hidden-size", o.hidden, "Width of the residual stream", kText);
  size("--intermediate-size", o.intermediate, "Width inside an expert", kText);
  size("--layers", o.layers, "Layers; sliding and full attention alternate", kText);
  size("--experts", o.experts, "Experts of a layer", kText);
  size("--experts-per-token", o.experts_per_token, "Experts that a token uses", kText);
  size("--heads", o.heads, "Query heads", kText);
  size("--kv-heads", o.kv_heads, "Key and value heads", kText);
  size("--head-dim", o.head_dim, "Width of a head", kText);
  size("--vocab-size", o.vocab, "Tokens", kText);
  size("--window", o.window, "Keys that a sliding layer sees", kText);
  size("--positions", o.positions, "max_position_embeddings", kText);
  size("--nope", o.nope, "No positions in every N-th layer", kText);
  const char* kVision = "Vision";
  app.add_flag("--vision", o.vision, "With the picture encoder")->group(kVision);
  app.add_flag("--no-vision", o.no_vision, "Without it")->excludes("--vision")->group(kVision);
  size("--vision-size", o.vision_size, "Pixels of a side", kVision);
  size("--vision-patch", o.vision_patch, "Pixels of a patch's side", kVision);
  size("--vision-dim", o.vision_dim, "Width", kVision);
  size("--vision-layers", o.vision_layers, "Layers", kVision);
  size("--vision-heads", o.vision_heads, "Heads", kVision);
  size("--vision-intermediate", o.vision_intermediate, "Width inside the MLP; default 4 x width, at least 1024",
       kVision);
}

}  // namespace

void add_synth(CLI::App& root, Program& program) {
  const auto o = std::make_shared<SynthOptions>();
  CLI::App& app = *root.add_subcommand("synth", "Write a checkpoint of random weights");
  app.add_option("folder", o->folder, "Folder to create; an existing one must be empty")
      ->required()
      ->type_name("FOLDER");
  app.add_option("--preset", o->preset, fmt::format("Shape to start from: {}", fmt::join(preset_names(), ", ")))
      ->type_name("NAME")
      ->capture_default_str();
  add_size_options(app, *o);
  app.add_option("--dtype", o->dtype, "Type of unquantised tensors; default bf16")
      ->check(CLI::IsMember({"bf16", "f16", "f32"}))
      ->type_name("TYPE");
  app.add_flag(
      "--mxfp4", o->mxfp4,
      "Experts in MXFP4 (default of the presets): random 4-bit codes, and for all blocks the one power-of-two scale "
      "that brings the weights' root mean square closest to initializer_range");
  app.add_flag("--no-mxfp4", o->no_mxfp4, "Experts in --dtype")->excludes("--mxfp4");
  app.add_option("--seed", o->seed, "Same seed, same bytes")->type_name("N")->capture_default_str();
  add_size(app, "--max-shard-size", o->max_shard, "Most tensor bytes of one file; default 5GB");
  app.add_option("--tokenizer", o->tokenizer,
                 "Tokenizer to copy: file or folder; the vocabulary is enlarged to it if need be")
      ->type_name("FILE");
  app.add_option("-t,--threads", o->common.threads, "Threads; 0 = one per usable core")
      ->check(CLI::Range(0, 1024))
      ->type_name("N")
      ->capture_default_str();
  add_output_options(app, o->common);
  app.footer(kExamples);
  app.callback([&program, o] { program.action = [&program, o] { return run_synth(program, *o); }; });
}

}  // namespace gov::cli
