#pragma once
// Elementary functions on vectors. Constants are our own least-maximum fits; measured errors are in tests/ops.

namespace gov::ops::GOV_ISA {
namespace {

// e^x to about 1 ulp; 0 below -104, infinity above 88.73, NaN stays NaN.
inline Vec exp(Vec x) {
  x = at_most(splat(89.f), at_least(splat(-104.f), x));
  const Vec n = nearest(mul(x, splat(1.44269504088896341f)));
  // ln 2 in two parts, the first with 9 significant bits: n times it is exact.
  Vec r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440054690583e-4f), r);
  Vec p = splat(0.001395039726048708f);
  p = fma(p, r, splat(0.00836886279284954f));
  p = fma(p, r, splat(0.04166620969772339f));
  p = fma(p, r, splat(0.1666651964187622f));
  p = fma(p, r, splat(0.5f));
  const Vec r2 = mul(r, r);
  return times_power_of_two(add(splat(1.f), fma(p, r2, r)), n);
}

// x / (1 + e^-y)
inline Vec times_sigmoid(Vec x, Vec y) { return div(x, add(splat(1.f), exp(sub(zero(), y)))); }

// Phi(x), the normal distribution function: the tail Phi(-|x|) = exp(-x^2/2) poly(1 / (1 + 0.3 |x|)), relative error
// 4e-7.
inline Vec normal_cdf(Vec x) {
  const Vec a = at_most(splat(16.f), absolute(x));  // there the tail is exactly 0, so that any x times it is
  const Vec t = div(splat(1.f), fma(splat(0.3f), a, splat(1.f)));
  Vec p = splat(0.038377005606889725f);
  p = fma(p, t, splat(-0.16916069388389587f));
  p = fma(p, t, splat(0.2286505103111267f));
  p = fma(p, t, splat(-0.07649728655815125f));
  p = fma(p, t, splat(0.14253030717372894f));
  p = fma(p, t, splat(0.09468530118465424f));
  p = fma(p, t, splat(0.12191998958587646f));
  p = fma(p, t, splat(0.11948772519826889f));
  p = fma(p, t, splat(7.1673512138659135e-06f));
  const Vec tail = mul(exp(mul(mul(a, a), splat(-0.5f))), p);
  return select_positive(x, sub(splat(1.f), tail), tail);
}

}  // namespace
}  // namespace gov::ops::GOV_ISA
