#include "train/export_model.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/half.h"
#include "base/mxfp4.h"
#include "io/mapped_file.h"

namespace gov::train {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxFileBytes = 256u << 20;

void copy_files(CheckpointWriter& writer, const fs::path& from, std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (fs::is_regular_file(from / name)) writer.add_file(name, read_text_file(from / name, kMaxFileBytes));
}

[[noreturn]] void not_finite(const ParameterSpec& spec) {
  fail(ErrorCode::kInvalidArgument, "{} holds a value that is not finite as it would be stored", spec.name);
}

void write_floats(CheckpointWriter& writer, const ParameterSpec& spec, std::span<const float> values, DType dtype) {
  std::vector<bf16> rounded;
  if (dtype == DType::kBF16) {
    rounded.resize(values.size());
    std::transform(values.begin(), values.end(), rounded.begin(), [](float x) { return to_bf16(x); });
  }
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(rounded.empty() ? values[i] : to_f32(rounded[i]))) not_finite(spec);
  writer.write(spec.name, rounded.empty() ? std::as_bytes(values) : std::as_bytes(std::span(rounded)));
}

// The two tensors of one projection. weight [E, out, in], as it is used: the packed form has the same order.
void write_packed(CheckpointWriter& writer, const ParameterSpec& dense, const Tensor& weight) {
  const float* values = weight.as<float>();
  const auto count = static_cast<std::size_t>(weight.elements() / kMxfp4Block);
  std::vector<std::uint8_t> blocks(count * kMxfp4BlockBytes), scales(count);
  for (std::size_t b = 0; b < count; ++b) {
    const float* block = values + b * kMxfp4Block;
    if (!std::all_of(block, block + kMxfp4Block, [](float x) { return std::isfinite(x); })) not_finite(dense);
    mxfp4_encode_block(block, blocks.data() + b * kMxfp4BlockBytes, &scales[b]);
  }
  writer.write(dense.name + "_blocks", std::as_bytes(std::span(blocks)));
  writer.write(dense.name + "_scales", std::as_bytes(std::span(scales)));
}

void check_masters(const Config& config, const ParameterSet& masters) {
  std::vector<std::string> missing;
  auto next = masters.entries().begin();
  for (const ParameterSpec& spec : parameter_table(export_config(config, ExportForm::kF32))) {
    if (next != masters.entries().end() && next->spec.name == spec.name) ++next;
    else missing.push_back(spec.name);
  }
  if (!missing.empty()) {
    fail(ErrorCode::kInvalidArgument, "the weights to export lack {}{}", missing.front(),
         missing.size() > 1 ? fmt::format(" and {} more", missing.size() - 1) : "");
  }
  GOV_DCHECK(std::all_of(masters.entries().begin(), masters.entries().end(), [](const ParameterSet::Entry& entry) {
    return entry.tensor.dtype == DType::kF32 && entry.tensor.device == DeviceKind::kCpu;
  }));
}

}  // namespace

Config export_config(Config config, ExportForm form) {
  config.dtype = form == ExportForm::kF32 ? "float32" : "bfloat16";
  config.mxfp4_experts = form == ExportForm::kMxfp4;
  return config;
}

void copy_tokenizer_files(CheckpointWriter& writer, const fs::path& from) {
  if (!fs::is_directory(from)) {
    const std::string name = from.filename().string();
    copy_files(writer, from.parent_path(), {name.c_str()});
    if (name == "vocab.json") copy_files(writer, from.parent_path(), {"merges.txt"});
    return;
  }
  copy_files(writer, from,
             {"tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
              "added_tokens.json", "chat_template.jinja", "chat_template.json"});
  for (const fs::directory_entry& entry : fs::directory_iterator(from)) {
    if (entry.path().extension() == ".tiktoken")
      writer.add_file(entry.path().filename().string(), read_text_file(entry.path(), kMaxFileBytes));
  }
}

void export_model(const fs::path& folder, const Config& config, const ParameterSet& masters, ExportForm form,
                  const ExportFiles& files, std::uint64_t max_shard_bytes) {
  const Config stored = export_config(config, form);
  validate(stored);
  check_masters(config, masters);
  const DType dtype = form == ExportForm::kF32 ? DType::kF32 : DType::kBF16;
  std::vector<TensorSpec> specs;
  for (const ParameterSpec& spec : parameter_table(stored))
    specs.push_back({spec.name, spec.storage == Storage::kU8 ? DType::kU8 : dtype, spec.shape});
  CheckpointWriter writer(folder, std::move(specs), max_shard_bytes);
  for_each_stored(
      masters, [&, next = masters.entries().begin()](const ParameterSpec& spec, std::span<const float> values) mutable {
        const Tensor& used = (next++)->tensor;
        if (stored.mxfp4_experts && spec.storage == Storage::kExpertMatrix) write_packed(writer, spec, used);
        else write_floats(writer, spec, values, dtype);
      });
  writer.add_file("config.json", config_json(stored));
  if (!files.tokenizer.empty()) copy_tokenizer_files(writer, files.tokenizer);
  if (!files.folder.empty())
    copy_files(writer, files.folder, {"generation_config.json", "preprocessor_config.json", "processor_config.json"});
  writer.finish();
}

}  // namespace gov::train
