#include <algorithm>
#include <bit>
#include <numeric>

#include "base/checked.h"
#include "base/json_writer.h"
#include "base/utf8.h"
#include "io/safetensors.h"

namespace gov {
namespace {

constexpr std::uint64_t kDataAlignment = 64;

static_assert(std::endian::native == std::endian::little, "tensor data is stored little endian, as in memory");

void check_spec(const TensorSpec& tensor) {
  if (tensor.name == "__metadata__" || !utf8_valid(tensor.name)) {
    fail(ErrorCode::kInvalidArgument, "'{}' cannot be the name of a tensor", printable(tensor.name));
  }
  CheckedSize bits = 8 * dtype_size(tensor.dtype);
  for (const std::int64_t extent : tensor.shape.extents()) {
    if (extent < 0) bits *= UINT64_MAX;
    else if (extent > 0) bits *= static_cast<std::uint64_t>(extent);
  }
  if (!bits.valid() || *bits.value() > INT64_MAX) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}' cannot have the shape {}", printable(tensor.name),
         tensor.shape.str());
  }
}

std::vector<std::size_t> data_order(const std::vector<TensorSpec>& tensors) {
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const std::size_t size_a = dtype_size(tensors[a].dtype), size_b = dtype_size(tensors[b].dtype);
    return size_a != size_b ? size_a > size_b : tensors[a].name < tensors[b].name;
  });
  return order;
}

void write_metadata(JsonWriter& json, const std::map<std::string, std::string>& metadata) {
  if (metadata.empty()) return;
  if (metadata.size() > kMaxSafetensorsMetadata) fail(ErrorCode::kInvalidArgument, "too many metadata pairs");
  json.key("__metadata__").begin_object();
  for (const auto& [key, value] : metadata) {
    if (!utf8_valid(key) || !utf8_valid(value)) {
      fail(ErrorCode::kInvalidArgument, "metadata '{}' is not UTF-8", printable(key));
    }
    json.field(key, value);
  }
  json.end_object();
}

}  // namespace

void check_tensor_specs(std::span<const TensorSpec> tensors) {
  if (tensors.size() > kMaxSafetensorsTensors) {
    fail(ErrorCode::kInvalidArgument, "{} tensors are more than the limit of {}", tensors.size(),
         kMaxSafetensorsTensors);
  }
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorSpec& tensor : tensors) {
    check_spec(tensor);
    names.push_back(tensor.name);
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) fail(ErrorCode::kInvalidArgument, "tensor '{}' is listed twice", printable(*twice));
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path), tensors_(std::move(tensors)), begins_(tensors_.size()) {
  check_tensor_specs(tensors_);
  JsonWriter json;
  json.begin_object();
  write_metadata(json, metadata);
  CheckedSize data_bytes = 0;
  for (const std::size_t index : data_order(tensors_)) {
    const TensorSpec& tensor = tensors_[index];
    begins_[index] = *data_bytes.value();
    data_bytes += tensor.bytes();
    if (!data_bytes.valid() || *data_bytes.value() > INT64_MAX / 2) {
      fail(ErrorCode::kInvalidArgument, "the tensors are too large together");
    }
    json.key(tensor.name)
        .begin_object()
        .field("dtype", safetensors_dtype_name(tensor.dtype))
        .key("shape")
        .begin_array();
    for (const std::int64_t extent : tensor.shape.extents()) json.value(extent);
    json.end_array().key("data_offsets").begin_array().value(begins_[index]).value(*data_bytes.value()).end_array();
    json.end_object();
  }
  json.end_object();
  std::string header = json.take();
  header.resize((8 + header.size() + kDataAlignment - 1) / kDataAlignment * kDataAlignment - 8, ' ');
  if (header.size() > kMaxSafetensorsHeader) fail(ErrorCode::kInvalidArgument, "the tensors need too large a header");
  std::string start(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) start[i] = static_cast<char>(header.size() >> (8 * i));
  start += header;
  file_.write_at(0, std::as_bytes(std::span(start)));
  for (std::uint64_t& begin : begins_) begin += start.size();
  file_bytes_ = start.size() + *data_bytes.value();
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  for (;;) {
    while (current_ < tensors_.size() && written_ == tensors_[current_].bytes()) {
      ++current_;
      written_ = 0;
    }
    if (bytes.empty()) return;
    if (current_ == tensors_.size()) {
      fail(ErrorCode::kInvalidArgument, "{}: {} bytes more than the tensors need", path_text(file_.path()),
           bytes.size());
    }
    const std::uint64_t count = std::min<std::uint64_t>(bytes.size(), tensors_[current_].bytes() - written_);
    file_.write_at(begins_[current_] + written_, bytes.first(static_cast<std::size_t>(count)));
    written_ += count;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

void SafetensorsWriter::finish() {
  write({});  // steps over empty tensors at the end
  if (current_ != tensors_.size()) {
    fail(ErrorCode::kInvalidArgument, "{}: the data of tensor '{}' is missing", path_text(file_.path()),
         printable(tensors_[current_].name));
  }
  file_.commit();
}

}  // namespace gov
