// Stands in for the device functions in builds without CUDA.
#include <cstdlib>
#include <cstring>

#include "tensor/device.h"

namespace gov {
namespace {
[[noreturn]] void refuse(std::string_view what) { fail(ErrorCode::kUnsupported, "built without CUDA: {}", what); }
}  // namespace

namespace detail {
void* cuda_allocate(std::size_t, std::string_view purpose) { refuse(fmt::format("cannot allocate {}", purpose)); }
void cuda_free(void*) noexcept {}
}  // namespace detail

int cuda_device_count() { return 0; }
bool built_with_cuda() { return false; }
const DeviceInfo& cuda_device_info(int) { refuse("no device"); }
void use_cuda_device(int) { refuse("no device"); }
std::uint64_t cuda_free_memory() { refuse("no device"); }
Stream Stream::create() { refuse("no stream"); }
Stream::~Stream() = default;

PinnedBuffer::PinnedBuffer(std::size_t bytes, std::string_view purpose)
    : data_(std::malloc(bytes > 0 ? bytes : 1)), bytes_(bytes) {
  if (!data_) fail(ErrorCode::kOutOfMemory, "out of memory: {} bytes for {}", bytes, purpose);
}
PinnedBuffer::~PinnedBuffer() { std::free(data_); }

void copy_bytes(void* to, DeviceKind to_device, const void* from, DeviceKind from_device, std::size_t bytes, void*) {
  if (to_device != DeviceKind::kCpu || from_device != DeviceKind::kCpu) refuse("no copy");
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void fill_bytes(void* to, DeviceKind device, int value, std::size_t bytes, void*) {
  if (device != DeviceKind::kCpu) refuse("no fill");
  if (bytes > 0) std::memset(to, value, bytes);
}
void synchronize(void*) {}
void synchronize_device() {}

Event Event::create() { refuse("no event"); }
Event::~Event() = default;
void Event::record(void*) { refuse("no event"); }
void Event::wait() const {}
double Event::seconds_since(const Event&) const { refuse("no event"); }
Graph Graph::capture(void*, const std::function<void()>&) { refuse("no graph"); }
Graph::~Graph() = default;
void Graph::launch(void*) const { refuse("no graph"); }

}  // namespace gov
