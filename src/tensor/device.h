#pragma once
// The accelerators of this machine: what there is, streams, pinned memory and copies. In a build without CUDA every
// function that needs a device throws Error kUnsupported, and cuda_device_count() is 0.

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/thread_pool.h"
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
// Waits for everything that the current device was given, in any stream.
void synchronize_device();

// A point in a stream: when the work before it is done, and how much time lies between two such points. Move-only.
class Event {
 public:
  Event() = default;
  static Event create();
  ~Event();
  Event(Event&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  void record(void* stream);
  void wait() const;  // returns at once if it was never recorded
  double seconds_since(const Event& earlier) const;

 private:
  void* handle_ = nullptr;
};

// Work that was recorded instead of done, to be done by one call. It holds the addresses it was recorded with.
// Move-only.
class Graph {
 public:
  Graph() = default;
  // Records what `work` puts into the stream. An exception of `work` passes through; nothing is recorded then.
  static Graph capture(void* stream, const std::function<void()>& work);
  ~Graph();
  Graph(Graph&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Graph& operator=(Graph&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  void launch(void* stream) const;
  explicit operator bool() const { return handle_ != nullptr; }

 private:
  void* handle_ = nullptr;
};

// One copy of upload(): `read` fills host memory with bytes [offset, offset + out.size()) of the source; several
// threads call it at once.
struct UploadJob {
  std::function<void(std::uint64_t offset, std::span<std::byte> out)> read;
  void* to = nullptr;  // on the device
  std::uint64_t bytes = 0;
};
// Fills device memory from sources in host memory or files: threads of the pool read pieces into page-locked buffers of
// their own, two each, while earlier pieces are on their way to the device. Returns when everything has arrived.
// `progress` is called with the bytes done so far, by one thread.
void upload(std::span<const UploadJob> jobs, int ordinal, ThreadPool& pool,
            const std::function<void(std::uint64_t done)>& progress = {});

}  // namespace gov
