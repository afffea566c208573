#include "tensor/tensor.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>
#include <utility>

#include "tensor/device.h"

namespace gov {

namespace detail {  // device_cuda.cc, or device_none.cc in builds without CUDA
void* cuda_allocate(std::size_t bytes, std::string_view purpose);
void cuda_free(void* data) noexcept;
}  // namespace detail

std::size_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64: return 8;
    case DType::kF32:
    case DType::kI32: return 4;
    case DType::kBF16:
    case DType::kF16:
    case DType::kI16: return 2;
    case DType::kU8:
    case DType::kI8:
    case DType::kF8E4M3:
    case DType::kBool: return 1;
  }
  return 0;
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "f32";
    case DType::kBF16: return "bf16";
    case DType::kF8E4M3: return "f8_e4m3";
    case DType::kF16: return "f16";
    case DType::kF64: return "f64";
    case DType::kU8: return "u8";
    case DType::kI8: return "i8";
    case DType::kBool: return "bool";
    case DType::kI16: return "i16";
    case DType::kI32: return "i32";
    case DType::kI64: return "i64";
  }
  return "unknown";
}

Shape::Shape(std::span<const std::int64_t> extents) : rank_(static_cast<int>(extents.size())) {
  GOV_DCHECK(extents.size() <= kMaxRank);
  for (std::size_t i = 0; i < extents.size(); ++i) extents_[i] = extents[i];
}

std::int64_t Shape::elements() const {
  std::int64_t product = 1;
  for (int axis = 0; axis < rank_; ++axis) product *= (*this)[axis];
  return product;
}

std::string Shape::str() const { return fmt::format("[{}]", fmt::join(extents(), ", ")); }

Tensor Tensor::slice(std::int64_t begin, std::int64_t count) const {
  GOV_DCHECK(begin >= 0 && count >= 0 && begin + count <= shape[0]);
  Tensor part = *this;
  std::array<std::int64_t, kMaxRank> extents{};
  for (int axis = 0; axis < shape.rank(); ++axis) extents[static_cast<std::size_t>(axis)] = shape[axis];
  extents[0] = count;
  part.shape = Shape(std::span<const std::int64_t>(extents.data(), static_cast<std::size_t>(shape.rank())));
  part.data = static_cast<char*>(data) + static_cast<std::size_t>(begin * row_elements()) * dtype_size(dtype);
  return part;
}

Tensor Tensor::view(Shape extents) const {
  GOV_DCHECK(extents.elements() == elements());
  Tensor other = *this;
  other.shape = extents;
  return other;
}

Buffer::Buffer(std::size_t bytes, DeviceKind device, std::string_view purpose) : bytes_(bytes), device_(device) {
  if (device == DeviceKind::kCuda) {
    data_ = detail::cuda_allocate(bytes > 0 ? bytes : 1, purpose);
    return;
  }
  if (bytes == 0) return;
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  // Large blocks start on a huge page and ask for them: fewer TLB misses while weights and caches stream.
  const std::size_t alignment = bytes >= kHugePage ? kHugePage : 64;
  if (bytes > SIZE_MAX - alignment) fail(ErrorCode::kOutOfMemory, "out of memory: {} bytes for {}", bytes, purpose);
  data_ = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (!data_) fail(ErrorCode::kOutOfMemory, "out of memory: {} bytes for {}", bytes, purpose);
  if (alignment == kHugePage) madvise(data_, bytes, MADV_HUGEPAGE);
}

Buffer::~Buffer() {
  if (device_ == DeviceKind::kCpu) std::free(data_);
  else if (data_) detail::cuda_free(data_);
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)), device_(other.device_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(device_, other.device_);
  return *this;
}

PinnedBuffer::PinnedBuffer(PinnedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace gov
