#pragma once
// Derivatives on one row: norms and activations.

#include "ops/kernels.h"
#include "ops/kernels/math.h"
#include "ops/kernels/rows.h"

namespace gov::ops::GOV_ISA {
namespace {

// dx += r (g - n mean(g n)) with n = x r, g = weight dout.
float rms_norm_gradient(const float* x, const float* weight, const float* dout, std::int64_t n, float eps, float* dx) {
  const float count = static_cast<float>(n);
  Vec squares = zero(), products = zero();
  const auto add_terms = [&](Vec value, Vec w, Vec d) {
    squares = fma(value, value, squares);
    products = fma(mul(w, d), value, products);
  };
  for_vectors(
      n, [&](std::int64_t i) { add_terms(load(x + i), load(weight + i), load(dout + i)); },
      [&](std::int64_t i, int rest) {
        add_terms(load_partial(x + i, rest), load_partial(weight + i, rest), load_partial(dout + i, rest));
      });
  const float inverse = 1.f / __builtin_sqrtf(reduce_add(squares) / count + eps);
  if (!dx) return inverse;
  const Vec r = splat(inverse), shift = splat(-inverse * inverse * inverse * (reduce_add(products) / count));
  const auto change = [&](Vec value, Vec w, Vec d) { return fma(value, shift, mul(mul(w, d), r)); };
  for_vectors(
      n,
      [&](std::int64_t i) { store(dx + i, add(load(dx + i), change(load(x + i), load(weight + i), load(dout + i)))); },
      [&](std::int64_t i, int rest) {
        const Vec v = change(load_partial(x + i, rest), load_partial(weight + i, rest), load_partial(dout + i, rest));
        store_partial(dx + i, add(load_partial(dx + i, rest), v), rest);
      });
  return inverse;
}

// dx += r (g - mean(g) - n mean(g n)) with n = (x - mean) r, g = weight dout.
void layer_norm_gradient(const float* x, const float* weight, const float* dout, std::int64_t n, float eps, float* dx,
                         float* mean_and_inverse) {
  const float count = static_cast<float>(n);
  const Vec mean = mean_of(x, n);
  Vec squares = zero(), total = zero(), products = zero();
  float last[kLanes] = {};
  const auto add_terms = [&](Vec d, Vec g) {
    squares = fma(d, d, squares);
    total = add(total, g);
    products = fma(g, d, products);
  };
  for_vectors(
      n, [&](std::int64_t i) { add_terms(sub(load(x + i), mean), mul(load(weight + i), load(dout + i))); },
      [&](std::int64_t i, int rest) {  // the lanes past the end must not count as (0 - mean)
        store(last, sub(load_partial(x + i, rest), mean));
        add_terms(load_partial(last, rest), mul(load_partial(weight + i, rest), load_partial(dout + i, rest)));
      });
  const float inverse = 1.f / __builtin_sqrtf(reduce_add(squares) / count + eps);
  store(last, mean);
  mean_and_inverse[0] = last[0];
  mean_and_inverse[1] = inverse;
  if (!dx) return;
  const Vec r = splat(inverse), mean_g = splat(reduce_add(total) / count);
  const Vec shift = splat(-inverse * inverse * (reduce_add(products) / count));
  const auto change = [&](Vec value, Vec g) { return mul(r, fma(sub(value, mean), shift, sub(g, mean_g))); };
  for_vectors(
      n,
      [&](std::int64_t i) {
        store(dx + i, add(load(dx + i), change(load(x + i), mul(load(weight + i), load(dout + i)))));
      },
      [&](std::int64_t i, int rest) {
        const Vec g = mul(load_partial(weight + i, rest), load_partial(dout + i, rest));
        store_partial(dx + i, add(load_partial(dx + i, rest), change(load_partial(x + i, rest), g)), rest);
      });
}

// where x > limit: 0, else y
inline Vec zero_above(Vec x, Vec limit, Vec y) { return select_positive(sub(x, limit), zero(), y); }

void swiglu_gradient(const float* h, const float* dout, std::int64_t n, float alpha, float limit, float* dh) {
  const Vec high = splat(limit), low = splat(-limit), slope = splat(alpha), one = splat(1.f);
  const auto vector = [&](const float* p, Vec d, float* to) {
    Vec gate, up;
    load_deinterleaved(p, gate, up);
    const Vec g = at_most(high, gate), u = at_most(high, at_least(low, up));
    const Vec s = times_sigmoid(one, mul(slope, g)), gs = mul(g, s);
    const Vec by_gate = mul(mul(add(u, one), d), fma(mul(slope, gs), sub(one, s), s));
    float gates[kLanes], ups[kLanes];
    store(gates, zero_above(gate, high, by_gate));
    store(ups, zero_above(sub(zero(), up), high, zero_above(up, high, mul(gs, d))));
    for (int i = 0; i < kLanes; ++i) {
      to[2 * i] = gates[i];
      to[2 * i + 1] = ups[i];
    }
  };
  for_vectors(
      n, [&](std::int64_t i) { vector(h + 2 * i, load(dout + i), dh + 2 * i); },
      [&](std::int64_t i, int rest) {
        float padded[2 * kLanes] = {}, result[2 * kLanes];
        const unsigned long bytes = static_cast<unsigned long>(rest) * 2 * sizeof(float);
        __builtin_memcpy(padded, h + 2 * i, bytes);
        vector(padded, load_partial(dout + i, rest), result);
        __builtin_memcpy(dh + 2 * i, result, bytes);
      });
}

// dx[i] = dout[i] slope(x[i])
template <class F>
inline void gelu_gradient(const float* x, const float* dout, std::int64_t n, float* dx, F&& slope) {
  for_vectors(
      n, [&](std::int64_t i) { store(dx + i, mul(load(dout + i), slope(load(x + i)))); },
      [&](std::int64_t i, int rest) {
        store_partial(dx + i, mul(load_partial(dout + i, rest), slope(load_partial(x + i, rest))), rest);
      });
}

void gelu_erf_gradient(const float* x, const float* dout, std::int64_t n, float* dx) {
  gelu_gradient(x, dout, n, dx, [](Vec v) {
    const Vec density = mul(exp(mul(mul(v, v), splat(-0.5f))), splat(0.398942280401432678f));
    return fma(v, density, normal_cdf(v));
  });
}

// s + v s (1 - s) rise, the derivative of v s with s = sigmoid(y), rise = dy/dv.
inline Vec slope_of_times_sigmoid(Vec v, Vec y, Vec rise) {
  const Vec one = splat(1.f), s = times_sigmoid(one, y);
  return fma(mul(mul(v, rise), s), sub(one, s), s);
}

void gelu_tanh_gradient(const float* x, const float* dout, std::int64_t n, float* dx) {
  gelu_gradient(x, dout, n, dx, [](Vec v) {
    v = at_most(splat(16.f), at_least(splat(-16.f), v));  // flat beyond; and no product of 0 and infinity
    const Vec square = mul(v, v), factor = splat(1.59576912160573071f);
    const Vec y = mul(factor, mul(v, fma(square, splat(0.044715f), splat(1.f))));
    return slope_of_times_sigmoid(v, y, mul(factor, fma(square, splat(3 * 0.044715f), splat(1.f))));
  });
}

void gelu_quick_gradient(const float* x, const float* dout, std::int64_t n, float* dx) {
  gelu_gradient(x, dout, n, dx, [](Vec v) {
    v = at_most(splat(80.f), at_least(splat(-80.f), v));  // as above
    return slope_of_times_sigmoid(v, mul(splat(1.702f), v), splat(1.702f));
  });
}

}  // namespace
}  // namespace gov::ops::GOV_ISA
