// Number formats and counter-based random numbers.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/checked.h"
#include "base/half.h"
#include "base/mxfp4.h"
#include "base/philox.h"

namespace gov {
namespace {

// The nearest of all finite values of a 16-bit format, ties to the even code: the definition, by search among
// neighbours.
template <class Half, class Encode>
void check_rounding(Encode encode) {
  for (std::uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = to_f32(Half{static_cast<std::uint16_t>(bits)}),
                high = to_f32(Half{static_cast<std::uint16_t>(bits + 1)});
    if (!std::isfinite(high) || std::isnan(low)) break;
    ASSERT_EQ(encode(low).bits, bits);
    const double middle = (static_cast<double>(low) + high) / 2;
    const auto exact = static_cast<float>(middle);
    if (exact == middle) {
      ASSERT_EQ(encode(exact).bits, bits + (bits & 1)) << bits;
    }
    ASSERT_EQ(encode(std::nextafter(exact, low)).bits, bits) << bits;
    ASSERT_EQ(encode(-std::nextafter(exact, high)).bits, (bits + 1) | 0x8000) << bits;
  }
}

TEST(Half, Bf16RoundsToNearestEven) {
  check_rounding<bf16>([](float x) { return to_bf16(x); });
}
TEST(Half, F16RoundsToNearestEven) {
  check_rounding<f16>([](float x) { return to_f16(x); });
}

TEST(Half, SpecialValues) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  EXPECT_EQ(to_f32(to_bf16(infinity)), infinity);
  EXPECT_EQ(to_f32(to_f16(-infinity)), -infinity);
  EXPECT_TRUE(std::isnan(to_f32(to_bf16(nan))));
  EXPECT_TRUE(std::isnan(to_f32(to_f16(nan))));
  EXPECT_EQ(to_f32(to_f16(65519.f)), 65504.f);
  EXPECT_EQ(to_f32(to_f16(65520.f)), infinity);
  EXPECT_EQ(to_f32(f16{1}), 0x1p-24f);
  EXPECT_EQ(to_f16(-0.f).bits, 0x8000);
}

TEST(Mxfp4, EveryCodeAndScale) {
  for (int scale = 0; scale < 255; ++scale) {
    EXPECT_EQ(e8m0_to_f32(static_cast<std::uint8_t>(scale)), std::ldexp(1.0f, scale - 127)) << scale;
  }
  EXPECT_TRUE(std::isnan(e8m0_to_f32(255)));
  std::uint8_t packed[16];
  for (int j = 0; j < 16; ++j) packed[j] = static_cast<std::uint8_t>(j | ((15 - j) << 4));
  float out[32];
  mxfp4_decode_block(packed, 128, out);
  for (int j = 0; j < 16; ++j) {
    EXPECT_EQ(out[2 * j], 2 * kMxfp4Values[j]);
    EXPECT_EQ(out[2 * j + 1], 2 * kMxfp4Values[15 - j]);
  }
}

TEST(Mxfp4, EncodeIsNearestWithTiesToEvenCodes) {
  for (int i = -1400; i <= 1400; ++i) {
    const float x = static_cast<float>(i) / 200;  // hits every midpoint
    int best = 0;
    for (int code = 1; code < 8; ++code) {
      const float d = std::fabs(kMxfp4Values[code] - std::fabs(x)), b = std::fabs(kMxfp4Values[best] - std::fabs(x));
      if (d < b || (d == b && code % 2 == 0)) best = code;
    }
    EXPECT_EQ(e2m1_encode(x) & 7, best) << x;
  }
}

TEST(Mxfp4, EncodedBlocksDecodeToThemselves) {
  const Philox random{5};
  for (std::uint64_t block = 0; block < 1000; ++block) {
    float in[32], out[32], again[32];
    for (std::uint64_t i = 0; i < 32; ++i)
      in[i] = random.normal(i, block)[0] * std::ldexp(1.f, static_cast<int>(block % 60) - 30);
    std::uint8_t packed[16], packed_again[16], scale, scale_again;
    mxfp4_encode_block(in, packed, &scale);
    mxfp4_decode_block(packed, scale, out);
    float largest = 0;
    for (const float x : in) largest = std::fmax(largest, std::fabs(x));
    // Below 6 the widest step is 2 scale units (error <= 1); values of up to 8 units saturate at 6.
    for (int i = 0; i < 32; ++i) ASSERT_LE(std::fabs(out[i] - in[i]), 2 * e8m0_to_f32(scale));
    ASSERT_EQ(std::ilogb(largest) - 2 + 127, scale);
    mxfp4_encode_block(out, packed_again, &scale_again);
    mxfp4_decode_block(packed_again, scale_again, again);
    for (int i = 0; i < 32; ++i) ASSERT_EQ(out[i], again[i]);
  }
  float zeros[32] = {};
  std::uint8_t packed[16], scale;
  mxfp4_encode_block(zeros, packed, &scale);
  EXPECT_EQ(scale, 127);
}

// Known answers of Random123's Philox4x32-10.
TEST(Philox, KnownAnswers) {
  const auto zero = Philox{0}(0, 0);
  EXPECT_EQ(zero, (std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const auto ones = Philox{~0ull}(~0ull, ~0ull);
  EXPECT_EQ(ones, (std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  const auto pi = Philox{0x299f31d0a4093822ull}(0x85a308d3243f6a88ull, 0x0370734413198a2eull);
  EXPECT_EQ(pi, (std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UniformAndNormalMoments) {
  const Philox random{42};
  double sum = 0, normal_sum = 0, normal_squares = 0;
  constexpr int kDraws = 200000;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    const float u = random.uniform(i);
    ASSERT_GE(u, 0.f);
    ASSERT_LT(u, 1.f);
    sum += u;
    const auto z = random.normal(i, 1);
    normal_sum += z[0] + z[1];
    normal_squares += z[0] * z[0] + z[1] * z[1];
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 4 * std::sqrt(1.0 / 12 / kDraws));
  EXPECT_NEAR(normal_sum / (2 * kDraws), 0, 4 / std::sqrt(2.0 * kDraws));
  EXPECT_NEAR(normal_squares / (2 * kDraws), 1, 4 * std::sqrt(2.0 / (2 * kDraws)));
}

TEST(CheckedSize, StaysInvalid) {
  const std::uint64_t big = std::numeric_limits<std::uint64_t>::max();
  EXPECT_EQ((CheckedSize(6) * 7).value(), 42u);
  EXPECT_FALSE((CheckedSize(big) + 1).valid());
  EXPECT_FALSE((CheckedSize(big / 2 + 1) * 2).valid());
  EXPECT_FALSE(((CheckedSize(big) + 1) * 0).valid());
  EXPECT_EQ((CheckedSize(big) * 1).value(), big);
}

}  // namespace
}  // namespace gov
