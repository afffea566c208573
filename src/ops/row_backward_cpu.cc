// Derivatives of the ops on rows: norms, activations, rope, and those that move rows.
#include <algorithm>

#include "ops/ops_list.h"
#include "ops/product_cpu.h"

namespace gov::ops::cpu {
namespace {

constexpr std::int64_t kColumnBlock = 64;

// Calls body(first column, columns) for blocks of columns in parallel: each walks all rows in order.
template <class Body>
void for_columns(Context& ctx, std::int64_t width, Body&& body) {
  ctx.pool->parallel_for((width + kColumnBlock - 1) / kColumnBlock, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t block = begin; block < end; ++block) {
      const std::int64_t first = block * kColumnBlock;
      body(first, std::min(kColumnBlock, width - first));
    }
  });
}

// dweight[i] += sum_t dout[t, i] (x[t, i] - mean_t) r_t; stats [T, 2] = mean, r.
void add_norm_weight(Context& ctx, const Tensor& x, const Tensor& dout, const float* stats, const Tensor& dweight) {
  const std::int64_t rows = x.shape[0], width = x.shape[1];
  for_columns(ctx, width, [&](std::int64_t first, std::int64_t count) {
    float total[kColumnBlock] = {};
    for (std::int64_t t = 0; t < rows; ++t) {
      const float *a = x.as<float>() + t * width + first, *d = dout.as<float>() + t * width + first;
      const float mean = stats[2 * t], r = stats[2 * t + 1];
      for (std::int64_t i = 0; i < count; ++i) total[i] += d[i] * ((a[i] - mean) * r);
    }
    for (std::int64_t i = 0; i < count; ++i) dweight.as<float>()[first + i] += total[i];
  });
}

void check_rows(const char* op, const Tensor& rows, std::int64_t limit, std::int64_t least) {
  const std::int32_t* row = rows.as<std::int32_t>();
  for (std::int64_t i = 0; i < rows.elements(); ++i) {
    if (row[i] >= limit || row[i] < least)
      fail(ErrorCode::kInvalidArgument, "{}: {} at {} is outside [0, {})", op, row[i], i, limit);
  }
}

}  // namespace

void rms_norm_backward(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& dout,
                       const Tensor& dx, const Tensor& dweight) {
  const Kernels& table = kernels(ctx.isa);
  const float* w = widen(ctx, weight);
  const std::int64_t width = x.shape[1];
  float* stats = ctx.workspace.take<float>(2 * x.shape[0]);
  for_rows(ctx, x.shape[0], width * 4, [&](std::int64_t t) {
    const std::int64_t at = t * width;
    stats[2 * t] = 0;
    stats[2 * t + 1] = table.rms_norm_gradient(x.as<float>() + at, w, dout.as<float>() + at, width, eps,
                                               dx ? dx.as<float>() + at : nullptr);
  });
  if (dweight) add_norm_weight(ctx, x, dout, stats, dweight);
}

void layer_norm_backward(Context& ctx, const Tensor& x, const Tensor& weight, float eps, const Tensor& dout,
                         const Tensor& dx, const Tensor& dweight, const Tensor& dbias) {
  const Kernels& table = kernels(ctx.isa);
  const float* w = widen(ctx, weight);
  const std::int64_t width = x.shape[1];
  float* stats = ctx.workspace.take<float>(2 * x.shape[0]);
  for_rows(ctx, x.shape[0], width * 4, [&](std::int64_t t) {
    const std::int64_t at = t * width;
    table.layer_norm_gradient(x.as<float>() + at, w, dout.as<float>() + at, width, eps,
                              dx ? dx.as<float>() + at : nullptr, stats + 2 * t);
  });
  if (dweight) add_norm_weight(ctx, x, dout, stats, dweight);
  if (!dbias) return;
  const ColumnSum sum{dout.as<float>(), x.shape[0], width, dbias.as<float>()};
  add_column_sums(ctx, {&sum, 1});
}

void swiglu_backward(Context& ctx, const Tensor& h, float alpha, float limit, const Tensor& dout, const Tensor& dh) {
  const Kernels& table = kernels(ctx.isa);
  const std::int64_t width = dout.shape[1];
  for_rows(ctx, dout.shape[0], width * 8, [&](std::int64_t t) {
    table.swiglu_gradient(h.as<float>() + t * 2 * width, dout.as<float>() + t * width, width, alpha, limit,
                          dh.as<float>() + t * 2 * width);
  });
}

void gelu_backward(Context& ctx, const Tensor& x, Gelu kind, const Tensor& dout, const Tensor& dx) {
  const Kernels& table = kernels(ctx.isa);
  const auto kernel = kind == Gelu::kErf    ? table.gelu_erf_gradient
                      : kind == Gelu::kTanh ? table.gelu_tanh_gradient
                                            : table.gelu_quick_gradient;
  constexpr std::int64_t kRun = 1024;
  const std::int64_t count = x.elements();
  for_rows(ctx, (count + kRun - 1) / kRun, kRun * 8, [&](std::int64_t run) {
    const std::int64_t at = run * kRun;
    kernel(x.as<float>() + at, dout.as<float>() + at, std::min(kRun, count - at), dx.as<float>() + at);
  });
}

void rope_backward(Context& ctx, const Tensor& cos, const Tensor& sin, const Tensor& dx) {
  const std::int64_t heads = dx.shape[1], half = dx.shape[2] / 2;
  for_rows(ctx, dx.shape[0], heads * half * 2, [&](std::int64_t t) {
    const float *c = cos.as<float>() + t * half, *s = sin.as<float>() + t * half;
    for (std::int64_t h = 0; h < heads; ++h) {
      float* a = dx.as<float>() + (t * heads + h) * 2 * half;
      float* b = a + half;
      for (std::int64_t i = 0; i < half; ++i) {
        const float first = a[i], second = b[i];
        a[i] = first * c[i] + second * s[i];
        b[i] = second * c[i] - first * s[i];
      }
    }
  });
}

void embedding_backward(Context& ctx, const Tensor& ids, const Tensor& dout, const Tensor& dtable) {
  check_rows("embedding_backward", ids, dtable.shape[0], std::numeric_limits<std::int32_t>::min());
  const std::int64_t width = dtable.shape[1];
  const std::int32_t* id = ids.as<std::int32_t>();
  for_columns(ctx, width, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t t = 0; t < ids.elements(); ++t) {
      if (id[t] < 0) continue;
      float* to = dtable.as<float>() + id[t] * width + first;
      const float* from = dout.as<float>() + t * width + first;
      for (std::int64_t i = 0; i < count; ++i) to[i] += from[i];
    }
  });
}

void gather_rows_backward(Context& ctx, const Tensor& rows, const Tensor& dout, const Tensor& dx) {
  check_rows("gather_rows_backward", rows, dx.shape[0], 0);
  const std::int64_t width = dx.shape[1];
  const std::int32_t* row = rows.as<std::int32_t>();
  for_rows(ctx, rows.elements(), width, [&](std::int64_t r) {
    float* to = dx.as<float>() + row[r] * width;
    for (std::int64_t i = 0; i < width; ++i) to[i] += dout.as<float>()[r * width + i];
  });
}

void prepend_token_backward(Context& ctx, bool with_token, const Tensor& dout, const Tensor& dtoken, const Tensor& dx,
                            const Tensor& dpositions) {
  const std::int64_t images = dout.shape[0], rows = dout.shape[1], width = dout.shape[2], skip = with_token ? 1 : 0;
  if (dx) {
    for_rows(ctx, images * (rows - skip), width, [&](std::int64_t row) {
      const std::int64_t from = row / (rows - skip) * rows + row % (rows - skip) + skip;
      std::copy_n(dout.as<float>() + from * width, width, dx.as<float>() + row * width);
    });
  }
  // Places of a picture whose rows are summed over the pictures.
  const auto add_places = [&](const Tensor& to, std::int64_t places) {
    for_rows(ctx, to ? places : 0, images * width, [&](std::int64_t place) {
      float* sum = to.as<float>() + place * width;
      for (std::int64_t n = 0; n < images; ++n)
        for (std::int64_t i = 0; i < width; ++i) sum[i] += dout.as<float>()[(n * rows + place) * width + i];
    });
  };
  add_places(dtoken, 1);
  add_places(dpositions, rows);
}

}  // namespace gov::ops::cpu
