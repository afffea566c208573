#pragma once
// Arena: a named plan of tensors first, then one allocation that holds them all. The plan can be printed before
// anything is allocated, and nothing is allocated while the model runs.

#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace gov {

class Arena {
 public:
  // Plans a tensor; `out` receives its view when commit() runs, so it must stay at its address until then.
  void plan(Tensor* out, std::string_view name, DType dtype, Shape shape);
  // Bytes that commit() will take, alignment included.
  std::size_t planned_bytes() const { return bytes_; }
  // Allocates once and hands out all views. The arena keeps the memory.
  void commit(DeviceKind device, std::string_view purpose);

 private:
  struct Entry {
    Tensor* out;
    std::string_view name;
    DType dtype;
    Shape shape;
    std::size_t offset;
  };
  std::vector<Entry> entries_;
  std::size_t bytes_ = 0;
  Buffer buffer_;
};

}  // namespace gov
