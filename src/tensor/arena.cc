#include "tensor/arena.h"

namespace gov {

void Arena::plan(Tensor* out, std::string_view name, DType dtype, Shape shape) {
  constexpr std::size_t kAlign = 256;  // what vector loads and the copy engines of a GPU like
  entries_.push_back({out, name, dtype, shape, bytes_});
  const std::size_t bytes = static_cast<std::size_t>(shape.elements()) * dtype_size(dtype);
  bytes_ += (bytes + kAlign - 1) / kAlign * kAlign;
}

void Arena::commit(DeviceKind device, std::string_view purpose) {
  buffer_ = Buffer(bytes_, device, purpose);
  for (const Entry& entry : entries_) {
    *entry.out =
        Tensor(static_cast<char*>(buffer_.data()) + entry.offset, entry.dtype, entry.shape, entry.name, device);
  }
  entries_.clear();
}

}  // namespace gov
