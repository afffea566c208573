#pragma once
// Vectors of 16 floats: AVX-512 F, BW, DQ, VL. Included by kernels_avx512.cc only.

#include <immintrin.h>

#include <cstdint>

namespace gov::ops::GOV_ISA {
namespace {

using Vec = __m512;
inline constexpr int kLanes = 16;
inline constexpr int kGemmRows = 4, kGemmTokens = 6;    // register tile of the dense kernels: 24 sums
inline constexpr int kMxfp4Rows = 4, kMxfp4Tokens = 4;  // decoded weights take 8 registers more
inline constexpr int kScoreVecs = 4;                    // attention: vectors of keys or dims per register tile

struct Bf16 {
  std::uint16_t bits;
};
struct F16 {
  std::uint16_t bits;
};

inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }

inline Vec zero() { return _mm512_setzero_ps(); }
inline Vec splat(float x) { return _mm512_set1_ps(x); }
inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline Vec load_partial(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
inline void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline void store_partial(float* p, Vec v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }

inline Vec widen_bf16(__m256i v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)); }
inline Vec load(const Bf16* p) { return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline Vec load_partial(const Bf16* p, int n) { return widen_bf16(_mm256_maskz_loadu_epi16(first_lanes(n), p)); }
// 2 x kLanes elements as pairs in lanes, and their widened halves.
inline Vec load_pairs(const Bf16* p) { return _mm512_castsi512_ps(_mm512_loadu_si512(p)); }
inline Vec first_of_pairs(Vec v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(v), 16)); }
inline Vec second_of_pairs(Vec v) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
inline Vec load(const F16* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline Vec load_partial(const F16* p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p)); }

inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
// A NaN in x stays a NaN: the processor returns the second operand.
inline Vec at_least(Vec low, Vec x) { return _mm512_max_ps(low, x); }
inline Vec at_most(Vec high, Vec x) { return _mm512_min_ps(high, x); }
inline Vec absolute(Vec x) { return _mm512_abs_ps(x); }
inline Vec select_positive(Vec x, Vec yes, Vec no) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ), no, yes);
}
inline Vec nearest(Vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Vec times_power_of_two(Vec x, Vec n) { return _mm512_scalef_ps(x, n); }
inline float reduce_add(Vec v) { return _mm512_reduce_add_ps(v); }
inline float reduce_max(Vec v) { return _mm512_reduce_max_ps(v); }

// even = p[0], p[2], ...; odd = p[1], p[3], ... of 32 floats.
inline void load_deinterleaved(const float* p, Vec& even, Vec& odd) {
  const __m512i pick = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const Vec a = load(p), b = load(p + 16);
  even = _mm512_permutex2var_ps(a, pick, b);
  odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(pick, _mm512_set1_epi32(1)), b);
}

// The 16 values of a code for each scale byte, the scale applied: exact, it is a power of two (0: the subnormal 2^-127;
// 255, which loading refuses: infinity). Reading a row costs no arithmetic unit anything, and a model uses few of the
// rows.
struct Mxfp4Values {
  alignas(64) float row[256][16];
  constexpr Mxfp4Values() : row{} {
    constexpr float kMagnitudes[8] = {0.f, 0.5f, 1.f, 1.5f, 2.f, 3.f, 4.f, 6.f};
    for (unsigned scale = 0; scale < 256; ++scale) {
      const float factor = __builtin_bit_cast(float, scale == 0 ? 0x00400000u : scale << 23);
      for (int code = 0; code < 8; ++code) {
        row[scale][code] = code == 0 ? 0.f : scaled(kMagnitudes[code], factor, scale);
        row[scale][code + 8] = -row[scale][code];
      }
    }
  }
  // Constant expressions may not overflow, so the products that do are named.
  static constexpr float scaled(float magnitude, float factor, unsigned scale) {
    const bool overflows = scale == 255 || (scale == 254 && magnitude >= 2.f) || (scale == 253 && magnitude >= 4.f);
    return overflows ? __builtin_inff() : magnitude * factor;
  }
};
constexpr Mxfp4Values kMxfp4Values;

struct Mxfp4Table {
  Vec values;
};
inline Mxfp4Table mxfp4_table(std::uint8_t scale) { return {_mm512_load_ps(kMxfp4Values.row[scale])}; }
// kLanes bytes: their low nibbles are the even elements, their high nibbles the odd ones.
inline void mxfp4_decode(const std::uint8_t* bytes, const Mxfp4Table& table, Vec& even, Vec& odd) {
  const __m512i codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  even = _mm512_permutexvar_ps(codes, table.values);  // looks at the low 4 bits only
  odd = _mm512_permutexvar_ps(_mm512_srli_epi32(codes, 4), table.values);
}

// Transposes 16 x 16.
inline void transpose(Vec* r) {
  Vec t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int h = 0; h < 2; ++h) {
      const __m512d a = _mm512_castps_pd(t[i + h]), b = _mm512_castps_pd(t[i + 2 + h]);
      r[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      r[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  }
  for (int i = 0; i < 4; ++i) {  // 4 x 4 blocks of 128 bits
    const Vec lo = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88), hi = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xdd);
    const Vec lo2 = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88),
              hi2 = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xdd);
    t[i] = _mm512_shuffle_f32x4(lo, lo2, 0x88);
    t[8 + i] = _mm512_shuffle_f32x4(lo, lo2, 0xdd);
    t[4 + i] = _mm512_shuffle_f32x4(hi, hi2, 0x88);
    t[12 + i] = _mm512_shuffle_f32x4(hi, hi2, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

}  // namespace
}  // namespace gov::ops::GOV_ISA
