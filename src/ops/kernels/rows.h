#pragma once
// Kernels on one row: norms, activations, exponentials, and the two probes of device_limits.

#include "ops/kernels.h"
#include "ops/kernels/math.h"

namespace gov::ops::GOV_ISA {
namespace {

// Calls full(i) for whole vectors and rest(i, n) for the last n < kLanes elements.
template <class Full, class Rest>
inline void for_vectors(std::int64_t n, Full&& full, Rest&& rest) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) full(i);
  if (i < n) rest(i, static_cast<int>(n - i));
}

// out[i] = f(x[i])
template <class F>
inline void map_row(const float* x, std::int64_t n, float* out, F&& f) {
  for_vectors(
      n, [&](std::int64_t i) { store(out + i, f(load(x + i))); },
      [&](std::int64_t i, int rest) { store_partial(out + i, f(load_partial(x + i, rest)), rest); });
}

void rms_norm(const float* x, const float* weight, std::int64_t n, float eps, float* out) {
  Vec sum = zero();
  for_vectors(
      n, [&](std::int64_t i) { sum = fma(load(x + i), load(x + i), sum); },
      [&](std::int64_t i, int rest) { sum = fma(load_partial(x + i, rest), load_partial(x + i, rest), sum); });
  const Vec inverse = splat(1.f / __builtin_sqrtf(reduce_add(sum) / static_cast<float>(n) + eps));
  for_vectors(
      n, [&](std::int64_t i) { store(out + i, mul(load(weight + i), mul(load(x + i), inverse))); },
      [&](std::int64_t i, int rest) {
        store_partial(out + i, mul(load_partial(weight + i, rest), mul(load_partial(x + i, rest), inverse)), rest);
      });
}

// In every lane.
inline Vec mean_of(const float* x, std::int64_t n) {
  Vec sum = zero();
  for_vectors(
      n, [&](std::int64_t i) { sum = add(sum, load(x + i)); },
      [&](std::int64_t i, int rest) { sum = add(sum, load_partial(x + i, rest)); });
  return splat(reduce_add(sum) / static_cast<float>(n));
}

void layer_norm(const float* x, const float* weight, const float* bias, std::int64_t n, float eps, float* out) {
  const float count = static_cast<float>(n);
  const Vec mean = mean_of(x, n);
  Vec squares = zero();
  float last[kLanes] = {};
  for_vectors(
      n,
      [&](std::int64_t i) {
        const Vec d = sub(load(x + i), mean);
        squares = fma(d, d, squares);
      },
      [&](std::int64_t i, int rest) {  // the lanes past the end must not count as (0 - mean)
        store(last, sub(load_partial(x + i, rest), mean));
        const Vec d = load_partial(last, rest);
        squares = fma(d, d, squares);
      });
  const Vec inverse = splat(1.f / __builtin_sqrtf(reduce_add(squares) / count + eps));
  for_vectors(
      n,
      [&](std::int64_t i) {
        store(out + i, fma(mul(sub(load(x + i), mean), inverse), load(weight + i), load(bias + i)));
      },
      [&](std::int64_t i, int rest) {
        const Vec d = mul(sub(load_partial(x + i, rest), mean), inverse);
        store_partial(out + i, fma(d, load_partial(weight + i, rest), load_partial(bias + i, rest)), rest);
      });
}

void swiglu(const float* h, std::int64_t n, float alpha, float limit, float* out) {
  const Vec high = splat(limit), low = splat(-limit), slope = splat(alpha), one = splat(1.f);
  const auto vector = [&](const float* p) {
    Vec gate, up;
    load_deinterleaved(p, gate, up);
    gate = at_most(high, gate);
    up = at_most(high, at_least(low, up));
    return mul(add(up, one), times_sigmoid(gate, mul(slope, gate)));
  };
  for_vectors(
      n, [&](std::int64_t i) { store(out + i, vector(h + 2 * i)); },
      [&](std::int64_t i, int rest) {
        float padded[2 * kLanes] = {};
        __builtin_memcpy(padded, h + 2 * i, static_cast<unsigned long>(rest) * 2 * sizeof(float));
        store_partial(out + i, vector(padded), rest);
      });
}

void gelu_erf(const float* x, std::int64_t n, float* out) {
  map_row(x, n, out, [](Vec v) { return mul(v, normal_cdf(v)); });
}

void gelu_tanh(const float* x, std::int64_t n, float* out) {
  // 0.5 (1 + tanh(u)) = sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3)
  map_row(x, n, out, [](Vec v) {
    const Vec inner = fma(mul(mul(v, v), v), splat(0.044715f), v);
    return times_sigmoid(v, mul(splat(1.59576912160573071f), inner));
  });
}

void gelu_quick(const float* x, std::int64_t n, float* out) {
  map_row(x, n, out, [](Vec v) { return times_sigmoid(v, mul(splat(1.702f), v)); });
}

double exp_sum(const float* x, std::int64_t n, float shift, float factor, float* out) {
  constexpr std::int64_t kRun = 64 * kLanes;  // elements summed in binary32 before they join the double
  const Vec offset = splat(shift), scale = splat(factor);
  double total = 0;
  for (std::int64_t begin = 0; begin < n; begin += kRun) {
    const std::int64_t count = n - begin < kRun ? n - begin : kRun;
    Vec sum = zero();
    for_vectors(
        count,
        [&](std::int64_t i) {
          const Vec e = exp(mul(sub(load(x + begin + i), offset), scale));
          if (out) store(out + begin + i, e);
          sum = add(sum, e);
        },
        [&](std::int64_t i, int rest) {
          float last[kLanes] = {};
          store_partial(last, exp(mul(sub(load_partial(x + begin + i, rest), offset), scale)), rest);
          if (out) store_partial(out + begin + i, load(last), rest);
          sum = add(sum, load(last));
        });
    total += static_cast<double>(reduce_add(sum));
  }
  return total;
}

float fma_chains(std::int64_t steps, float seed) {
  Vec chain[kFmaChains];
  for (int c = 0; c < kFmaChains; ++c) chain[c] = splat(seed + static_cast<float>(c));
  const Vec a = splat(0.999f + 1e-6f * seed), b = splat(seed);
  for (std::int64_t i = 0; i < steps; ++i)
    for (int c = 0; c < kFmaChains; ++c) chain[c] = fma(chain[c], a, b);
  Vec sum = zero();
  for (int c = 0; c < kFmaChains; ++c) sum = add(sum, chain[c]);
  return reduce_add(sum);
}

float read_sum(const float* x, std::int64_t n) {
  constexpr int kStreams = 4;
  Vec sum[kStreams];
  for (int s = 0; s < kStreams; ++s) sum[s] = zero();
  for (std::int64_t i = 0; i + kStreams * kLanes <= n; i += kStreams * kLanes)
    for (int s = 0; s < kStreams; ++s) sum[s] = add(sum[s], load(x + i + s * kLanes));
  return reduce_add(add(add(sum[0], sum[1]), add(sum[2], sum[3])));
}

}  // namespace
}  // namespace gov::ops::GOV_ISA
