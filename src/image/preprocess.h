#pragma once
// A decoded picture becomes the vision tower's pixel_values, with the bits that the (slow) Hugging Face image processor
// gives: resize in uint8 as Pillow does, centre crop, double(u8) * rescale_factor rounded to float, (x - mean) / std in
// float.

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "image/image.h"
#include "image/resize.h"

namespace gov {

struct Preprocessor {
  bool do_resize = true;
  bool do_center_crop = false;
  bool do_rescale = true;
  bool do_normalize = true;
  int size_h = 224, size_w = 224;  // pixels; the aspect is not kept
  int shortest_edge = 0;           // > 0: instead of size_h and size_w, keeping the aspect; needs the centre crop
  int crop_h = 224, crop_w = 224;  // used with do_center_crop; a picture smaller than the crop is padded with black
  Resample resample = Resample::kBicubic;
  double rescale_factor = 1.0 / 255.0;
  std::array<float, 3> mean = {0.485f, 0.456f, 0.406f};  // R, G, B
  std::array<float, 3> std = {0.229f, 0.224f, 0.225f};
  std::optional<std::array<std::uint8_t, 3>> alpha_background;  // to be used while decoding: see decode_options

  // From the text of a preprocessor_config.json. Missing keys keep the defaults above (ImageNet's mean and std,
  // bicubic, 224), unknown keys are ignored. `size` is {"height", "width"}, {"shortest_edge"} or a number: the square's
  // side, or the shortest edge when the picture is cropped afterwards (ViT's and CLIP's conventions). Throws kCorrupt
  // naming the key for a wrong type, kInvalidArgument for an absurd value.
  static Preprocessor from_json(std::string_view json);
  static Preprocessor for_size(int size);  // the defaults with size x size

  int out_height() const { return do_center_crop ? crop_h : size_h; }
  int out_width() const { return do_center_crop ? crop_w : size_w; }

  DecodeOptions decode_options(const ImageLimits& limits = {}) const { return {limits, alpha_background}; }

  // out: [3, out_height(), out_width()]. Throws kInvalidArgument when the picture cannot take that shape: no resizing
  // and another size, or an aspect so extreme that the longer edge would pass kMaxResizeSide.
  void apply(const Image& image, float* out) const;

  // Every setting that changes a pixel value, exactly, as one line of text: part of an image cache's key.
  std::string fingerprint() const;
};

}  // namespace gov
