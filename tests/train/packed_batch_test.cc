// Packing: what every row sees, predicts and weighs.

#include "train/packed_batch.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace gov::train {
namespace {

constexpr std::int64_t kRows = 3;  // of an image
SharedPixels picture(float value) { return std::make_shared<const std::vector<float>>(4, value); }

Sample text(std::vector<std::int32_t> tokens, std::vector<float> weights) {
  Sample s;
  for (std::size_t i = 0; i < tokens.size(); ++i) s.add(tokens[i], weights[i]);
  return s;
}

std::vector<float> pixels_of(const PackedBatch& batch) {
  std::vector<float> out;
  for (const SharedPixels& image : batch.images) out.insert(out.end(), image->begin(), image->end());
  return out;
}

TEST(PackedBatch, TwoDocuments) {
  BatchPacker packer(10, kRows);
  Sample with_image;
  with_image.add_image(picture(1), kRows);
  with_image.add(7, 0.5f);
  with_image.add(8, 9, 1);
  EXPECT_TRUE(packer.add(std::vector{text({5, 6, 4}, {1, 0, 1}), with_image}));
  const PackedBatch b = packer.take();
  EXPECT_EQ(b.tokens, (std::vector<std::int32_t>{5, 6, 4, 0, 0, 0, 7, 8}));
  EXPECT_EQ(b.positions, (std::vector<std::int32_t>{0, 1, 2, 0, 1, 2, 3, 4}));
  EXPECT_EQ(b.modality, (std::vector<std::uint8_t>{0, 0, 0, 1, 1, 1, 0, 0}));
  EXPECT_EQ(b.cu_seqlens, (std::vector<std::int32_t>{0, 3, 8}));
  // Token 0 of a text has no prediction; the last image row predicts the first text token; documents do not see into
  // each other; the label of the last token is not the token.
  EXPECT_EQ(b.targets, (std::vector<std::int32_t>{-1, 4, -1, -1, -1, 7, 9, -1}));
  EXPECT_EQ(b.row_weights, (std::vector<float>{0, 1, 0, 0, 0, 0.5f, 1, 0}));
  EXPECT_EQ(b.trained, 3);
  EXPECT_EQ(b.weight_sum, 2.5);
  EXPECT_EQ(b.max_rows, 5);
  EXPECT_EQ(pixels_of(b), (std::vector<float>{1, 1, 1, 1}));
  ASSERT_EQ(b.image_copies.size(), 1u);
  EXPECT_EQ(b.image_copies[0].rows, (std::vector<std::int32_t>{3, 4, 5}));
  EXPECT_EQ(b.image_copies[0].sources, (std::vector<std::int32_t>{0, 1, 2}));
  EXPECT_TRUE(packer.empty());
}

TEST(PackedBatch, ImageInTheMiddlePredictsWhatFollows) {
  BatchPacker packer(10, kRows);
  Sample s;
  s.add(3, 1);
  s.add_image(picture(1), kRows);
  s.add(4, 1);
  EXPECT_TRUE(packer.add({&s, 1}));
  EXPECT_EQ(packer.take().targets, (std::vector<std::int32_t>{-1, -1, -1, 4, -1}));
}

TEST(PackedBatch, OnePictureOfTwoDocumentsIsEncodedOnce) {
  const SharedPixels shared = picture(1);
  Sample a, b;
  a.add_image(shared, kRows);
  a.add(1, 1);
  b.add_image(picture(2), kRows);
  b.add_image(shared, kRows);
  b.add(2, 1);
  BatchPacker packer(20, kRows);
  EXPECT_TRUE(packer.add(std::vector{a, b}));
  const PackedBatch batch = packer.take();
  EXPECT_EQ(batch.images.size(), 2u);
  EXPECT_EQ(pixels_of(batch), (std::vector<float>{1, 1, 1, 1, 2, 2, 2, 2}));
  ASSERT_EQ(batch.image_copies.size(), 2u);
  EXPECT_EQ(batch.image_copies[0].rows, (std::vector<std::int32_t>{0, 1, 2, 4, 5, 6}));
  EXPECT_EQ(batch.image_copies[0].sources, (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(batch.image_copies[1].rows, (std::vector<std::int32_t>{7, 8, 9}));
  EXPECT_EQ(batch.image_copies[1].sources, (std::vector<std::int32_t>{0, 1, 2}));
}

TEST(PackedBatch, FullBatchTakesNoMore) {
  BatchPacker packer(5, kRows);
  const Sample s = text({1, 2, 3}, {1, 1, 1});
  EXPECT_TRUE(packer.add({&s, 1}));
  EXPECT_FALSE(packer.add({&s, 1}));
  EXPECT_EQ(packer.take().rows(), 3);
  EXPECT_TRUE(packer.add({&s, 1}));
  EXPECT_THROW(packer.add(std::vector{s, s}), Error);
}

TEST(Sample, TruncationKeepsImagesWhole) {
  Sample s;
  s.add(1, 1);
  s.add_image(picture(1), kRows);
  s.add(2, 1);
  s.add_image(picture(2), kRows);
  s.add(3, 1);
  Sample cut = s;
  EXPECT_FALSE(truncate(cut, 9, kRows));
  EXPECT_TRUE(truncate(cut, 8, kRows));
  EXPECT_EQ(cut.rows(), 8);
  EXPECT_EQ(cut.images.size(), 2u);
  for (const std::int64_t length : {7, 6, 5}) {
    cut = s;
    EXPECT_TRUE(truncate(cut, length, kRows));
    EXPECT_EQ(cut.rows(), 5) << length;
    EXPECT_EQ(cut.images.size(), 1u);
    EXPECT_NO_THROW(check_sample(cut, 10, kRows, 4));
  }
  cut = s;
  EXPECT_TRUE(truncate(cut, 3, kRows));
  EXPECT_EQ(cut.rows(), 1);
  EXPECT_TRUE(cut.images.empty());
}

TEST(Sample, ChecksNameTheFault) {
  const auto message = [](const Sample& s) -> std::string {
    try {
      check_sample(s, 10, kRows, 4);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message(text({1, 2}, {0, 1})), "");
  EXPECT_EQ(message(text({1, 10}, {0, 1})), "token 10 is outside 0..9");
  EXPECT_EQ(message(text({1, 2}, {1, 0})), "nothing to predict: no text of an assistant");
  Sample s = text({1, 2}, {0, 1});
  s.labels[1] = 11;
  EXPECT_EQ(message(s), "label 11 is outside 0..9");
  s = text({1, 2}, {0, 1});
  s.add_image(picture(1), 2);
  EXPECT_EQ(message(s), "2 image rows for 1 images of 3 rows");
  s = text({1, 2}, {0, 1});
  s.add_image(std::make_shared<const std::vector<float>>(5), kRows);
  EXPECT_EQ(message(s), "an image of 5 values, expected 4");
  s.labels.pop_back();
  EXPECT_EQ(message(s), "5 tokens, but 4 labels and 5 weights");
}

}  // namespace
}  // namespace gov::train
