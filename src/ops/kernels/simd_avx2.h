#pragma once
// Vectors of 8 floats: AVX2, FMA, F16C. Included by kernels_avx2.cc only.

#include <immintrin.h>

#include <cstdint>

namespace gov::ops::GOV_ISA {
namespace {

using Vec = __m256;
inline constexpr int kLanes = 8;
inline constexpr int kGemmRows = 4, kGemmTokens = 2;  // 8 sums fill both FMA units; 16 registers in all
inline constexpr int kMxfp4Rows = 2, kMxfp4Tokens = 4;
inline constexpr int kScoreVecs = 2;

struct Bf16 {
  std::uint16_t bits;
};
struct F16 {
  std::uint16_t bits;
};

inline __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline Vec zero() { return _mm256_setzero_ps(); }
inline Vec splat(float x) { return _mm256_set1_ps(x); }
inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline Vec load_partial(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
inline void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
inline void store_partial(float* p, Vec v, int n) { _mm256_maskstore_ps(p, first_lanes(n), v); }

inline __m128i load_partial_u16(const void* p, int n) {
  std::uint16_t all[8] = {};
  __builtin_memcpy(all, p, static_cast<unsigned long>(n) * 2);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(all));
}
inline Vec widen_bf16(__m128i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16)); }
inline Vec load(const Bf16* p) { return widen_bf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline Vec load_partial(const Bf16* p, int n) { return widen_bf16(load_partial_u16(p, n)); }
// 2 x kLanes elements as pairs in lanes, and their widened halves.
inline Vec load_pairs(const Bf16* p) {
  return _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vec first_of_pairs(Vec v) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(v), 16)); }
inline Vec second_of_pairs(Vec v) {
  return _mm256_castsi256_ps(
      _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
inline Vec load(const F16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline Vec load_partial(const F16* p, int n) { return _mm256_cvtph_ps(load_partial_u16(p, n)); }

inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
// A NaN in x stays a NaN: the processor returns the second operand.
inline Vec at_least(Vec low, Vec x) { return _mm256_max_ps(low, x); }
inline Vec at_most(Vec high, Vec x) { return _mm256_min_ps(high, x); }
inline Vec absolute(Vec x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), x); }
inline Vec select_positive(Vec x, Vec yes, Vec no) {
  return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GT_OQ));
}
inline Vec nearest(Vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// Two steps, since 2^n itself may be out of range where x 2^n is a subnormal.
inline Vec times_power_of_two(Vec x, Vec n) {
  const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
  const __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
  return mul(mul(x, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}
inline float reduce_add(Vec v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float reduce_max(Vec v) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// even = p[0], p[2], ...; odd = p[1], p[3], ... of 16 floats.
inline void load_deinterleaved(const float* p, Vec& even, Vec& odd) {
  const Vec a = _mm256_permute2f128_ps(load(p), load(p + 8), 0x20),
            b = _mm256_permute2f128_ps(load(p), load(p + 8), 0x31);
  even = _mm256_shuffle_ps(a, b, 0x88);
  odd = _mm256_shuffle_ps(a, b, 0xdd);
}

// The 8 magnitudes of a block, its scale applied: exact, a power of two. The sign is bit 3 of the code.
struct Mxfp4Table {
  Vec magnitudes;
};
inline Mxfp4Table mxfp4_table(std::uint8_t scale) {
  const std::uint32_t bits = scale == 0 ? 0x00400000u : static_cast<std::uint32_t>(scale) << 23;  // 0: subnormal 2^-127
  return {_mm256_mul_ps(_mm256_setr_ps(0.f, 0.5f, 1.f, 1.5f, 2.f, 3.f, 4.f, 6.f),
                        _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(bits))))};
}
inline Vec mxfp4_value(__m256i codes, const Mxfp4Table& table) {
  const Vec sign = _mm256_and_ps(_mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)), _mm256_set1_ps(-0.f));
  return _mm256_xor_ps(_mm256_permutevar8x32_ps(table.magnitudes, codes), sign);  // looks at the low 3 bits only
}
// kLanes bytes: their low nibbles are the even elements, their high nibbles the odd ones.
inline void mxfp4_decode(const std::uint8_t* bytes, const Mxfp4Table& table, Vec& even, Vec& odd) {
  const __m256i codes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
  even = mxfp4_value(codes, table);
  odd = mxfp4_value(_mm256_srli_epi32(codes, 4), table);
}

// Transposes 8 x 8.
inline void transpose(Vec* r) {
  Vec t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int h = 0; h < 2; ++h) {
      const Vec a = t[i + h], b = t[i + 2 + h];
      r[i + 2 * h] = _mm256_shuffle_ps(a, b, 0x44);
      r[i + 2 * h + 1] = _mm256_shuffle_ps(a, b, 0xee);
    }
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x20);
    t[4 + i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x31);
  }
  for (int i = 0; i < 8; ++i) r[i] = t[i];
}

}  // namespace
}  // namespace gov::ops::GOV_ISA
