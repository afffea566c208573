#include "ops/product_cpu.h"

#include <algorithm>
#include <cstring>

#include "base/mxfp4.h"

namespace gov::ops {
namespace {

constexpr std::int64_t kColumns = 96;  // of a tile: whole registers of every instruction set, whole MXFP4 blocks
constexpr std::int64_t kSteps = 256;   // a packed tile of b then takes 96 KiB
constexpr std::int64_t kRows = 128;
constexpr std::int64_t kRowStride = kRows + 16;  // not a power of two, whose lines would share few places in a cache
constexpr std::int64_t kTaskRows = 1024;
constexpr std::int64_t kColumnBlock = 64;

static_assert(kColumns % kMxfp4Block == 0 && kColumns % kProductPad == 0);

// The two values of each byte of an MXFP4 block, before its scale.
struct PairTable {
  float pairs[256][2];
  constexpr PairTable() : pairs() {
    for (int byte = 0; byte < 256; ++byte) {
      pairs[byte][0] = kMxfp4Values[byte & 15];
      pairs[byte][1] = kMxfp4Values[byte >> 4];
    }
  }
};
constexpr PairTable kPairs;

void decode_block(const std::uint8_t* packed, std::uint8_t scale, float* to) {
  const float factor = e8m0_to_f32(scale);
  for (int j = 0; j < kMxfp4BlockBytes; ++j) std::memcpy(to + 2 * j, kPairs.pairs[packed[j]], 2 * sizeof(float));
  for (int j = 0; j < kMxfp4Block; ++j) to[j] *= factor;
}

// Rows [step, step + steps), columns [column, column + count) of b as F32, rows kColumns apart, zero up to a whole
// vector.
void pack_factor(const Factor& b, std::int64_t step, std::int64_t steps, std::int64_t column, std::int64_t count,
                 float* to) {
  const std::int64_t padded = (count + kProductPad - 1) / kProductPad * kProductPad;
  for (std::int64_t s = 0; s < steps; ++s, to += kColumns) {
    const std::int64_t at = (step + s) * b.stride + column;
    if (b.scales) {
      for (std::int64_t i = 0; i < count; i += kMxfp4Block) {
        const std::int64_t block = (at + i) / kMxfp4Block;
        decode_block(static_cast<const std::uint8_t*>(b.data) + block * kMxfp4BlockBytes, b.scales[block], to + i);
      }
    } else {
      widen_range(Tensor(const_cast<void*>(b.data), b.dtype, {}), at, count, to);
    }
    std::fill(to + count, to + padded, 0.f);
  }
}

// A block of A whose rows are adjacent in memory: [steps, kRowStride].
void pack_rows(const Product& p, std::int64_t row, std::int64_t rows, std::int64_t step, std::int64_t steps,
               float* to) {
  for (std::int64_t s = 0; s < steps; ++s)
    std::memcpy(to + s * kRowStride, p.a + row * p.a_row + (step + s) * p.a_step,
                static_cast<std::size_t>(rows) * sizeof(float));
}

struct Scratch {
  float b[kSteps * kColumns];
  float a[kSteps * kRowStride];
};

// Rows [row, end) and kColumns columns of one product.
void run_task(const Kernels& table, const Product& p, std::int64_t row, std::int64_t end, std::int64_t column,
              Scratch& scratch) {
  ProductArgs args{};
  args.b = scratch.b;
  args.b_stride = kColumns;
  args.c_stride = p.n;
  args.columns = std::min(kColumns, p.n - column);
  for (std::int64_t step = 0; step == 0 || step < p.k; step += kSteps) {
    args.steps = std::min(kSteps, p.k - step);
    args.accumulate = p.accumulate || step > 0;
    pack_factor(p.b, step, args.steps, column, args.columns, scratch.b);
    for (std::int64_t r = row; r < end; r += kRows) {
      args.rows = std::min(kRows, end - r);
      args.c = p.c + r * p.n + column;
      if (p.a_row == 1) {
        pack_rows(p, r, args.rows, step, args.steps, scratch.a);
        args.a = scratch.a;
        args.a_row = 1;
        args.a_step = kRowStride;
      } else {
        args.a = p.a + r * p.a_row + step * p.a_step;
        args.a_row = p.a_row;
        args.a_step = p.a_step;
      }
      table.product(args);
    }
  }
}

std::int64_t row_chunks(const Product& p) { return (p.m + kTaskRows - 1) / kTaskRows; }
std::int64_t tasks_of(const Product& p) { return row_chunks(p) * ((p.n + kColumns - 1) / kColumns); }

}  // namespace

Factor Factor::of(const Tensor& tensor, std::int64_t width, std::int64_t index) {
  const std::size_t offset = static_cast<std::size_t>(index * width) * dtype_size(tensor.dtype);
  return {static_cast<const char*>(tensor.data) + offset, tensor.dtype, nullptr, width};
}

void run_products(Context& ctx, std::span<const Product> products) {
  const Kernels& table = kernels(ctx.isa);
  Scratch* scratch = ctx.workspace.take<Scratch>(ctx.pool->size());
  std::int64_t* start = ctx.workspace.take<std::int64_t>(static_cast<std::int64_t>(products.size()) + 1);
  start[0] = 0;
  for (std::size_t i = 0; i < products.size(); ++i) start[i + 1] = start[i] + tasks_of(products[i]);
  ctx.pool->parallel_for(start[products.size()], 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t index = std::upper_bound(start, start + products.size() + 1, task) - start - 1;
      const Product& p = products[static_cast<std::size_t>(index)];
      const std::int64_t place = task - start[index], row = place % row_chunks(p) * kTaskRows;
      run_task(table, p, row, std::min(row + kTaskRows, p.m), place / row_chunks(p) * kColumns, scratch[thread]);
    }
  });
}

void add_column_sums(Context& ctx, std::span<const ColumnSum> sums) {
  std::int64_t widest = 0;
  for (const ColumnSum& sum : sums) widest = std::max(widest, sum.width);
  const std::int64_t blocks = (widest + kColumnBlock - 1) / kColumnBlock;
  ctx.pool->parallel_for(blocks * static_cast<std::int64_t>(sums.size()), 1,
                         [&](std::int64_t begin, std::int64_t end, int) {
                           for (std::int64_t task = begin; task < end; ++task) {
                             const ColumnSum& sum = sums[static_cast<std::size_t>(task / blocks)];
                             const std::int64_t first = task % blocks * kColumnBlock;
                             const std::int64_t count = std::min(kColumnBlock, sum.width - first);
                             float total[kColumnBlock] = {};
                             for (std::int64_t row = 0; row < sum.rows; ++row)
                               for (std::int64_t i = 0; i < count; ++i) total[i] += sum.x[row * sum.width + first + i];
                             for (std::int64_t i = 0; i < count; ++i) sum.out[first + i] += total[i];
                           }
                         });
}

}  // namespace gov::ops
