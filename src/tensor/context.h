#pragma once
// Context: everything an op needs besides its tensors. One per thread of execution; it is passed, never global.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "base/cpu_info.h"
#include "base/thread_pool.h"
#include "tensor/tensor.h"

namespace gov {

// What the ops of a run have moved and computed, by their own formulas: the numbers behind GB/s and TFLOP/s.
struct Counters {
  double bytes = 0;  // weights, activations and cache read or written
  double flops = 0;  // multiply and add counted as two
  std::int64_t ops = 0;
};

// Scratch memory for the inside of one op. It grows to the largest request and is reused; views die at the next op.
class Workspace {
 public:
  explicit Workspace(DeviceKind device = DeviceKind::kCpu) : device_(device) {}
  // Starts an op: all views handed out before become invalid.
  void reset() { used_ = 0; }
  // 256-byte aligned scratch; contents undefined. Several calls after one reset() give disjoint blocks.
  template <class T>
  T* take(std::int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<std::size_t>(count) * sizeof(T)));
  }
  // Makes sure that `bytes` are there without a further allocation.
  void reserve(std::size_t bytes);
  // Gives back what the op before outgrew, so that nothing is freed later.
  void compact();
  std::size_t capacity() const { return capacity_; }
  // Changes whenever memory handed out before may be gone: what recorded its addresses must be recorded again.
  std::int64_t generation() const { return generation_; }

 private:
  DeviceKind device_;
  std::int64_t generation_ = 0;
  void* take_bytes(std::size_t bytes);
  std::vector<Buffer> blocks_;  // the last is current; older ones live until the next reset
  std::size_t capacity_ = 0;    // of the current block
  std::size_t used_ = 0;
};

struct Context {
  Context() = default;
  // On a GPU: `cuda_stream` is a cudaStream_t, in whose order all ops run; it must outlive the context.
  Context(int cuda_ordinal, void* cuda_stream)
      : device(DeviceKind::kCuda), ordinal(cuda_ordinal), stream(cuda_stream), workspace(DeviceKind::kCuda) {}

  DeviceKind device = DeviceKind::kCpu;
  int ordinal = 0;               // CUDA: index of the GPU
  void* stream = nullptr;        // CUDA: cudaStream_t
  ThreadPool* pool = nullptr;    // CPU: required
  CpuIsa isa = cpu_info().best;  // CPU: kernels to use; lower it to test another path
  Workspace workspace;
  std::shared_ptr<void> library_state;  // CUDA: handles and counters that the ops keep between calls
  Counters counters;
  const std::atomic<bool>* cancel = nullptr;  // when it becomes true the next op throws Error kCancelled
  // Called with named intermediate results (hidden.N, router_logits.N, ...), in host memory and F32 or integers,
  // whatever the device and the type of the activations; empty in normal runs.
  std::function<void(std::string_view name, const Tensor& value)> trace;

  bool on_cuda() const { return device == DeviceKind::kCuda; }
  // Start of every op: honours cancellation, resets the workspace, adds to the counters.
  void begin_op(double bytes, double flops);
  // Hands a value to the trace hook, if there is one.
  void emit(std::string_view name, const Tensor& value);
};

}  // namespace gov
