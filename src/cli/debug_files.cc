#include "cli/debug_files.h"

#include "io/safetensors.h"

namespace gov::cli {
namespace {

Tensor require(const SafetensorsFile& file, std::string_view name, DType dtype,
               std::initializer_list<std::int64_t> shape) {
  const SafetensorsEntry* entry = file.find(name);
  if (entry == nullptr) fail(ErrorCode::kNotFound, "'{}' has no tensor {}", printable(file.path().string()), name);
  const Tensor tensor = file.tensor(*entry);
  bool matches = tensor.dtype == dtype && tensor.shape.rank() == static_cast<int>(shape.size());
  int axis = 0;
  for (const std::int64_t extent : shape) {
    matches = matches && (extent < 0 || tensor.shape[axis] == extent);  // negative: any
    ++axis;
  }
  if (!matches) {
    fail(ErrorCode::kInvalidArgument, "{} is {} {}, expected {} {}", name, dtype_name(tensor.dtype), tensor.shape.str(),
         dtype_name(dtype), Shape(shape).str());
  }
  return tensor;
}

std::vector<std::uint8_t> read_mask(const SafetensorsFile& file, std::int64_t batch, std::int64_t text) {
  const SafetensorsEntry* entry = file.find("loss_mask");
  if (entry == nullptr) return {};
  const Tensor mask = require(file, "loss_mask", entry->dtype == DType::kU8 ? DType::kU8 : DType::kBool, {batch, text});
  return {mask.as<std::uint8_t>(), mask.as<std::uint8_t>() + mask.elements()};
}

}  // namespace

Inputs read_inputs(const std::string& path, const Config& config) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const Tensor ids = require(file, "input_ids", DType::kI64, {-1, -1});
  Inputs in;
  in.batch = ids.shape[0];
  in.text = ids.shape[1];
  if (in.batch < 1 || in.text < 1) fail(ErrorCode::kInvalidArgument, "input_ids {} is empty", ids.shape.str());
  for (std::int64_t i = 0; i < ids.elements(); ++i) {
    const std::int64_t id = ids.as<std::int64_t>()[i];
    if (id < 0 || id >= config.vocab_size)
      fail(ErrorCode::kInvalidArgument, "input_ids: {} is outside 0..{}", id, config.vocab_size - 1);
    in.ids.push_back(id);
  }
  if (file.find("pixel_values") != nullptr) {
    if (!config.use_vision) fail(ErrorCode::kInvalidArgument, "pixel_values are given but the model takes no pictures");
    const std::int64_t side = config.vision.image_size;
    const Tensor pixels = require(file, "pixel_values", DType::kF32, {in.batch, 3, side, side});
    in.pixels.assign(pixels.as<float>(), pixels.as<float>() + pixels.elements());
  }
  in.loss_mask = read_mask(file, in.batch, in.text);
  return in;
}

void write_results(const std::string& path, const Results& results) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, result] : results) specs.push_back({name, result.dtype, result.shape});
  SafetensorsWriter writer(path, std::move(specs));
  for (const auto& [name, result] : results) writer.write(result.bytes);
  writer.finish();
}

}  // namespace gov::cli
