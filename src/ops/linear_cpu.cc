#include "ops/cpu_support.h"
#include "ops/ops_list.h"

namespace gov::ops {
namespace {

// A task is a block of weight rows against a block of tokens whose rows stay in the second-level cache.
constexpr std::int64_t kTokenBlock = 64;
constexpr std::int64_t kMaxRowBlock = 64;

}  // namespace

void linear_all_rows(Context& ctx, const float* x, std::int64_t tokens, std::int64_t in, const Tensor& weight,
                     std::int64_t rows, const Tensor& bias, float* out, bool accumulate) {
  const auto kernel = dense_kernel(kernels(ctx.isa), weight.dtype);
  const std::size_t row_bytes = static_cast<std::size_t>(in) * dtype_size(weight.dtype);
  const std::int64_t fair = rows / (8 * ctx.pool->size()) / 4 * 4;
  const std::int64_t row_block = std::clamp<std::int64_t>(fair, 8, kMaxRowBlock);
  const std::int64_t row_blocks = (rows + row_block - 1) / row_block,
                     token_blocks = (tokens + kTokenBlock - 1) / kTokenBlock;
  ctx.pool->parallel_for(row_blocks * token_blocks, 1, [&](std::int64_t begin, std::int64_t end, int) {
    BiasBlock bias_block;
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t token = task / row_blocks * kTokenBlock, row = task % row_blocks * row_block;
      LinearArgs args{};
      args.x = x + token * in;
      args.x_stride = in;
      args.tokens = std::min(kTokenBlock, tokens - token);
      args.in = in;
      args.weight = static_cast<const char*>(weight.data) + static_cast<std::size_t>(row) * row_bytes;
      args.rows = std::min(row_block, rows - row);
      args.bias = bias_block.load(bias, row, args.rows);
      args.out = out + token * rows + row;
      args.out_stride = rows;
      args.accumulate = accumulate;
      kernel(args);
    }
  });
}

void cpu::linear(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& out,
                 bool accumulate) {
  linear_all_rows(ctx, x.as<float>(), x.shape[0], x.shape[1], weight, weight.shape[0], bias, out.as<float>(),
                  accumulate);
}

}  // namespace gov::ops
