#include "tensor/context.h"

#include <algorithm>

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

void* Workspace::take_bytes(std::size_t bytes) {
  bytes = (bytes + 255) / 256 * 256;
  if (used_ == 0 && blocks_.size() > 1) {  // the op before outgrew its block: keep only the newest, largest one
    std::swap(blocks_.front(), blocks_.back());
    blocks_.resize(1);
  }
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

}  // namespace gov
