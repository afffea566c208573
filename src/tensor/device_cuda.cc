// Devices, memory and copies through the CUDA runtime.
#include <cuda_runtime_api.h>

#include <cstring>
#include <deque>
#include <mutex>

#include "tensor/device.h"

namespace gov {
namespace {

void check(cudaError_t status, std::string_view what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that does not stick is not reported again
  fail(ErrorCode::kDevice, "CUDA: {}: {}", what, cudaGetErrorString(status));
}

DeviceInfo query(int ordinal) {
  cudaDeviceProp p{};
  check(cudaGetDeviceProperties(&p, ordinal), "device properties");
  DeviceInfo info;
  info.ordinal = ordinal;
  info.name = p.name;
  info.capability = 10 * p.major + p.minor;
  info.multiprocessors = p.multiProcessorCount;
  info.total_memory = p.totalGlobalMem;
  info.l2_bytes = static_cast<std::uint64_t>(p.l2CacheSize);
  info.shared_bytes_per_block = p.sharedMemPerBlockOptin;
  check(cudaDriverGetVersion(&info.driver_version), "driver version");
  return info;
}

}  // namespace

namespace detail {

void* cuda_allocate(std::size_t bytes, std::string_view purpose) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail(ErrorCode::kOutOfMemory, "out of GPU memory: {} bytes for {}, {} free", bytes, purpose, cuda_free_memory());
  }
  check(status, purpose);
  return data;
}
void cuda_free(void* data) noexcept { cudaFree(data); }

}  // namespace detail

int cuda_device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {  // no driver is no error: there is no GPU
    cudaGetLastError();
    return 0;
  }
  return count;
}

bool built_with_cuda() { return true; }

const DeviceInfo& cuda_device_info(int ordinal) {
  static std::mutex mutex;
  static std::deque<DeviceInfo> known;  // references stay valid
  const std::lock_guard lock(mutex);
  for (const DeviceInfo& info : known) {
    if (info.ordinal == ordinal) return info;
  }
  const int count = cuda_device_count();
  if (ordinal < 0 || ordinal >= count)
    fail(ErrorCode::kDevice, "there is no CUDA device {} (this machine has {})", ordinal, count);
  return known.emplace_back(query(ordinal));
}

void use_cuda_device(int ordinal) {
  cuda_device_info(ordinal);
  check(cudaSetDevice(ordinal), "choosing the device");
}

std::uint64_t cuda_free_memory() {
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "free memory");
  return free;
}

Stream Stream::create() {
  Stream stream;
  cudaStream_t handle = nullptr;
  check(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "a stream");
  stream.handle_ = handle;
  return stream;
}
Stream::~Stream() {
  if (handle_) cudaStreamDestroy(static_cast<cudaStream_t>(handle_));
}

PinnedBuffer::PinnedBuffer(std::size_t bytes, std::string_view purpose) : bytes_(bytes) {
  const cudaError_t status = cudaMallocHost(&data_, bytes > 0 ? bytes : 1);
  if (status == cudaSuccess) return;
  cudaGetLastError();
  fail(ErrorCode::kOutOfMemory, "out of page-locked memory: {} bytes for {}", bytes, purpose);
}
PinnedBuffer::~PinnedBuffer() {
  if (data_) cudaFreeHost(data_);
}

void copy_bytes(void* to, DeviceKind to_device, const void* from, DeviceKind from_device, std::size_t bytes,
                void* stream) {
  if (bytes == 0) return;
  const bool to_cuda = to_device == DeviceKind::kCuda, from_cuda = from_device == DeviceKind::kCuda;
  if (!to_cuda && !from_cuda) {
    std::memcpy(to, from, bytes);
    return;
  }
  const cudaMemcpyKind kind = !to_cuda     ? cudaMemcpyDeviceToHost
                              : !from_cuda ? cudaMemcpyHostToDevice
                                           : cudaMemcpyDeviceToDevice;
  check(cudaMemcpyAsync(to, from, bytes, kind, static_cast<cudaStream_t>(stream)), "copying");
}

void fill_bytes(void* to, DeviceKind device, int value, std::size_t bytes, void* stream) {
  if (bytes == 0) return;
  if (device == DeviceKind::kCpu) std::memset(to, value, bytes);
  else check(cudaMemsetAsync(to, value, bytes, static_cast<cudaStream_t>(stream)), "filling");
}

void synchronize(void* stream) {
  check(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "waiting for the device");
}
void synchronize_device() { check(cudaDeviceSynchronize(), "waiting for the device"); }

Event Event::create() {
  Event event;
  cudaEvent_t handle = nullptr;
  check(cudaEventCreate(&handle), "an event");
  event.handle_ = handle;
  return event;
}
Event::~Event() {
  if (handle_) cudaEventDestroy(static_cast<cudaEvent_t>(handle_));
}
void Event::record(void* stream) {
  check(cudaEventRecord(static_cast<cudaEvent_t>(handle_), static_cast<cudaStream_t>(stream)), "an event");
}
void Event::wait() const {
  if (handle_) check(cudaEventSynchronize(static_cast<cudaEvent_t>(handle_)), "waiting for the device");
}
double Event::seconds_since(const Event& earlier) const {
  float milliseconds = 0;
  wait();
  check(
      cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(earlier.handle_), static_cast<cudaEvent_t>(handle_)),
      "the time between two events");
  return static_cast<double>(milliseconds) * 1e-3;
}

Graph Graph::capture(void* stream, const std::function<void()>& work) {
  const auto s = static_cast<cudaStream_t>(stream);
  // Other host threads may allocate meanwhile; only this one is watched.
  check(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), "recording a graph");
  cudaGraph_t recorded = nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(s, &recorded);
    if (recorded) cudaGraphDestroy(recorded);
    cudaGetLastError();
    throw;
  }
  check(cudaStreamEndCapture(s, &recorded), "recording a graph");
  cudaGraphExec_t ready = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&ready, recorded, 0);
  cudaGraphDestroy(recorded);
  check(status, "making a graph ready");
  Graph graph;
  graph.handle_ = ready;
  return graph;
}
Graph::~Graph() {
  if (handle_) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(handle_));
}
void Graph::launch(void* stream) const {
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(handle_), static_cast<cudaStream_t>(stream)), "starting a graph");
}

}  // namespace gov
