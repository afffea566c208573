// Ops that move rows: embedding, gather_rows, scatter_rows, kv_append, add, prepend_token.
#include <cstring>

#include "ops/cpu_support.h"
#include "ops/ops_list.h"

namespace gov::ops::cpu {
namespace {

// ids within [0, limit), else an Error that names the op and the place.
void check_ids(const char* op, const Tensor& ids, std::int64_t limit) {
  const std::int32_t* id = ids.as<std::int32_t>();
  for (std::int64_t i = 0; i < ids.elements(); ++i) {
    if (id[i] < 0 || id[i] >= limit) {
      fail(ErrorCode::kInvalidArgument, "{}: index {} at {} is outside [0, {})", op, id[i], i, limit);
    }
  }
}

void copy_row(const float* from, std::int64_t count, float* to) {
  std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
}

void copy_row(const float* from, std::int64_t count, bf16* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = to_bf16(from[i]);
}

template <class C>
void append_rows(Context& ctx, const Tensor& rows, const std::int64_t* slots, const Tensor& cache) {
  const std::int64_t heads = rows.shape[1], dim = rows.shape[2], block_size = cache.shape[2];
  for_rows(ctx, rows.shape[0], heads * dim, [&](std::int64_t t) {
    if (slots[t] < 0) return;
    const std::int64_t block = slots[t] / block_size, row = slots[t] % block_size;
    for (std::int64_t h = 0; h < heads; ++h) {
      copy_row(rows.as<float>() + (t * heads + h) * dim, dim,
               cache.as<C>() + ((block * heads + h) * block_size + row) * dim);
    }
  });
}

}  // namespace

void embedding(Context& ctx, const Tensor& table, const Tensor& ids, const Tensor& out) {
  check_ids("embedding", ids, table.shape[0]);
  const std::int64_t width = table.shape[1];
  const std::int32_t* id = ids.as<std::int32_t>();
  for_rows(ctx, ids.elements(), width,
           [&](std::int64_t t) { widen_range(table, id[t] * width, width, out.as<float>() + t * width); });
}

void gather_rows(Context& ctx, const Tensor& x, const Tensor& rows, const Tensor& out) {
  check_ids("gather_rows", rows, x.shape[0]);
  const std::int64_t width = x.shape[1];
  const std::int32_t* row = rows.as<std::int32_t>();
  for_rows(ctx, rows.elements(), width,
           [&](std::int64_t i) { copy_row(x.as<float>() + row[i] * width, width, out.as<float>() + i * width); });
}

void scatter_rows(Context& ctx, const Tensor& x, const Tensor& rows, const Tensor& out) {
  check_ids("scatter_rows", rows, out.shape[0]);
  const std::int64_t width = x.shape[1];
  const std::int32_t* row = rows.as<std::int32_t>();
  for_rows(ctx, rows.elements(), width,
           [&](std::int64_t i) { copy_row(x.as<float>() + i * width, width, out.as<float>() + row[i] * width); });
}

void kv_append(Context& ctx, const Tensor& k, const Tensor& v, const Tensor& slots, const Tensor& k_cache,
               const Tensor& v_cache) {
  const std::int64_t* slot = slots.as<std::int64_t>();
  const std::int64_t capacity = k_cache.shape[0] * k_cache.shape[2];
  for (std::int64_t t = 0; t < slots.elements(); ++t) {
    if (slot[t] >= capacity) {
      fail(ErrorCode::kInvalidArgument, "kv_append: slot {} at {} is outside the cache's {} rows", slot[t], t,
           capacity);
    }
  }
  const auto append = k_cache.dtype == DType::kBF16 ? append_rows<bf16> : append_rows<float>;
  append(ctx, k, slot, k_cache);
  append(ctx, v, slot, v_cache);
}

void add(Context& ctx, const Tensor& x, const Tensor& out) {
  constexpr std::int64_t kRun = 4096;
  const std::int64_t count = x.elements();
  for_rows(ctx, (count + kRun - 1) / kRun, kRun, [&](std::int64_t run) {
    const float* from = x.as<float>();
    float* to = out.as<float>();
    const std::int64_t end = std::min(count, (run + 1) * kRun);
    for (std::int64_t i = run * kRun; i < end; ++i) to[i] += from[i];
  });
}

void prepend_token(Context& ctx, const Tensor& token, const Tensor& x, const Tensor& positions, const Tensor& out) {
  const float* const first = token ? widen(ctx, token) : nullptr;
  const float* const shift = positions ? widen(ctx, positions) : nullptr;
  const std::int64_t rows = out.shape[1], width = out.shape[2], skip = token ? 1 : 0;
  for_rows(ctx, out.shape[0] * rows, width, [&](std::int64_t row) {
    const std::int64_t image = row / rows, place = row % rows;
    float* const to = out.as<float>() + row * width;
    copy_row(place < skip ? first : x.as<float>() + (image * (rows - skip) + place - skip) * width, width, to);
    for (std::int64_t i = 0; shift && i < width; ++i) to[i] += shift[place * width + i];
  });
}

}  // namespace gov::ops::cpu
