#include "tests/ops/attention_setup.h"

#include <cmath>
#include <numeric>

namespace gov::test {
namespace {

Doubles flatten(const std::vector<Doubles>& parts) {
  Doubles all;
  for (const Doubles& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// x in F8E4M3, rounded to nearest even; |x| <= 448.
std::uint8_t to_f8(double x) {
  const double size = std::fabs(x);
  const int exponent = size >= 0x1p-6 ? std::ilogb(size) : -6;
  const int steps = static_cast<int>(std::nearbyint(std::ldexp(size, 3 - exponent)));  // 8 to 16, less if subnormal
  return static_cast<std::uint8_t>((std::signbit(x) ? 0x80 : 0) | (steps + (exponent + 6) * 8));
}

double from_f8(std::uint8_t code) {
  const int mantissa = code % 8, exponent = code / 8 % 16;
  const double size = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return code >= 0x80 ? -size : size;
}

}  // namespace

AttentionSetup::AttentionSetup(Memory& memory, const AttentionProblem& problem) : memory_(memory), problem_(problem) {
  const AttentionProblem& p = problem_;
  std::vector<std::int32_t> cu = {0};
  for (const std::int32_t n : p.rows) cu.push_back(cu.back() + n);
  args.q = memory.normal(p.act, {cu.back(), p.heads, p.dim}, 1.5);
  args.cu_seqlens = memory.ints(cu);
  args.kv_lens = memory.ints(p.keys);
  args.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(p.dim)));
  args.causal = p.causal;
  args.window = p.window;
  if (p.sinks) args.sinks = memory.normal(DType::kBF16, {p.heads}, 1.5, 1);
  for (const std::int32_t keys : p.keys) {  // rounded to bf16, so that both cache types hold them exactly
    k_.push_back(values(memory.normal(DType::kBF16, {keys, p.kv_heads, p.dim})));
    v_.push_back(values(memory.normal(DType::kBF16, {keys, p.kv_heads, p.dim})));
    if (p.cache != DType::kF8E4M3) continue;
    for (Doubles* const rows : {&k_.back(), &v_.back()})
      for (double& x : *rows) x = from_f8(to_f8(x));
  }
  if (p.contiguous) {
    args.k = memory.floats(flatten(k_), {cu.back(), p.kv_heads, p.dim}, p.act);
    args.v = memory.floats(flatten(v_), {cu.back(), p.kv_heads, p.dim}, p.act);
    return;
  }
  std::int64_t columns = 1, total = 0;
  for (const std::int32_t keys : p.keys) {
    const std::int64_t blocks = (keys + p.block_size - 1) / p.block_size;
    columns = std::max(columns, blocks);
    total += blocks;
  }
  std::vector<std::int32_t> order(static_cast<std::size_t>(total)), table;
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[std::size_t(memory.random.below(std::int64_t(i)))]);
  std::size_t next = 0;
  for (std::size_t s = 0; s < p.keys.size(); ++s) {
    const std::int64_t first = p.window > 0 ? std::max(0, p.keys[s] - p.rows[s] - p.window + 1) / p.block_size : 0;
    for (std::int64_t b = 0; b < columns; ++b) {
      const bool used = b * p.block_size < p.keys[s];
      const std::int32_t block = used ? order[next++] : -1;
      table.push_back(b < first ? -7 : block);
    }
  }
  args.block_tables = memory.ints(table, {std::int64_t(p.keys.size()), columns});
  args.k_cache = memory.make(p.cache, {total, p.kv_heads, p.block_size, p.dim});
  args.v_cache = memory.make(p.cache, args.k_cache.shape);
  fill_cache(k_, args.k_cache);
  fill_cache(v_, args.v_cache);
}

void AttentionSetup::fill_cache(const std::vector<Doubles>& rows, const Tensor& cache) const {
  const AttentionProblem& p = problem_;
  const std::int64_t columns = args.block_tables.shape[1];
  for (std::size_t s = 0; s < rows.size(); ++s) {
    for (std::int64_t i = 0; i < std::int64_t(rows[s].size()); ++i) {
      const std::int64_t key = i / (p.kv_heads * p.dim), head = i / p.dim % p.kv_heads, d = i % p.dim;
      const std::int32_t block = args.block_tables.as<std::int32_t>()[std::int64_t(s) * columns + key / p.block_size];
      if (block < 0) continue;
      const std::int64_t at = ((block * p.kv_heads + head) * p.block_size + key % p.block_size) * p.dim + d;
      const float x = static_cast<float>(rows[s][std::size_t(i)]);
      if (cache.dtype == DType::kBF16) cache.as<bf16>()[at] = to_bf16(x);
      else if (cache.dtype == DType::kF8E4M3) cache.as<std::uint8_t>()[at] = to_f8(static_cast<double>(x));
      else cache.as<float>()[at] = x;
    }
  }
}

reference::AttentionShape AttentionSetup::shape() const {
  return {std::size_t(problem_.heads),
          std::size_t(problem_.kv_heads),
          std::size_t(problem_.dim),
          static_cast<double>(args.scale),
          problem_.causal,
          std::size_t(problem_.window)};
}

Doubles AttentionSetup::reference(const reference::AttentionShape& shape, const Doubles& sinks) const {
  const Doubles q = values(args.q);
  const std::ptrdiff_t width = problem_.heads * problem_.dim;
  Doubles all;
  std::ptrdiff_t row = 0;
  for (std::size_t s = 0; s < problem_.rows.size(); ++s) {
    const Doubles part(q.begin() + row * width, q.begin() + (row + problem_.rows[s]) * width);
    const Doubles out = reference::attention(part, k_[s], v_[s], sinks, shape);
    all.insert(all.end(), out.begin(), out.end());
    row += problem_.rows[s];
  }
  return all;
}

ops::AttentionArgs AttentionSetup::last_rows(const std::vector<std::int32_t>& skip,
                                             const std::vector<std::int32_t>& count) const {
  ops::AttentionArgs part = args;
  std::vector<std::int32_t> cu = {0}, keys;
  Doubles q;
  const Doubles all = values(args.q);
  const std::ptrdiff_t width = problem_.heads * problem_.dim;
  for (std::size_t s = 0; s < count.size(); ++s) {
    const std::ptrdiff_t begin = args.cu_seqlens.as<std::int32_t>()[s] + skip[s];
    q.insert(q.end(), all.begin() + begin * width, all.begin() + (begin + count[s]) * width);
    cu.push_back(cu.back() + count[s]);
    keys.push_back(problem_.keys[s] - problem_.rows[s] + skip[s] + count[s]);
  }
  part.q = memory_.floats(q, {cu.back(), problem_.heads, problem_.dim}, problem_.act);
  part.cu_seqlens = memory_.ints(cu);
  part.kv_lens = memory_.ints(keys);
  return part;
}

// A score is a sum of dim products whose size grows like its spread (1.5 here), and it stands in an exponent: an
// absolute error there is a relative one here. The weighted mean of the values adds its own sum over the keys.
Tolerance AttentionSetup::tolerance() const {
  double keys = 1;
  for (const std::int32_t n : problem_.keys) keys = std::max(keys, static_cast<double>(n));
  const Tolerance sums = sum_tolerance(static_cast<double>(problem_.dim) + std::sqrt(keys), 1, 3);
  if (problem_.act == DType::kF32) return sums;
  // The probabilities are rounded to BF16 for the tensor cores, and the result.
  const Doubles want = reference();
  return rounded(rounded(sums, problem_.act, want), problem_.act, want);
}

}  // namespace gov::test
