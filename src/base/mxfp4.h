#pragma once
// MXFP4 (OCP Microscaling v1.0): blocks of 32 e2m1 values sharing one E8M0 scale. Layout as in gpt-oss checkpoints:
// 16 bytes a block, element 2j in the low nibble of byte j, element 2j+1 in the high nibble;
// value = kMxfp4Values[code] * 2^(scale - 127). Scale 255 is NaN and is refused at load.

#include <bit>
#include <cmath>
#include <cstdint>

namespace gov {

inline constexpr int kMxfp4Block = 32;       // values per block
inline constexpr int kMxfp4BlockBytes = 16;  // packed bytes per block
inline constexpr float kMxfp4Values[16] = {0.f,  0.5f,  1.f,  1.5f,  2.f,  3.f,  4.f,  6.f,
                                           -0.f, -0.5f, -1.f, -1.5f, -2.f, -3.f, -4.f, -6.f};

// 2^(scale - 127); scale 0 is the subnormal 2^-127, 255 gives NaN.
inline float e8m0_to_f32(std::uint8_t scale) {
  if (scale == 255) return std::bit_cast<float>(0x7fc00000u);
  if (scale == 0) return 0x1p-127f;
  return std::bit_cast<float>(static_cast<std::uint32_t>(scale) << 23);
}

inline void mxfp4_decode_block(const std::uint8_t* packed, std::uint8_t scale, float* out) {
  const float factor = e8m0_to_f32(scale);
  for (int j = 0; j < kMxfp4BlockBytes; ++j) {
    out[2 * j] = kMxfp4Values[packed[j] & 15] * factor;
    out[2 * j + 1] = kMxfp4Values[packed[j] >> 4] * factor;
  }
}

// Nearest e2m1 code of x (already divided by the scale), ties to the even code, saturating at 6.
inline std::uint8_t e2m1_encode(float x) {
  const float a = std::fabs(x);
  std::uint8_t code = 7;
  if (a <= 0.25f) code = 0;      // midpoint of 0 and 0.5 -> even code 0
  else if (a < 0.75f) code = 1;  // midpoint 0.75 -> even code 2
  else if (a <= 1.25f) code = 2;
  else if (a < 1.75f) code = 3;
  else if (a <= 2.5f) code = 4;
  else if (a < 3.5f) code = 5;
  else if (a <= 5.f) code = 6;
  return static_cast<std::uint8_t>(code | (std::signbit(x) ? 8 : 0));
}

// Quantises 32 finite values; exponent = floor(log2(max abs)) - 2, clamped to E8M0; an all-zero block gets scale 127.
inline void mxfp4_encode_block(const float* in, std::uint8_t* packed, std::uint8_t* scale) {
  float largest = 0.f;
  for (int i = 0; i < kMxfp4Block; ++i) largest = std::fmax(largest, std::fabs(in[i]));
  int exponent = 0;
  if (largest > 0.f) {
    exponent = std::ilogb(largest) - 2;
    exponent = exponent < -127 ? -127 : exponent;
  }
  *scale = static_cast<std::uint8_t>(exponent + 127);
  const float factor = std::ldexp(1.f, -exponent);  // a normal number: the products are exact, or far below all codes
  for (int j = 0; j < kMxfp4BlockBytes; ++j) {
    const std::uint8_t low = e2m1_encode(in[2 * j] * factor);
    const std::uint8_t high = e2m1_encode(in[2 * j + 1] * factor);
    packed[j] = static_cast<std::uint8_t>(low | (high << 4));
  }
}

}  // namespace gov
