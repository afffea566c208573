// The state that CUDA ops keep between calls.
#include "ops/cuda/library.cuh"

namespace gov::ops::cuda {
namespace {

constexpr std::int64_t kFirstCounters = 64 * 1024;

}  // namespace

Library::Library() : lt_workspace(kLtWorkspaceBytes, DeviceKind::kCuda, "the matrix library's workspace") {
  const cublasStatus_t status = cublasLtCreate(&lt);
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(ErrorCode::kDevice, "CUDA: the matrix library did not start: {}", cublasLtGetStatusString(status));
}

Library::~Library() {
  if (lt) cublasLtDestroy(lt);
}

Library& library(Context& ctx) {
  if (!ctx.library_state) ctx.library_state = std::make_shared<Library>();
  return *static_cast<Library*>(ctx.library_state.get());
}

std::uint32_t* counters(Context& ctx, std::int64_t n) {
  std::vector<Buffer>& all = library(ctx).counters;
  const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(std::uint32_t);
  if (all.empty() || all.back().bytes() < bytes) {
    const std::size_t least = static_cast<std::size_t>(kFirstCounters) * sizeof(std::uint32_t);
    all.emplace_back(std::max(bytes, least), DeviceKind::kCuda, "counters of the ops");
    fill_bytes(all.back().data(), DeviceKind::kCuda, 0, all.back().bytes(), ctx.stream);
  }
  return static_cast<std::uint32_t*>(all.back().data());
}

}  // namespace gov::ops::cuda
