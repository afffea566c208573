#include <cmath>

#include "base/mxfp4.h"
#include "ops/cpu_support.h"
#include "ops/ops_list.h"

namespace gov::ops::cpu {
namespace {
constexpr std::int64_t kRun = 4096;
}

void add_squares(Context& ctx, const Tensor& x, const Tensor& out) {
  constexpr int kLanes = 8;  // independent sums, for the processor's sake
  const std::int64_t count = x.elements(), runs = (count + kRun - 1) / kRun;
  double* partial = ctx.workspace.take<double>(runs);
  for_rows(ctx, runs, kRun, [&](std::int64_t run) {
    double lanes[kLanes] = {};
    const float* from = x.as<float>() + run * kRun;
    const std::int64_t n = std::min(kRun, count - run * kRun), whole = n / kLanes * kLanes;
    for (std::int64_t i = 0; i < whole; i += kLanes)
      for (int l = 0; l < kLanes; ++l) lanes[l] += static_cast<double>(from[i + l]) * static_cast<double>(from[i + l]);
    for (std::int64_t i = whole; i < n; ++i)
      lanes[i - whole] += static_cast<double>(from[i]) * static_cast<double>(from[i]);
    partial[run] = 0;
    for (const double lane : lanes) partial[run] += lane;
  });
  double sum = 0;
  for (std::int64_t run = 0; run < runs; ++run) sum += partial[run];
  out.as<double>()[0] += sum;
}

void adamw(Context& ctx, const AdamwArgs& args, const Tensor& grad, const Tensor& param, const Tensor& m,
           const Tensor& v, const Tensor& copy) {
  const double step = static_cast<double>(args.step);
  const float rise1 = static_cast<float>(1 / (1 - std::pow(static_cast<double>(args.beta1), step)));
  const float rise2 = static_cast<float>(1 / (1 - std::pow(static_cast<double>(args.beta2), step)));
  const float keep1 = args.beta1, add1 = 1 - args.beta1, keep2 = args.beta2, add2 = 1 - args.beta2;
  const std::int64_t count = grad.elements();
  for_rows(ctx, (count + kRun - 1) / kRun, kRun * 4, [&](std::int64_t run) {
    const float* g = grad.as<float>();
    float *p = param.as<float>(), *first = m.as<float>(), *second = v.as<float>();
    const std::int64_t begin = run * kRun, end = std::min(count, begin + kRun);
    for (std::int64_t i = begin; i < end; ++i) {
      const float slope = args.grad_scale * g[i];
      first[i] = keep1 * first[i] + add1 * slope;
      second[i] = keep2 * second[i] + add2 * slope * slope;
      const float change = first[i] * rise1 / (std::sqrt(second[i] * rise2) + args.eps);
      p[i] -= args.lr * (change + args.decay * p[i]);
    }
    for (std::int64_t i = begin; copy && i < end; ++i) copy.as<bf16>()[i] = to_bf16(p[i]);
  });
}

void mxfp4_quantize(Context& ctx, const Tensor& x, const Tensor& blocks, const Tensor& scales) {
  for_rows(ctx, scales.elements(), kMxfp4Block * 8, [&](std::int64_t block) {
    mxfp4_encode_block(x.as<float>() + block * kMxfp4Block, blocks.as<std::uint8_t>() + block * kMxfp4BlockBytes,
                       scales.as<std::uint8_t>() + block);
  });
}

}  // namespace gov::ops::cpu
