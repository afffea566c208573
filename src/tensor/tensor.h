#pragma once
// Tensor: a named, shaped, non-owning, contiguous (row-major) view of memory on a device. Buffer owns such memory.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/half.h"

namespace gov {

enum class DType : std::uint8_t { kF32, kBF16, kF16, kF64, kU8, kI8, kBool, kI16, kI32, kI64, kF8E4M3 };

std::size_t dtype_size(DType dtype);  // bytes per element
const char* dtype_name(DType dtype);  // "f32", "bf16", ...
template <class T>
inline constexpr DType kDTypeOf = DType::kU8;
template <>
inline constexpr DType kDTypeOf<float> = DType::kF32;
template <>
inline constexpr DType kDTypeOf<double> = DType::kF64;
template <>
inline constexpr DType kDTypeOf<bf16> = DType::kBF16;
template <>
inline constexpr DType kDTypeOf<f16> = DType::kF16;
template <>
inline constexpr DType kDTypeOf<std::int32_t> = DType::kI32;
template <>
inline constexpr DType kDTypeOf<std::int64_t> = DType::kI64;

enum class DeviceKind : std::uint8_t { kCpu, kCuda };

inline constexpr int kMaxRank = 5;

// Up to five extents, outermost first.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents) : Shape(std::span(extents.begin(), extents.size())) {}
  explicit Shape(std::span<const std::int64_t> extents);

  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const { return extents_[static_cast<std::size_t>(axis)]; }
  std::int64_t back() const { return extents_[static_cast<std::size_t>(rank_ - 1)]; }
  std::int64_t elements() const;  // product; 1 for rank 0
  std::span<const std::int64_t> extents() const { return {extents_.data(), static_cast<std::size_t>(rank_)}; }
  std::string str() const;  // "[2, 48, 96]"
  bool operator==(const Shape& other) const = default;

 private:
  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  DeviceKind device = DeviceKind::kCpu;
  Shape shape;
  std::string_view name;  // for messages; the text must outlive the tensor (a literal or a checkpoint's name)

  Tensor() = default;
  Tensor(void* memory, DType type, Shape extents, std::string_view label = "", DeviceKind where = DeviceKind::kCpu)
      : data(memory), dtype(type), device(where), shape(extents), name(label) {}
  template <class T>
  static Tensor of(T* memory, Shape extents, std::string_view label = "") {
    return Tensor(const_cast<std::remove_const_t<T>*>(memory), kDTypeOf<std::remove_const_t<T>>, extents, label);
  }

  explicit operator bool() const { return data != nullptr; }
  std::int64_t elements() const { return shape.elements(); }
  std::size_t bytes() const { return static_cast<std::size_t>(elements()) * dtype_size(dtype); }
  std::int64_t rows() const { return shape[0]; }
  std::int64_t row_elements() const { return shape[0] == 0 ? 0 : elements() / shape[0]; }

  // The elements as T; the dtype must match (checked in debug builds).
  template <class T>
  T* as() const {
    GOV_DCHECK(kDTypeOf<T> == dtype || sizeof(T) == 1);
    return static_cast<T*>(data);
  }
  // Rows [begin, begin + count) of the outermost axis.
  Tensor slice(std::int64_t begin, std::int64_t count) const;
  // The same memory under another shape of equally many elements.
  Tensor view(Shape extents) const;
};

// Owner of device memory: 64-byte aligned, move-only. Contents are undefined until written.
class Buffer {
 public:
  Buffer() = default;
  Buffer(std::size_t bytes, DeviceKind device, std::string_view purpose);  // Error kOutOfMemory names the purpose
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  DeviceKind device() const { return device_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  DeviceKind device_ = DeviceKind::kCpu;
};

}  // namespace gov
