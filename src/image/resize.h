#pragma once
// Pillow's 8-bit resampler, bit for bit: Image.resize((width, height), filter) with no box and no reducing_gap, as in
// every Pillow up to 12. (Pillow 13 takes rows before columns where the height shrinks much more than the width, which
// moves some bytes by 1; models were trained with the order below.) The recipe, for all filters but kNearest: with
// scale = in/out and stretch = max(scale, 1), output i is centred at (i + .5) * scale; tap x weighs filter((x - centre
// + .5) / stretch); weights are normalised in double, then rounded half away from zero to 22 fraction bits. Columns
// first, then rows; each pass rounds and clamps to 8 bits; a pass whose size does not change is left out.

#include "image/image.h"

namespace gov {

// The values are Pillow's codes, as in preprocessor_config.json.
enum class Resample { kNearest = 0, kLanczos = 1, kBilinear = 2, kBicubic = 3, kBox = 4, kHamming = 5 };

inline constexpr int kMaxResizeSide = 16384;

// Throws kInvalidArgument for an empty picture, or a width or height outside 1..kMaxResizeSide.
Image resize(const Image& image, int width, int height, Resample filter);

}  // namespace gov
