// Resizing against digests of Pillow's output: every bit, every filter.
#include "image/resize.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/image/image_test_util.h"

namespace gov {
namespace {

TEST(Resize, EqualsPillowBitForBit) {
  std::array<int, 6> cases{};
  for (const auto& line : test::read_tsv(test::data_folder() / "resize.tsv")) {
    ASSERT_EQ(line.size(), 7u);
    const auto number = [&](std::size_t i) { return std::stoi(line[i]); };
    const Image in = test::prng_picture(static_cast<std::uint64_t>(number(0)), number(1), number(2));
    const Image out = resize(in, number(3), number(4), static_cast<Resample>(number(5)));
    EXPECT_EQ(out.width, number(3));
    EXPECT_EQ(out.height, number(4));
    EXPECT_EQ(test::digest_of(out.pixels), line[6])
        << line[1] << "x" << line[2] << " -> " << line[3] << "x" << line[4] << " filter " << line[5];
    ++cases[static_cast<std::size_t>(number(5))];
  }
  for (const int count : cases) EXPECT_GE(count, 70);
}

TEST(Resize, FlatPicturesStayFlat) {
  for (int f = 0; f <= 5; ++f)
    for (const int grey : {0, 1, 127, 254, 255}) {
      Image in{37, 23, {}};
      in.pixels.assign(37 * 23 * 3, static_cast<std::uint8_t>(grey));
      const Image out = resize(in, 64, 5, static_cast<Resample>(f));
      EXPECT_TRUE(std::all_of(out.pixels.begin(), out.pixels.end(), [&](int v) { return v == grey; }))
          << f << " " << grey;
    }
}

TEST(Resize, RefusesImpossibleSizes) {
  const Image in = test::prng_picture(1, 4, 4);
  const auto refused = [&](const Image& image, int w, int h) {
    return !test::error_of([&] { resize(image, w, h, Resample::kBicubic); }).empty();
  };
  EXPECT_TRUE(refused(in, 0, 4));
  EXPECT_TRUE(refused(in, 4, -1));
  EXPECT_TRUE(refused(in, kMaxResizeSide + 1, 4));
  EXPECT_TRUE(refused(Image{}, 4, 4));
  EXPECT_TRUE(refused(Image{4, 5, in.pixels}, 4, 4));
  EXPECT_FALSE(refused(in, kMaxResizeSide, 1));
}

}  // namespace
}  // namespace gov
