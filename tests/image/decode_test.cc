// Decoding against Pillow: exact for lossless kinds, within 2/255 for JPEG and lossy WebP.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "image/image.h"
#include "tests/image/image_test_util.h"

namespace gov {
namespace {

constexpr int kLossyTolerance = 2;  // of 255, against Pillow

DecodeOptions options_from(const std::string& background) {
  DecodeOptions options;
  if (background == "-") return options;
  int r = 0, g = 0, b = 0;
  if (std::sscanf(background.c_str(), "%d,%d,%d", &r, &g, &b) != 3) throw std::runtime_error("bad test line");
  options.alpha_background = {static_cast<std::uint8_t>(r), static_cast<std::uint8_t>(g), static_cast<std::uint8_t>(b)};
  return options;
}

TEST(Decode, CorpusEqualsPillow) {
  std::map<std::string, int> exact, near;  // cases by extension
  int largest = 0;
  for (const auto& line : test::read_tsv(test::data_folder() / "decode.tsv")) {
    ASSERT_EQ(line.size(), 5u);
    SCOPED_TRACE(line[0] + " over " + line[1]);
    const std::string kind = std::filesystem::path(line[0]).extension().string();
    Image image;
    ASSERT_NO_THROW(image = load_image(test::data_folder() / line[0], options_from(line[1])));
    EXPECT_EQ(image.width, std::stoi(line[2]));
    EXPECT_EQ(image.height, std::stoi(line[3]));
    if (line[4].starts_with("near/")) {
      const Image expected = load_image(test::data_folder() / line[4]);
      const int difference = test::largest_difference(image.pixels, expected.pixels);
      EXPECT_LE(difference, kLossyTolerance);
      largest = std::max(largest, difference);
      ++near[kind];
    } else {
      EXPECT_EQ(test::digest_of(image.pixels), line[4]);
      ++exact[kind];
    }
  }
  RecordProperty("largest_lossy_difference", largest);
  EXPECT_GE(exact[".png"], 60);
  EXPECT_GE(exact[".gif"], 18);
  EXPECT_GE(exact[".bmp"], 25);
  EXPECT_GE(exact[".webp"], 8);
  EXPECT_GE(near[".jpg"], 25);
  EXPECT_GE(near[".webp"], 4);
}

TEST(Decode, RealPicturesEqualPillow) {
  std::uint64_t seed = 0;
  int exact = 0, near = 0, largest = 0;
  for (const auto& line : test::read_tsv(test::data_folder() / "pictures.tsv")) {
    ASSERT_EQ(line.size(), 5u);
    SCOPED_TRACE(line[0]);
    DecodeOptions options;
    options.alpha_background = {255, 255, 255};
    const Image image = load_image(test::pictures_folder() / line[0], options);
    EXPECT_EQ(image.width, std::stoi(line[1]));
    EXPECT_EQ(image.height, std::stoi(line[2]));
    if (line[3].size() == 16) {
      EXPECT_EQ(test::digest_of(image.pixels), line[3]);
      ++exact;
    } else {
      const auto expected = test::from_hex(line[3]);
      const int difference = test::largest_difference(test::sampled(image, seed, expected.size() / 3), expected);
      EXPECT_LE(difference, kLossyTolerance);
      largest = std::max(largest, difference);
      ++near;
    }
    ++seed;
  }
  RecordProperty("largest_lossy_difference", largest);
  EXPECT_EQ(exact + near, 40);
  EXPECT_GE(near, 15);
}

TEST(Decode, HeaderAgreesWithThePicture) {
  for (const auto& path : test::corpus_files()) {
    SCOPED_TRACE(path.filename().string());
    const test::ByteVector file = test::read_file(path);
    const ImageHeader header = read_image_header(file);
    const Image image = decode_image(file);
    const bool swapped = header.orientation >= 5;
    EXPECT_EQ(swapped ? header.height : header.width, image.width);
    EXPECT_EQ(swapped ? header.width : header.height, image.height);
    const std::string name = image_format_name(header.format);
    const std::string kind = path.extension().string();
    EXPECT_EQ(name, kind == ".png"   ? "PNG"
                    : kind == ".jpg" ? "JPEG"
                    : kind == ".gif" ? "GIF"
                    : kind == ".bmp" ? "BMP"
                                     : "WebP");
  }
}

TEST(Decode, HeaderHasTheOrientation) {
  for (int o = 1; o <= 8; ++o)
    for (const char* kind : {"png", "jpg"}) {
      const auto path = test::data_folder() / fmt::format("exif{}.{}", o, kind);
      EXPECT_EQ(read_image_header(test::read_file(path)).orientation, o) << path;
    }
  EXPECT_EQ(read_image_header(test::read_file(test::data_folder() / "exif6_lossless.webp")).orientation, 6);
  EXPECT_EQ(read_image_header(test::read_file(test::data_folder() / "xmp.jpg")).orientation, 8);
}

TEST(Decode, DetectsByContentOnly) {
  const auto bytes = [](std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); };
  EXPECT_EQ(detect_image_format(bytes("")), std::nullopt);
  EXPECT_EQ(detect_image_format(bytes("\x89PNG\r\n")), std::nullopt);
  EXPECT_EQ(detect_image_format(bytes("\x89PNG\r\n\x1a\n")), ImageFormat::kPng);
  EXPECT_EQ(detect_image_format(bytes("\xff\xd8\xff\xe0")), ImageFormat::kJpeg);
  EXPECT_EQ(detect_image_format(bytes("RIFF1234WEBP")), ImageFormat::kWebp);
  EXPECT_EQ(detect_image_format(bytes("RIFF1234WAVE")), std::nullopt);
  EXPECT_EQ(detect_image_format(bytes("GIF88a")), std::nullopt);
  EXPECT_EQ(detect_image_format(bytes("<svg xmlns=")), std::nullopt);
}

TEST(Decode, FileErrorsNameTheFile) {
  const auto code_of = [](const std::filesystem::path& path) {
    try {
      load_image(path);
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(path.filename().string()), std::string::npos) << e.what();
      return e.code();
    }
    ADD_FAILURE() << "no error for " << path;
    return ErrorCode::kCancelled;
  };
  EXPECT_EQ(code_of(test::data_folder() / "absent.png"), ErrorCode::kNotFound);
  EXPECT_EQ(code_of(test::data_folder()), ErrorCode::kIo);
  EXPECT_EQ(code_of("/dev/zero"), ErrorCode::kIo);
  EXPECT_EQ(code_of(test::data_folder() / "decode.tsv"), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace gov
