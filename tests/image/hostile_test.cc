// Bombs, truncations and damage: a gov::Error with a clean line or a picture, quickly and without big allocations.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "base/timer.h"
#include "image/image.h"
#include "tests/image/image_test_util.h"

namespace gov {
namespace {

using test::ByteVector;

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }
std::string text_of(const ByteVector& bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

std::string big_endian(std::uint32_t v, int count) {
  std::string out;
  for (int i = count - 1; i >= 0; --i) out += static_cast<char>(v >> (8 * i));
  return out;
}

std::string little_endian(std::uint32_t v, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += static_cast<char>(v >> (8 * i));
  return out;
}

std::string png_of_size(std::uint32_t w, std::uint32_t h) {
  std::string file = text_of(test::read_file(test::data_folder() / "rgb.png"));
  return file.replace(16, 8, big_endian(w, 4) + big_endian(h, 4));  // IHDR's CRC no longer matches
}

std::string jpeg_of_size(std::uint32_t w, std::uint32_t h) {
  std::string file = text_of(test::read_file(test::data_folder() / "420.jpg"));
  return file.replace(file.find("\xff\xc0") + 5, 4, big_endian(h, 2) + big_endian(w, 2));
}

std::string gif_of_size(std::uint32_t w, std::uint32_t h) {
  std::string file = text_of(test::read_file(test::data_folder() / "global.gif"));
  return file.replace(6, 4, little_endian(w, 2) + little_endian(h, 2));
}

std::string bmp_of_size(std::uint32_t w, std::uint32_t h) {
  std::string file = text_of(test::read_file(test::data_folder() / "topdown24.bmp"));
  return file.replace(18, 8, little_endian(w, 4) + little_endian(h, 4));
}

std::string webp_of_size(std::uint32_t w, std::uint32_t h) {
  std::string file = text_of(test::read_file(test::data_folder() / "animated_lossless.webp"));
  return file.replace(24, 6, little_endian(w - 1, 3) + little_endian(h - 1, 3));
}

long peak_memory_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stol(line.substr(6));
  return 0;
}

TEST(Hostile, HeaderBombsAreRefusedAtOnce) {
  decode_image(
      bytes_of(png_of_size(47, 33).replace(29, 4, text_of(test::read_file(test::data_folder() / "rgb.png")), 29, 4)));
  const std::map<std::string, std::string> bombs = {
      {"PNG", png_of_size(50000, 50000)},       {"PNG wide", png_of_size(0x7fffffff, 1)},
      {"PNG max", png_of_size(~0u, ~0u)},       {"JPEG", jpeg_of_size(65500, 65500)},
      {"JPEG wide", jpeg_of_size(65535, 1)},    {"GIF", gif_of_size(65535, 65535)},
      {"BMP", bmp_of_size(50000, 50000)},       {"BMP max", bmp_of_size(0x7fffffff, 0x7fffffff)},
      {"BMP min", bmp_of_size(5, 0x80000000)},  {"WebP", webp_of_size(16384, 16384)},
      {"PNG pixels", png_of_size(16384, 16384)}};
  for (const auto& bomb : bombs) {
    const std::string &name = bomb.first, &file = bomb.second;
    const long before = peak_memory_kib();
    const Timer timer;
    const std::string message = test::error_of([&] { decode_image(bytes_of(file)); });
    EXPECT_LT(timer.seconds(), 0.020) << name;
    EXPECT_LE(peak_memory_kib() - before, 8 * 1024) << name;
    EXPECT_NE(message.find("the limit is"), std::string::npos) << name << ": " << message;
    EXPECT_TRUE(test::clean_message(message)) << message;
  }
}

TEST(Hostile, ZeroSizesAreRefused) {
  for (const std::string& file : {png_of_size(0, 5), png_of_size(5, 0), jpeg_of_size(0, 5), jpeg_of_size(5, 0),
                                  bmp_of_size(0, 5), bmp_of_size(5, 0), bmp_of_size(~0u, 5), std::string()}) {
    const std::string message = test::error_of([&] { decode_image(bytes_of(file)); });
    EXPECT_TRUE(test::clean_message(message)) << message;
  }
  // A GIF's screen may be empty: the frame makes the canvas, as for Pillow.
  EXPECT_EQ(decode_image(bytes_of(gif_of_size(0, 0))).width, 47);
}

TEST(Hostile, LimitsAreTheCallers) {
  const ByteVector file = test::read_file(test::data_folder() / "rgb.png");  // 47 x 33
  const auto refused = [&](ImageLimits limits) {
    return !test::error_of([&] { decode_image(file, {limits, {}}); }).empty();
  };
  ImageLimits limits;
  limits.max_bytes = file.size();
  limits.max_pixels = 47 * 33;
  limits.max_side = 47;
  EXPECT_FALSE(refused(limits));
  for (int i = 0; i < 3; ++i) {
    ImageLimits less = limits;
    if (i == 0) --less.max_bytes;
    if (i == 1) --less.max_pixels;
    if (i == 2) --less.max_side;
    EXPECT_TRUE(refused(less)) << i;
  }
}

TEST(Hostile, ScanBombIsRefusedQuickly) {
  const std::string file = text_of(test::read_file(test::data_folder() / "grey_progressive.jpg"));
  // Every scan of the file again and again: 1,000 in all.
  const std::size_t first = file.find("\xff\xda"), end = file.rfind("\xff\xd9");
  ASSERT_NE(first, std::string::npos);
  std::string bomb = file.substr(0, end);
  for (int i = 0; i < 1000; ++i) bomb += file.substr(first, end - first);
  bomb += file.substr(end);
  const auto message_with = [&](int scans, int warnings) {
    DecodeOptions options;
    options.limits.max_jpeg_scans = scans;
    options.limits.max_jpeg_warnings = warnings;
    return test::error_of([&] { decode_image(bytes_of(bomb), options); });
  };
  const Timer timer;
  EXPECT_NE(message_with(100, 1 << 30).find("more than 100 scans"), std::string::npos);
  EXPECT_NE(message_with(1 << 30, 100).find("more than 100 places"), std::string::npos);
  EXPECT_FALSE(message_with(100, 100).empty());
  EXPECT_LT(timer.seconds(), 0.25);
  EXPECT_TRUE(test::error_of([&] { decode_image(bytes_of(file)); }).empty());
}

TEST(Hostile, TruncationsNeverCrash) {
  int errors = 0, pictures = 0;
  for (const auto& path : test::corpus_files()) {
    const ByteVector file = test::read_file(path);
    for (std::size_t i = 0; i < 50; ++i) {
      // A copy of exactly this length, so that the sanitizer sees a read past the end.
      const ByteVector cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(file.size() * i / 50));
      const std::string message = test::error_of([&] {
        const Image image = decode_image(cut);
        ASSERT_EQ(image.pixels.size(), static_cast<std::size_t>(image.width * image.height * 3));
        ++pictures;
      });
      if (message.empty()) continue;
      ++errors;
      EXPECT_TRUE(test::clean_message(message)) << path << " at " << cut.size() << ": " << message;
    }
  }
  EXPECT_GE(errors, 7400);
  // Only what follows the first frame of a GIF animation may be missing.
  EXPECT_LE(pictures, 30);
}

TEST(Hostile, FlippedBytesNeverCrash) {
  int errors = 0, pictures = 0;
  std::uint64_t n = 0;
  for (const auto& path : test::corpus_files()) {
    const ByteVector file = test::read_file(path);
    for (std::uint64_t i = 0; i < 40; ++i, ++n) {
      ByteVector damaged = file;
      for (std::uint64_t k = 0; k <= i % 3; ++k) {
        // Half of the damage goes to the first 64 bytes, where the headers are.
        const std::size_t range = i % 2 == 0 ? std::min<std::size_t>(64, file.size()) : file.size();
        damaged[test::prng(n, k) % range] ^= static_cast<std::byte>(test::prng(n, k + 10) % 255 + 1);
      }
      DecodeOptions options;
      options.limits.max_pixels = 1 << 20;
      const std::string message = test::error_of([&] { decode_image(damaged, options); });
      message.empty() ? ++pictures : ++errors;
      EXPECT_TRUE(message.empty() || test::clean_message(message)) << path << ": " << message;
    }
  }
  EXPECT_GE(errors, 1000);
  EXPECT_GE(pictures, 1000);
}

TEST(Hostile, EveryPngChecksumCounts) {
  const std::string file = text_of(test::read_file(test::data_folder() / "rgba8.png"));  // many IDAT chunks
  int chunks = 0;
  for (std::size_t at = 8; at < file.size(); ++chunks) {
    std::uint32_t length = 0;
    for (std::size_t i = 0; i < 4; ++i) length = length << 8 | static_cast<unsigned char>(file[at + i]);
    at += 12 + length;
    std::string damaged = file;
    damaged[at - 1] = static_cast<char>(damaged[at - 1] ^ 1);
    if (damaged.substr(at - 8 - length, 4) == "IEND") continue;  // nothing is read from it
    EXPECT_FALSE(test::error_of([&] { decode_image(bytes_of(damaged)); }).empty()) << "chunk " << chunks;
  }
  EXPECT_GE(chunks, 10);
}

TEST(Hostile, ExifDamageNeverRefusesThePicture) {
  const std::string file = text_of(test::read_file(test::data_folder() / "exif6.jpg"));
  const std::size_t exif = file.find("Exif");
  for (std::size_t i = 6; i < 6 + 38; ++i)
    for (const int value : {0x00, 0x7f, 0x80, 0xff}) {
      std::string damaged = file;
      damaged[exif + i] = static_cast<char>(value);
      Image image;
      ASSERT_NO_THROW(image = decode_image(bytes_of(damaged))) << i;
      EXPECT_EQ(image.width * image.height, 23 * 31);
    }
}

}  // namespace
}  // namespace gov
