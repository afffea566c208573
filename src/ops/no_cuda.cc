// Stands in for the CUDA ops in builds without CUDA.
#include "ops/device_limits.h"
#include "ops/device_only.h"
#include "ops/ops_list.h"
#include "ops/sample_device.h"

namespace gov::ops::cuda {

#define GOV_REFUSE_OP(name, arguments) \
  void name arguments { fail(ErrorCode::kUnsupported, "built without CUDA: " #name); }
GOV_OPS(GOV_REFUSE_OP)
GOV_BACKWARD_OPS(GOV_REFUSE_OP)
#undef GOV_REFUSE_OP

}  // namespace gov::ops::cuda

namespace gov::ops {

#define GOV_REFUSE(name, arguments) \
  void name arguments { fail(ErrorCode::kUnsupported, "built without CUDA: " #name); }
GOV_REFUSE(fill_random, (Context&, const Tensor&, float, std::uint64_t))
GOV_REFUSE(fill_value, (Context&, const Tensor&, float))
GOV_REFUSE(expand_mxfp4, (Context&, const Tensor&, const Tensor&, const Tensor&))
GOV_REFUSE(advance_rows, (Context&, const DecodeArrays&))
GOV_REFUSE(sample_greedy_device, (Context&, const Tensor&, const Tensor&))
GOV_REFUSE(DeviceSampler::upload, (Context&, std::span<const SampleRow>, bool))
GOV_REFUSE(DeviceSampler::launch, (Context&, const Tensor&, const Tensor&))
GOV_REFUSE(DeviceSampler::start, (Context&, const Tensor&, const Tensor&))
GOV_REFUSE(DeviceSampler::send, (Context&))
GOV_REFUSE(DeviceSampler::read, (Context&, std::span<SampleResult>))
#undef GOV_REFUSE
struct DeviceSampler::State {};
std::int64_t DeviceSampler::generation() const { return 0; }
DeviceSampler::DeviceSampler() = default;
DeviceSampler::~DeviceSampler() = default;
DeviceSampler::DeviceSampler(DeviceSampler&&) noexcept = default;
DeviceSampler& DeviceSampler::operator=(DeviceSampler&&) noexcept = default;
DeviceLimits measure_cuda_limits(Context&) {
  fail(ErrorCode::kUnsupported, "built without CUDA: no device to measure");
}

}  // namespace gov::ops
