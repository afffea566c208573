#pragma once
// Vectors of 4 floats in the compilers' portable vector extension: any x86-64, ARM or other processor.
// Included by kernels_baseline.cc only.

#include <cstdint>

namespace gov::ops::GOV_ISA {
namespace {

using Vec = float __attribute__((vector_size(16)));
using VecInt = std::int32_t __attribute__((vector_size(16)));
inline constexpr int kLanes = 4;
inline constexpr int kGemmRows = 4, kGemmTokens = 2;
inline constexpr int kMxfp4Rows = 2, kMxfp4Tokens = 4;
inline constexpr int kScoreVecs = 2;

struct Bf16 {
  std::uint16_t bits;
};
struct F16 {
  std::uint16_t bits;
};

inline Vec as_float(VecInt v) {
  Vec out;
  __builtin_memcpy(&out, &v, sizeof out);
  return out;
}
inline VecInt as_int(Vec v) {
  VecInt out;
  __builtin_memcpy(&out, &v, sizeof out);
  return out;
}

inline Vec splat(float x) { return Vec{x, x, x, x}; }
inline Vec zero() { return splat(0.f); }
inline Vec load_partial(const float* p, int n) {
  Vec v = zero();
  __builtin_memcpy(&v, p, static_cast<unsigned long>(n) * sizeof(float));
  return v;
}
inline Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline void store_partial(float* p, Vec v, int n) {
  __builtin_memcpy(p, &v, static_cast<unsigned long>(n) * sizeof(float));
}
inline void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }

using Four16 = std::uint16_t __attribute__((vector_size(8)));
inline VecInt widen_u16(Four16 h) { return __builtin_convertvector(h, VecInt); }
inline Four16 load_u16(const void* p, int n) {
  Four16 h = {0, 0, 0, 0};
  __builtin_memcpy(&h, p, static_cast<unsigned long>(n) * 2);
  return h;
}
inline Vec widen_bf16(Four16 h) { return as_float(widen_u16(h) << 16); }
// Moves exponent and mantissa to their binary32 place and multiplies by 2^112: exact for subnormals too. Inf and NaN,
// whose exponent field is all ones, get the rest of it set.
inline Vec widen_f16(Four16 h) {
  const VecInt bits = widen_u16(h), magnitude = bits & 0x7fff;
  const VecInt infinite = magnitude >= 0x7c00;
  const VecInt finite_bits = as_int(as_float(magnitude << 13) * 0x1p112f);
  const VecInt special_bits = (magnitude << 13) | 0x7f800000;
  return as_float(((infinite & special_bits) | (~infinite & finite_bits)) | ((bits & 0x8000) << 16));
}
inline Vec load(const Bf16* p) { return widen_bf16(load_u16(p, 4)); }
inline Vec load_partial(const Bf16* p, int n) { return widen_bf16(load_u16(p, n)); }
// 2 x kLanes elements as pairs in lanes, and their widened halves. Each half is placed by its address, not by its
// significance.
inline Vec load_pairs(const Bf16* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline Vec half_of_pairs(Vec v, int which) {
  std::uint16_t all[2 * kLanes];
  __builtin_memcpy(all, &v, sizeof all);
  const Four16 half = {all[which], all[2 + which], all[4 + which], all[6 + which]};
  return widen_bf16(half);
}
inline Vec first_of_pairs(Vec v) { return half_of_pairs(v, 0); }
inline Vec second_of_pairs(Vec v) { return half_of_pairs(v, 1); }
inline Vec load(const F16* p) { return widen_f16(load_u16(p, 4)); }
inline Vec load_partial(const F16* p, int n) { return widen_f16(load_u16(p, n)); }

inline Vec add(Vec a, Vec b) { return a + b; }
inline Vec sub(Vec a, Vec b) { return a - b; }
inline Vec mul(Vec a, Vec b) { return a * b; }
inline Vec div(Vec a, Vec b) { return a / b; }
inline Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }  // two roundings everywhere: compiled with -ffp-contract=off
inline Vec choose(VecInt mask, Vec yes, Vec no) { return as_float((mask & as_int(yes)) | (~mask & as_int(no))); }
// A NaN in x stays a NaN: the comparison is false.
inline Vec at_least(Vec low, Vec x) { return choose(low > x, low, x); }
inline Vec at_most(Vec high, Vec x) { return choose(high < x, high, x); }
inline Vec absolute(Vec x) { return as_float(as_int(x) & 0x7fffffff); }
inline Vec select_positive(Vec x, Vec yes, Vec no) { return choose(x > zero(), yes, no); }
inline Vec nearest(Vec x) {
  const Vec magic = splat(12582912.f);  // 1.5 x 2^23: for |x| < 2^22 the sum has no fraction bits left
  return (x + magic) - magic;
}
// Two steps, since 2^n itself may be out of range where x 2^n is a subnormal.
inline Vec times_power_of_two(Vec x, Vec n) {
  const VecInt whole = as_int(n + splat(12582912.f)) - 0x4b400000;  // n as an integer; defined for NaN as well
  const VecInt half = whole >> 1;
  return (x * as_float((half + 127) << 23)) * as_float((whole - half + 127) << 23);
}
inline float reduce_add(Vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }
inline float reduce_max(Vec v) {
  const float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
  return a > b ? a : b;
}

// even = p[0], p[2], ..; odd = p[1], p[3], .. of 8 floats.
inline void load_deinterleaved(const float* p, Vec& even, Vec& odd) {
  even = Vec{p[0], p[2], p[4], p[6]};
  odd = Vec{p[1], p[3], p[5], p[7]};
}

struct Mxfp4Table {
  float scale;
};
inline constexpr float kCodes[16] = {0.f,  0.5f,  1.f,  1.5f,  2.f,  3.f,  4.f,  6.f,
                                     -0.f, -0.5f, -1.f, -1.5f, -2.f, -3.f, -4.f, -6.f};
inline Mxfp4Table mxfp4_table(std::uint8_t scale) {
  const std::uint32_t bits = scale == 0 ? 0x00400000u : static_cast<std::uint32_t>(scale) << 23;  // 0: subnormal 2^-127
  Mxfp4Table table;
  __builtin_memcpy(&table.scale, &bits, sizeof bits);
  return table;
}
// kLanes bytes: their low nibbles are the even elements, their high nibbles the odd ones.
inline void mxfp4_decode(const std::uint8_t* b, const Mxfp4Table& table, Vec& even, Vec& odd) {
  even = Vec{kCodes[b[0] & 15], kCodes[b[1] & 15], kCodes[b[2] & 15], kCodes[b[3] & 15]} * table.scale;
  odd = Vec{kCodes[b[0] >> 4], kCodes[b[1] >> 4], kCodes[b[2] >> 4], kCodes[b[3] >> 4]} * table.scale;
}

// Transposes 4 x 4.
inline void transpose(Vec* r) {
  const Vec a = r[0], b = r[1], c = r[2], d = r[3];
  for (int i = 0; i < 4; ++i) r[i] = Vec{a[i], b[i], c[i], d[i]};
}

}  // namespace
}  // namespace gov::ops::GOV_ISA
