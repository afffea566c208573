#pragma once
// Drawing for nano: pictures with transparency put on a background.

#include <array>
#include <cstdint>
#include <vector>

#include "image/image.h"
#include "train/nano_random.h"

namespace gov::train {

using Colour = std::array<float, 3>;  // R, G, B, 0..255

struct NamedColour {
  const char* name;
  Colour colour;
};
// Colours that are told apart by name; the first is white.
std::span<const NamedColour> named_colours();

struct Canvas {
  explicit Canvas(int size) : side(size), pixels(static_cast<std::size_t>(size) * static_cast<std::size_t>(size) * 3) {}
  int side;
  std::vector<float> pixels;  // [side, side, 3]
  Image image() const;        // rounded to bytes
};

void fill_plain(Canvas& canvas, const Colour& colour);
void fill_gradient(Canvas& canvas, const Colour& from, const Colour& to, double angle);
// Soft blotches and grain around a colour.
void fill_noise(Canvas& canvas, const Colour& colour, NanoRandom& random);

// Where and how a picture is drawn. Lengths in pixels of the canvas.
struct Placement {
  double centre_x = 0, centre_y = 0, width = 0, height = 0;
  double angle = 0;  // radians
  bool flip = false;
  Colour gain = {1, 1, 1};  // multiplies each channel
  float brightness = 0;     // added, of 255
  float saturation = 1;
  bool soft = false;  // resized with a triangle instead of a cubic
};
void draw(Canvas& canvas, const AlphaImage& picture, const Placement& placement);

}  // namespace gov::train
