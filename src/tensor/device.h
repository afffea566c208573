#pragma once
// The accelerators of this machine: what there is, streams, pinned memory and copies. In a build without CUDA every
// function that needs a device throws Error kUnsupported, and cuda_device_count() is 0.

#include <cstdint>
#include <string>

#include "tensor/tensor.h"

namespace gov {

struct DeviceInfo {
  int ordinal = 0;
  std::string name;
  int capability = 0;       // 10 * major + minor: 90 for an H100
  int multiprocessors = 0;  // queried, never assumed
  std::uint64_t total_memory = 0;
  std::uint64_t l2_bytes = 0;
  std::uint64_t shared_bytes_per_block = 0;  // most dynamic shared memory that a block may ask for
  int driver_version = 0;                    // as CUDA counts: 13000
};

int cuda_device_count();
// Whether this program holds CUDA code at all.
bool built_with_cuda();
// Error kUnsupported ("built without CUDA"), kDevice (no such GPU).
const DeviceInfo& cuda_device_info(int ordinal);
// Makes `ordinal` the device of this host thread: for allocations, streams and ops that follow.
void use_cuda_device(int ordinal);
// Free memory of the current device.
std::uint64_t cuda_free_memory();

// Owner of a CUDA stream of the current device; move-only. `get()` is a cudaStream_t.
class Stream {
 public:
  Stream() = default;
  static Stream create();
  ~Stream();
  Stream(Stream&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Stream& operator=(Stream&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  void* get() const { return handle_; }

 private:
  void* handle_ = nullptr;
};

// Host memory that a device copies from and to without a detour: page-locked where there is CUDA, ordinary otherwise.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(std::size_t bytes, std::string_view purpose);
  ~PinnedBuffer();
  PinnedBuffer(PinnedBuffer&& other) noexcept;
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Copies between any two devices in the order of `stream` (a cudaStream_t; unused between host addresses). To pageable
// host memory the copy is complete on return; everything else needs synchronize().
void copy_bytes(void* to, DeviceKind to_device, const void* from, DeviceKind from_device, std::size_t bytes,
                void* stream);
// Every byte becomes `value`, in the order of `stream`.
void fill_bytes(void* to, DeviceKind device, int value, std::size_t bytes, void* stream);
// Waits for everything in the stream; reports what failed in it as Error kDevice.
void synchronize(void* stream);

}  // namespace gov
