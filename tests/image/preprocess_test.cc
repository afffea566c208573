// pixel_values against transformers' numpy processors and against the values another program stored: every bit.
#include "image/preprocess.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tests/image/image_test_util.h"

namespace gov {
namespace {

constexpr int kLossyTolerance = 2;  // of 255, after decoding and resizing

std::vector<float> values_of(const Preprocessor& p, const Image& image) {
  std::vector<float> out(static_cast<std::size_t>(p.out_height()) * static_cast<std::size_t>(p.out_width()) * 3);
  p.apply(image, out.data());
  return out;
}

std::string nano_config() {
  const auto bytes = test::read_file(test::pictures_folder().parent_path() / "preprocessor_config.json");
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(Preprocess, EqualsTransformersBitForBit) {
  std::uint64_t seed = 1000;
  int cases = 0;
  for (const auto& line : test::read_tsv(test::data_folder() / "preprocess.tsv")) {
    ASSERT_EQ(line.size(), 6u);
    const Preprocessor p = Preprocessor::from_json(line[5]);
    EXPECT_EQ(p.out_height(), std::stoi(line[2]));
    EXPECT_EQ(p.out_width(), std::stoi(line[3]));
    const Image image = test::prng_picture(seed++, std::stoi(line[0]), std::stoi(line[1]));
    EXPECT_EQ(test::digest_of(values_of(p, image)), line[4]) << line[0] << "x" << line[1] << " " << line[5];
    ++cases;
  }
  EXPECT_GE(cases, 70);
}

// The whole chain, file to pixel_values, against the checkpoint's own trainer.
TEST(Preprocess, EqualsTheCheckpointsParityFile) {
  const Preprocessor p = Preprocessor::from_json(nano_config());
  int cases = 0;
  for (const auto& line : test::read_tsv(test::data_folder() / "parity.tsv")) {
    const Image image = load_image(test::data_folder() / line.at(0), p.decode_options());
    EXPECT_EQ(test::digest_of(values_of(p, image)), line.at(1)) << line[0];
    ++cases;
  }
  EXPECT_EQ(cases, 4);
}

TEST(Preprocess, RealPictures) {
  const Preprocessor p = Preprocessor::from_json(nano_config());
  std::uint64_t seed = 0;
  for (const auto& line : test::read_tsv(test::data_folder() / "pictures.tsv")) {
    SCOPED_TRACE(line.at(0));
    const std::vector<float> values = values_of(p, load_image(test::pictures_folder() / line[0], p.decode_options()));
    if (line.at(4).size() == 16) {
      EXPECT_EQ(test::digest_of(values), line[4]);
    } else {
      Image bytes{p.out_width(), p.out_height(), {}};
      const std::size_t plane = values.size() / 3;
      for (std::size_t i = 0; i < plane; ++i)
        for (std::size_t c = 0; c < 3; ++c)
          bytes.pixels.push_back(
              static_cast<std::uint8_t>(std::lround((values[c * plane + i] * p.std[c] + p.mean[c]) * 255)));
      const auto expected = test::from_hex(line[4]);
      EXPECT_LE(test::largest_difference(test::sampled(bytes, seed, expected.size() / 3), expected), kLossyTolerance);
    }
    ++seed;
  }
  EXPECT_EQ(seed, 40u);
}

TEST(Preprocess, DefaultsAreImageNets) {
  const Preprocessor p = Preprocessor::for_size(336);
  EXPECT_EQ(p.out_height(), 336);
  EXPECT_EQ(p.out_width(), 336);
  EXPECT_EQ(p.resample, Resample::kBicubic);
  EXPECT_EQ(p.mean, (std::array<float, 3>{0.485f, 0.456f, 0.406f}));
  EXPECT_EQ(p.std, (std::array<float, 3>{0.229f, 0.224f, 0.225f}));
  EXPECT_FALSE(p.alpha_background);
  EXPECT_EQ(Preprocessor::from_json("{}").fingerprint(), Preprocessor::for_size(224).fingerprint());
  EXPECT_FALSE(test::error_of([] { Preprocessor::for_size(0); }).empty());
  EXPECT_FALSE(test::error_of([] { Preprocessor::for_size(4097); }).empty());
}

TEST(Preprocess, ReadsRealConfigs) {
  const Preprocessor nano = Preprocessor::from_json(nano_config());
  EXPECT_EQ(nano.alpha_background, (std::array<std::uint8_t, 3>{255, 255, 255}));
  EXPECT_EQ(nano.size_h, 224);
  const Preprocessor clip = Preprocessor::from_json(
      R"({"crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true, "feature_extractor_type":
      "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258,
      0.27577711], "resample": 3, "size": 224})");
  EXPECT_EQ(clip.shortest_edge, 224);
  EXPECT_EQ(clip.crop_h, 224);
  const Preprocessor siglip = Preprocessor::from_json(
      R"({"do_convert_rgb": null, "do_resize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
      "processor_class": "SiglipProcessor", "resample": 2, "size": {"height": 384, "width": 384}})");
  EXPECT_EQ(siglip.resample, Resample::kBilinear);
  EXPECT_EQ(siglip.out_width(), 384);
}

TEST(Preprocess, RefusesWrongConfigs) {
  for (const char* config : {
           "",
           "[]",
           "7",
           "{",
           R"({"size": 224)",
           R"({"size": "224"})",
           R"({"size": 0})",
           R"({"size": -1})",
           R"({"size": 5000})",
           R"({"size": 1.5})",
           R"({"size": {"height": 224}})",
           R"({"size": {"width": 224}})",
           R"({"size": {"height": 0, "width": 4}})",
           R"({"size": {"height": "4", "width": 4}})",
           R"({"size": {}})",
           R"({"size": {"longest_edge": 224}})",
           R"({"size": {"shortest_edge": 224}})",
           R"({"size": true})",
           R"({"size": [224, 224]})",
           R"({"crop_size": 0})",
           R"({"crop_size": {"height": 3}})",
           R"({"crop_size": "x"})",
           R"({"resample": 6})",
           R"({"resample": -1})",
           R"({"resample": "bicubic"})",
           R"({"resample": 2.5})",
           R"({"rescale_factor": 0})",
           R"({"rescale_factor": "a"})",
           R"({"rescale_factor": 1e400})",
           R"({"rescale_factor": NaN})",
           R"({"image_std": [0, 1, 1]})",
           R"({"image_std": [1, 1]})",
           R"({"image_std": [1, 1, -1]})",
           R"({"image_std": [1, 1, NaN]})",
           R"({"image_std": [1, 1, null]})",
           R"({"image_mean": [1, 1, "x"]})",
           R"({"image_mean": [1e300, 1, 1]})",
           R"({"image_mean": {}})",
           R"({"image_mean": [1, 1, 1, 1]})",
           R"({"do_resize": 1})",
           R"({"do_normalize": "true"})",
           R"({"alpha_background": [1, 2]})",
           R"({"alpha_background": [1, 2, 256]})",
           R"({"alpha_background": [1, 2, -1]})",
           R"({"alpha_background": "white"})",
           R"({"do_convert_rgb": 3})",
       }) {
    const std::string message = test::error_of([&] { Preprocessor::from_json(config); });
    EXPECT_TRUE(test::clean_message(message)) << config << " -> " << message;
    EXPECT_TRUE(message.starts_with("preprocessor_config.json: ")) << message;
  }
  EXPECT_FALSE(test::error_of([] { Preprocessor::from_json(std::string(100000, '[')); }).empty());
}

TEST(Preprocess, ShapesThatCannotBeAreRefused) {
  Preprocessor p = Preprocessor::for_size(8);
  p.do_resize = false;
  std::vector<float> out(3 * 8 * 8);
  EXPECT_FALSE(test::error_of([&] { p.apply(test::prng_picture(1, 8, 9), out.data()); }).empty());
  EXPECT_TRUE(test::error_of([&] { p.apply(test::prng_picture(1, 8, 8), out.data()); }).empty());
  p.do_resize = p.do_center_crop = true;
  p.shortest_edge = 8;
  EXPECT_FALSE(test::error_of([&] { p.apply(test::prng_picture(1, 1, 2049), out.data()); }).empty());
  EXPECT_TRUE(test::error_of([&] { p.apply(test::prng_picture(1, 1, 2048), out.data()); }).empty());
}

TEST(Preprocess, FingerprintTellsSettingsApart) {
  std::set<std::string> seen;
  const char* configs[] = {"{}",
                           R"({"size": 225})",
                           R"({"size": {"height": 224, "width": 225}})",
                           R"({"resample": 2})",
                           R"({"rescale_factor": 0.003921568627450981})",
                           R"({"do_rescale": false})",
                           R"({"do_normalize": false})",
                           R"({"image_mean": 0.5})",
                           R"({"image_std": 0.5})",
                           R"({"image_std": [0.229, 0.224, 0.2250001]})",
                           R"({"alpha_background": [255, 255, 255]})",
                           R"({"do_resize": false})",
                           R"({"do_center_crop": true})",
                           R"({"do_center_crop": true, "size": {"height": 224, "width": 224}})",
                           R"({"do_center_crop": true, "crop_size": 8})",
                           R"({"do_center_crop": true, "size": {"shortest_edge": 224}})"};
  for (const char* config : configs) seen.insert(Preprocessor::from_json(config).fingerprint());
  EXPECT_EQ(seen.size(), std::size(configs) - 1);  // do_center_crop with and without the default size: one setting
  // Settings that change nothing do not count.
  EXPECT_EQ(Preprocessor::from_json(R"({"crop_size": 8})").fingerprint(), Preprocessor::from_json("{}").fingerprint());
}

}  // namespace
}  // namespace gov
