// 2,000 odd sizes and modes, made here: a PNG or BMP writer of a few lines knows what every pixel must become.
#include <gtest/gtest.h>

#include <array>

#include "image/preprocess.h"
#include "tests/image/image_test_util.h"

namespace gov {
namespace {

using Text = std::string;

void put32(Text& out, std::uint32_t v) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(v >> shift);
}

std::uint32_t crc32(std::string_view data) {
  std::uint32_t crc = ~0u;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int k = 0; k < 8; ++k) crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
  }
  return ~crc;
}

void chunk(Text& out, const Text& type_and_data) {
  put32(out, static_cast<std::uint32_t>(type_and_data.size() - 4));
  out += type_and_data;
  put32(out, crc32(type_and_data));
}

// zlib with stored blocks.
Text stored(const Text& data) {
  Text out = "\x78\x01";
  std::uint32_t a = 1, b = 0;
  for (std::size_t at = 0; at < data.size(); at += 65535) {
    const std::size_t n = std::min<std::size_t>(65535, data.size() - at);
    out += at + n == data.size() ? '\1' : '\0';
    for (const std::size_t v : {n, n ^ 0xFFFFu}) out += {static_cast<char>(v & 255), static_cast<char>(v >> 8)};
    out += data.substr(at, n);
  }
  for (const char c : data) {
    a = (a + static_cast<unsigned char>(c)) % 65521;
    b = (b + a) % 65521;
  }
  put32(out, (b << 16) | a);
  return out;
}

struct Made {
  Text file;
  Image expected;  // as stored, before the orientation
};

// Grey 1..16 bits, RGB, palette, grey and RGB with alpha.
Made make_png(std::uint64_t seed, int w, int h, int colour_type, int bits, int orientation) {
  const int channels = colour_type == 2 ? 3 : colour_type == 4 ? 2 : colour_type == 6 ? 4 : 1;
  const Image palette = test::prng_picture(seed + 1'000'000, 256, 1);
  Made made{{}, {w, h, {}}};
  Text raw;
  std::uint64_t n = 0;
  for (int y = 0; y < h; ++y) {
    raw += '\0';
    std::uint32_t bit_buffer = 0, filled = 0;
    for (int x = 0; x < w; ++x) {
      std::array<std::uint32_t, 4> v{};
      for (int c = 0; c < channels; ++c) {
        v[static_cast<std::size_t>(c)] = static_cast<std::uint32_t>(test::prng(seed, n++) >> (64 - bits));
        bit_buffer = (bit_buffer << bits) | v[static_cast<std::size_t>(c)];
        for (filled += static_cast<std::uint32_t>(bits); filled >= 8; filled -= 8)
          raw += static_cast<char>(bit_buffer >> (filled - 8));
      }
      for (std::size_t c = 0; c < 3; ++c) {
        const std::uint32_t sample = v[channels >= 3 ? c : 0];
        const std::uint32_t byte = colour_type == 3 ? palette.pixels[sample * 3 + c]
                                   : bits == 16     ? sample >> 8
                                                    : sample * 255 / ((1u << bits) - 1);
        made.expected.pixels.push_back(static_cast<std::uint8_t>(byte));
      }
    }
    if (filled > 0) raw += static_cast<char>(bit_buffer << (8 - filled));
  }
  made.file = "\x89PNG\r\n\x1a\n";
  Text ihdr = "IHDR";
  put32(ihdr, static_cast<std::uint32_t>(w));
  put32(ihdr, static_cast<std::uint32_t>(h));
  ihdr += {static_cast<char>(bits), static_cast<char>(colour_type), 0, 0, 0};
  chunk(made.file, ihdr);
  if (colour_type == 3)
    chunk(made.file, "PLTE" + Text(reinterpret_cast<const char*>(palette.pixels.data()), std::size_t{3} << bits));
  Text exif("eXIfMM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\0\0\0\0\0\0\0", 30);
  exif[23] = static_cast<char>(orientation);
  chunk(made.file, exif);
  chunk(made.file, "IDAT" + stored(raw));
  chunk(made.file, "IEND");
  return made;
}

// Where EXIF 2.3 says that the stored row 0 and column 0 are: the position of stored pixel (x, y) in the turned
// picture.
std::array<int, 2> turned(int o, int x, int y, int w, int h) {
  switch (o) {
    case 2: return {w - 1 - x, y};          // row 0 top, column 0 right
    case 3: return {w - 1 - x, h - 1 - y};  // bottom, right
    case 4: return {x, h - 1 - y};          // bottom, left
    case 5: return {y, x};                  // left, top
    case 6: return {h - 1 - y, x};          // right, top
    case 7: return {h - 1 - y, w - 1 - x};  // right, bottom
    case 8: return {y, w - 1 - x};          // left, bottom
    default: return {x, y};
  }
}

void check_turned(const Image& got, const Image& stored_picture, int orientation) {
  const int w = stored_picture.width, h = stored_picture.height;
  ASSERT_EQ(got.width, orientation >= 5 ? h : w);
  ASSERT_EQ(got.height, orientation >= 5 ? w : h);
  for (int y = 0; y < h; ++y)
    for (int x = 0; x < w; ++x) {
      const auto [tx, ty] = turned(orientation, x, y, w, h);
      for (int c = 0; c < 3; ++c)
        ASSERT_EQ(got.pixels[static_cast<std::size_t>((ty * got.width + tx) * 3 + c)],
                  stored_picture.pixels[static_cast<std::size_t>((y * w + x) * 3 + c)])
            << x << "," << y;
    }
}

TEST(Shapes, TwoThousandOddSizesAndModes) {
  constexpr std::array<std::array<int, 2>, 15> kModes = {{{0, 1},
                                                          {0, 2},
                                                          {0, 4},
                                                          {0, 8},
                                                          {0, 16},
                                                          {2, 8},
                                                          {2, 16},
                                                          {3, 1},
                                                          {3, 2},
                                                          {3, 4},
                                                          {3, 8},
                                                          {4, 8},
                                                          {4, 16},
                                                          {6, 8},
                                                          {6, 16}}};
  const Preprocessor preprocessor = Preprocessor::for_size(14);
  std::vector<float> values(3 * 14 * 14);
  int cases = 0;
  for (std::uint64_t n = 0; n < 2000; ++n, ++cases) {
    const auto pick = [&](std::uint64_t i, int count) {
      return static_cast<int>(test::prng(n + 77, i) % static_cast<std::uint64_t>(count));
    };
    // Every 10th picture is long and thin.
    int w = pick(0, 37) + 1, h = pick(1, 37) + 1;
    if (n % 10 == 0) w = pick(0, 1500) + 1, h = 1;
    if (n % 20 == 0) std::swap(w, h);
    const auto [colour_type, bits] = kModes[n % kModes.size()];
    const int orientation = pick(2, 8) + 1;
    SCOPED_TRACE(fmt::format("{} x {}, type {}, {} bits, orientation {}", w, h, colour_type, bits, orientation));
    const Made made = make_png(n, w, h, colour_type, bits, orientation);
    const Image image = decode_image(std::as_bytes(std::span(made.file)));
    ASSERT_NO_FATAL_FAILURE(check_turned(image, made.expected, orientation));
    std::fill(values.begin(), values.end(), -100.f);
    preprocessor.apply(image, values.data());
    for (const float v : values) ASSERT_TRUE(v > -3.f && v < 3.f) << v;
  }
  EXPECT_EQ(cases, 2000);
}

}  // namespace
}  // namespace gov
