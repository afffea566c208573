// gpt-oss-vision inspect: what a model is made of and what it needs.

#include <cstdio>
#include <map>

#include "base/json_writer.h"
#include "cli/common.h"
#include "cli/format.h"
#include "io/checkpoint.h"
#include "model/memory_plan.h"
#include "model/parameters.h"

namespace gov::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  gpt-oss-vision inspect                                  the embedded nano\n"
    "  gpt-oss-vision inspect ~/models/gpt-oss-20b --context 131072\n"
    "  gpt-oss-vision inspect gpt_oss_vision_120b --json       a preset, without any file\n"
    "  gpt-oss-vision inspect mini --kv-dtype bf16";

struct InspectOptions {
  CommonOptions common;
  std::string subject;  // folder or preset
  std::int64_t sequences = 1;
};

struct Layer {
  std::string attention, position;
  std::uint64_t kv_bytes;  // at the context asked for
};

struct Report {
  std::string subject;
  Config config;
  ParameterCount parameters;
  std::uint64_t stored_by_part[7] = {};  // tensor bytes as a checkpoint stores them
  std::uint64_t stored_bytes = 0;
  std::uint64_t disk_bytes = 0;  // of the folder's weight files; 0 for a preset
  std::size_t disk_tensors = 0, disk_files = 0;
  std::map<std::string, std::uint64_t> disk_by_dtype;
  std::int64_t context = 0;
  DType kv_dtype = DType::kF32;
  MemoryPlan plan;
  std::vector<Layer> layers;
  bool has_chat_template = false;
};

bool is_preset(const std::string& name) {
  const auto names = preset_names();
  return std::find(names.begin(), names.end(), name) != names.end();
}

DType float_type(const Config& config) {
  if (config.dtype == "float32") return DType::kF32;
  return config.dtype == "float16" ? DType::kF16 : DType::kBF16;
}

void read_checkpoint(Report& report, const std::filesystem::path& folder) {
  const Checkpoint checkpoint = Checkpoint::open(folder);
  report.disk_bytes = checkpoint.file_bytes();
  report.disk_files = checkpoint.files().size();
  for (const SafetensorsFile& file : checkpoint.files()) {
    for (const SafetensorsEntry& entry : file.entries()) {
      ++report.disk_tensors;
      report.disk_by_dtype[std::string(entry.stored_dtype)] += entry.bytes();
    }
  }
  // By part as the file has it, also where it differs from config.json's dtype.
  for (const ParameterSpec& spec : parameter_table(report.config)) {
    auto found = checkpoint.locate(spec.name);
    if (!found && !spec.alias.empty()) found = checkpoint.locate(spec.alias);
    if (found) report.stored_by_part[static_cast<int>(spec.part)] += found->entry->bytes();
  }
  std::error_code ignored;
  report.has_chat_template = std::filesystem::exists(folder / "chat_template.jinja", ignored);
}

void count_stored(Report& report) {
  const std::size_t element = dtype_size(float_type(report.config));
  for (const ParameterSpec& spec : parameter_table(report.config)) {
    const auto elements = static_cast<std::uint64_t>(spec.shape.elements());
    report.stored_by_part[static_cast<int>(spec.part)] += elements * (spec.storage == Storage::kU8 ? 1 : element);
  }
}

std::string position_name(PositionKind kind) {
  switch (kind) {
    case PositionKind::kRope: return "rope";
    case PositionKind::kNone: return "none (NoPE)";
    case PositionKind::kScaleOnly: return "none, scaled (NoPE)";
  }
  return "";
}

void plan_layers(Report& report) {
  const Config& c = report.config;
  const auto element = static_cast<std::int64_t>(dtype_size(report.kv_dtype));
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const bool sliding = c.is_sliding(i);
    const std::int64_t keys = sliding ? std::min(report.context, c.sliding_window) : report.context;
    report.layers.push_back({sliding ? fmt::format("sliding {}", c.sliding_window) : "full",
                             position_name(c.position_kind(i)),
                             static_cast<std::uint64_t>(2 * c.kv_size() * element * keys)});
  }
}

Report make_report(const InspectOptions& o, const Program& program) {
  Report report;
  const std::string given = o.subject.empty() ? o.common.model : o.subject;
  std::error_code ignored;
  const bool from_preset = is_preset(given) && !std::filesystem::is_directory(given, ignored);
  if (from_preset) {
    report.subject = given;
    report.config = preset(given);
    count_stored(report);
  } else {
    const auto folder = resolve_model(given, program);
    report.subject = folder.string();
    report.config = load_config(folder, make_log(o.common));
    read_checkpoint(report, folder);
  }
  for (const std::uint64_t bytes : report.stored_by_part) report.stored_bytes += bytes;
  report.parameters = count_parameters(report.config);
  const Config& c = report.config;
  report.context = o.common.context > 0 ? o.common.context : std::min<std::int64_t>(c.max_position_embeddings, 8192);
  if (report.context > c.max_position_embeddings) {
    fail(ErrorCode::kContextLength, "--context {} is more than the model's {} positions", report.context,
         c.max_position_embeddings);
  }
  RunShape shape;
  shape.context = report.context;
  shape.sequences = o.sequences;
  const Machine machine = choose_machine(o.common);
  const EngineOptions options = engine_options(o.common, machine);
  shape.kv_dtype = report.kv_dtype = options.kv_dtype;
  shape.chunk = options.chunk;
  shape.block_size = options.block_size;
  shape.place = {machine.device, options.dtype};
  // Unquantised experts are transposed into memory of our own when they are loaded; a GPU gets everything.
  const std::uint64_t owned = machine.on_cuda() ? report.stored_bytes
                              : c.mxfp4_experts ? 0
                                                : report.stored_by_part[static_cast<int>(Part::kExperts)];
  if (machine.on_cuda()) use_cuda_device(machine.ordinal);
  const std::uint64_t available = machine.on_cuda() ? cuda_free_memory() : available_memory();
  const std::uint64_t limit = o.common.memory_limit > 0 ? o.common.memory_limit : available;
  report.plan = plan_memory(c, report.stored_bytes - owned, owned, shape, limit);
  report.plan.forms = weight_forms(c);
  plan_layers(report);
  return report;
}

void print_json(const Report& r, const InspectOptions& o) {
  const Config& c = r.config;
  JsonWriter json;
  json.begin_object().field("model", r.subject).field("model_type", c.model_type);
  json.key("parameters").begin_object().field("total", r.parameters.total).field("active", r.parameters.active);
  json.key("by_part").begin_object();
  for (int part = 0; part < 7; ++part) json.field(part_name(static_cast<Part>(part)), r.parameters.by_part[part]);
  json.end_object().end_object();
  json.key("stored").begin_object().field("tensor_bytes", r.stored_bytes);
  json.key("by_part").begin_object();
  for (int part = 0; part < 7; ++part) json.field(part_name(static_cast<Part>(part)), r.stored_by_part[part]);
  json.end_object();
  if (r.disk_files > 0) {
    json.field("file_bytes", r.disk_bytes).field("files", static_cast<std::int64_t>(r.disk_files));
    json.field("tensors", static_cast<std::int64_t>(r.disk_tensors)).key("by_dtype").begin_object();
    for (const auto& [dtype, bytes] : r.disk_by_dtype) json.field(dtype, bytes);
    json.end_object();
  }
  json.end_object();
  json.key("memory")
      .begin_object()
      .field("context", r.context)
      .field("sequences", o.sequences)
      .field("kv_dtype", dtype_name(r.kv_dtype));
  json.field("weights_mapped", r.plan.weights_mapped).field("weights_owned", r.plan.weights_owned);
  json.field("kv_cache", r.plan.kv_cache).field("activations", r.plan.activations).field("workspace", r.plan.workspace);
  if (r.plan.device != DeviceKind::kCpu) {
    const WeightForms& forms = r.plan.forms;
    json.field("reserve", r.plan.reserve).key("weights").begin_object().field("experts", forms.experts);
    json.field("experts_bf16", forms.expanded).field("attention", forms.attention);
    json.field("embeddings", forms.embeddings).field("vision", forms.vision).end_object();
  }
  json.field("total", r.plan.total()).field("limit", r.plan.limit).end_object();
  json.key("layers").begin_array();
  for (const Layer& layer : r.layers) {
    json.begin_object().field("attention", layer.attention).field("position", layer.position);
    json.field("kv_bytes", layer.kv_bytes).end_object();
  }
  json.end_array().key("config").raw(config_json(c)).end_object();
  put(json.str() + "\n");
}

std::string describe(const Config& c) {
  std::string text =
      fmt::format("{} layers, hidden {}, {} experts (top {}) of width {}, {}/{} heads x {}, vocabulary {}, context {}",
                  c.num_hidden_layers, c.hidden_size, c.num_local_experts, c.num_experts_per_tok, c.intermediate_size,
                  c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.vocab_size, c.max_position_embeddings);
  if (c.use_vision) {
    const VisionConfig& v = c.vision;
    text += fmt::format(
        "\npictures: ViT of {} layers, width {}, {} heads, {} x {} pixels in patches of {}, {} rows a picture",
        v.num_layers, v.embed_dim, v.num_heads, v.image_size, v.image_size, v.patch_size, v.tokens());
  }
  return text;
}

void print_text(const Report& r, const InspectOptions& o) {
  std::string out = fmt::format("{} ({})\n{}\n\n", r.subject, r.config.model_type, describe(r.config));
  out += fmt::format("parameters {} ({}), active for a text token {} ({})\n", with_commas(r.parameters.total),
                     human_count(static_cast<double>(r.parameters.total)), with_commas(r.parameters.active),
                     human_count(static_cast<double>(r.parameters.active)));
  Table parts({"part", "parameters", "stored"});
  for (int part = 0; part < 7; ++part) {
    if (r.parameters.by_part[part] == 0) continue;
    parts.add({part_name(static_cast<Part>(part)), with_commas(r.parameters.by_part[part]),
               human_bytes(static_cast<double>(r.stored_by_part[part]))});
  }
  parts.add({"total", with_commas(r.parameters.total), human_bytes(static_cast<double>(r.stored_bytes))});
  out += parts.str();
  if (r.disk_files > 0) {
    out += fmt::format("on disk {} in {} files, {} tensors:", human_bytes(static_cast<double>(r.disk_bytes)),
                       r.disk_files, r.disk_tensors);
    for (const auto& [dtype, bytes] : r.disk_by_dtype)
      out += fmt::format(" {} {}", dtype, human_bytes(static_cast<double>(bytes)));
    out += '\n';
    if (r.has_chat_template) out += "chat template: present (never executed)\n";
  }
  out += fmt::format("\nmemory for {} sequence{} of {} positions, cache in {}\n{}", o.sequences,
                     o.sequences == 1 ? "" : "s", r.context, dtype_name(r.kv_dtype), r.plan.str());
  Table layers({"layer", "attention", "position", "cache"});
  for (std::size_t i = 0; i < r.layers.size(); ++i) {
    layers.add({std::to_string(i), r.layers[i].attention, r.layers[i].position,
                human_bytes(static_cast<double>(r.layers[i].kv_bytes))});
  }
  put(out + "\n" + layers.str());
}

int run_inspect(const Program& program, const InspectOptions& o) {
  const Report report = make_report(o, program);
  if (o.common.json) print_json(report, o);
  else print_text(report, o);
  return 0;
}

}  // namespace

void add_inspect(CLI::App& root, Program& program) {
  const auto o = std::make_shared<InspectOptions>();
  CLI::App& app = *root.add_subcommand("inspect", "Parameters, sizes, memory and layers of a model folder or preset");
  app.add_option("subject", o->subject,
                 fmt::format("Model folder or preset ({}); default as for --model", fmt::join(preset_names(), ", ")))
      ->type_name("MODEL");
  add_model_option(app, o->common);
  app.add_option("-c,--context", o->common.context,
                 "Positions to plan memory for; 0 = 8192 or the model's maximum if less")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 24))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--sequences", o->sequences, "Sequences at once to plan memory for")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{4096}))
      ->type_name("N")
      ->capture_default_str();
  o->common.device = "cpu";
  app.add_option("--device", o->common.device, "Whose memory to plan: auto, cpu or cuda[:N]")
      ->type_name("NAME")
      ->capture_default_str();
  add_type_options(app, o->common);
  add_size(app, "--memory-limit", o->common.memory_limit, "Compare the plan with this much memory, e.g. 24GiB");
  add_output_options(app, o->common);
  app.footer(kExamples);
  app.callback([&program, o] { program.action = [&program, o] { return run_inspect(program, *o); }; });
}

}  // namespace gov::cli
