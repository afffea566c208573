#include "tensor/context.h"

#include <algorithm>

#include "tensor/device.h"

namespace gov {

void Workspace::reserve(std::size_t bytes) {
  if (bytes <= capacity_) return;
  blocks_.clear();
  capacity_ = 0;
  blocks_.emplace_back(bytes, device_, "op workspace");
  ++generation_;
  capacity_ = bytes;
  used_ = 0;
}

void Workspace::compact() {
  if (blocks_.size() > 1) {  // the op before outgrew its block: keep only the newest, largest one
    std::swap(blocks_.front(), blocks_.back());
    blocks_.resize(1);
  }
  used_ = 0;
}

void* Workspace::take_bytes(std::size_t bytes) {
  bytes = (bytes + 255) / 256 * 256;
  if (used_ == 0) compact();
  if (used_ + bytes > capacity_) {
    const std::size_t grown = std::max(bytes, capacity_ + capacity_ / 2);
    blocks_.emplace_back(grown, device_, "op workspace");
    ++generation_;
    capacity_ = grown;
    used_ = 0;
  }
  char* start = static_cast<char*>(blocks_.back().data()) + used_;
  used_ += bytes;
  return start;
}

void Context::begin_op(double bytes, double flops) {
  if (cancel && cancel->load(std::memory_order_relaxed)) fail(ErrorCode::kCancelled, "cancelled");
  workspace.reset();
  counters.bytes += bytes;
  counters.flops += flops;
  ++counters.ops;
}

void Context::emit(std::string_view name, const Tensor& value) {
  if (!trace) return;
  std::vector<std::byte> copy;
  Tensor host = value;
  if (value.device != DeviceKind::kCpu) {
    copy.resize(value.bytes());
    copy_bytes(copy.data(), DeviceKind::kCpu, value.data, value.device, copy.size(), stream);
    synchronize(stream);
    host.data = copy.data();
    host.device = DeviceKind::kCpu;
  }
  std::vector<float> wide;
  if (host.dtype == DType::kBF16) {
    const bf16* const narrow = host.as<bf16>();
    for (std::int64_t i = 0; i < host.elements(); ++i) wide.push_back(to_f32(narrow[i]));
    host.data = wide.data();
    host.dtype = DType::kF32;
  }
  trace(name, host);
}

}  // namespace gov
