#include "train/nano_scene.h"

#include <algorithm>
#include <numbers>

#include "image/resize.h"
#include "train/nano_picture.h"

namespace gov::train {
namespace {

constexpr double kMostTurn = 0.14;  // radians; directions and clock hands must stay what they are

Colour varied(const Colour& colour, NanoRandom& random) {
  Colour out;
  for (std::size_t c = 0; c < 3; ++c)
    out[c] = std::clamp(colour[c] + static_cast<float>(random.uniform(-12, 12)), 0.f, 255.f);
  return out;
}

Colour any_colour(NanoRandom& random) {
  return {static_cast<float>(random.uniform(0, 255)), static_cast<float>(random.uniform(0, 255)),
          static_cast<float>(random.uniform(0, 255))};
}

// The name of the colour if the background has one.
std::string draw_background(Canvas& canvas, double white, NanoRandom& random) {
  const double u = random.uniform();
  if (u < white) {
    fill_plain(canvas, named_colours()[0].colour);
    return named_colours()[0].name;
  }
  if (u < white + (1 - white) * 0.6) {
    const NamedColour& named = random.pick(named_colours());
    fill_plain(canvas, varied(named.colour, random));
    return named.name;
  }
  if (u < white + (1 - white) * 0.85)
    fill_gradient(canvas, any_colour(random), any_colour(random), random.uniform(0, 2 * std::numbers::pi));
  else fill_noise(canvas, any_colour(random), random);
  return "";
}

void vary(Placement& p, bool may_flip, NanoRandom& random) {
  p.flip = may_flip && random.chance(0.5);
  if (random.chance(0.35)) p.angle = random.uniform(-kMostTurn, kMostTurn);
  if (random.chance(0.7)) {
    for (float& gain : p.gain) gain = static_cast<float>(random.uniform(0.92, 1.08));
    p.brightness = static_cast<float>(random.uniform(-0.06, 0.06));
    p.saturation = static_cast<float>(random.uniform(0.75, 1.2));
  }
  p.soft = random.chance(0.3);
}

struct Spot {
  const char* place;
  double x, y;  // centre, of the side
};
struct Arrangement {
  std::vector<Spot> spots;
  double largest;  // side of a picture, of the canvas' side
};

Arrangement draw_arrangement(std::size_t count, NanoRandom& random) {
  constexpr const char *kLeft = "on the left", *kRight = "on the right", *kMiddle = "in the middle";
  constexpr const char *kTop = "at the top", *kBottom = "at the bottom";
  constexpr const char *kTopLeft = "in the top left corner", *kTopRight = "in the top right corner";
  constexpr const char *kBottomLeft = "in the bottom left corner", *kBottomRight = "in the bottom right corner";
  switch (count) {
    case 1: return {{{kMiddle, 0.5, 0.5}}, 0.8};
    case 2:
      if (random.chance(0.7)) return {{{kLeft, 0.26, 0.5}, {kRight, 0.74, 0.5}}, 0.48};
      return {{{kTop, 0.5, 0.26}, {kBottom, 0.5, 0.74}}, 0.48};
    case 3:
      if (random.chance(0.6)) return {{{kLeft, 0.18, 0.5}, {kMiddle, 0.5, 0.5}, {kRight, 0.82, 0.5}}, 0.32};
      return {{{kTop, 0.5, 0.26}, {kBottomLeft, 0.26, 0.74}, {kBottomRight, 0.74, 0.74}}, 0.46};
    default:
      return {{{kTopLeft, 0.26, 0.26}, {kTopRight, 0.74, 0.26}, {kBottomLeft, 0.26, 0.74}, {kBottomRight, 0.74, 0.74}},
              0.46};
  }
}

Image over_white(const AlphaImage& picture) {
  Image out{picture.width, picture.height, {}};
  out.pixels.reserve(picture.pixels.size() / 4 * 3);
  for (std::size_t i = 0; i < picture.pixels.size(); i += 4) {
    const std::uint32_t alpha = picture.pixels[i + 3];
    for (std::size_t c = 0; c < 3; ++c)
      out.pixels.push_back(
          static_cast<std::uint8_t>((picture.pixels[i + c] * alpha + 255 * (255 - alpha) + 127) / 255));
  }
  return out;
}

}  // namespace

Scene single_scene(const NanoData& data, std::size_t picture, int side, bool augment, NanoRandom& random) {
  const AlphaImage drawing = data.decode(picture);
  Scene scene{{}, {picture}, {"in the middle"}, ""};
  if (!augment) {
    scene.image = resize(over_white(drawing), side, side, Resample::kBicubic);
    scene.background = named_colours()[0].name;
    return scene;
  }
  Canvas canvas(side);
  scene.background = draw_background(canvas, 0.5, random);
  Placement p;
  const double whole = random.chance(0.35) ? 1 : random.uniform(0.55, 1.05), stretch = random.uniform(0.93, 1.07);
  p.width = side * whole * stretch;
  p.height = side * whole / stretch;
  // Where there is room the picture may lie anywhere; a little may fall over the edge.
  const auto centre = [&](double size) {
    const double room = std::max(0.0, side - size) / 2 + 0.04 * side;
    return side / 2.0 + (whole == 1 ? 0 : random.uniform(-room, room));
  };
  p.centre_x = centre(p.width);
  p.centre_y = centre(p.height);
  vary(p, data.concept_of(picture).may_flip, random);
  draw(canvas, drawing, p);
  scene.image = canvas.image();
  return scene;
}

Scene composed_scene(const NanoData& data, std::vector<std::size_t> pictures, int side, bool augment,
                     NanoRandom& random) {
  Canvas canvas(side);
  Scene scene{{}, std::move(pictures), {}, draw_background(canvas, 0.25, random)};
  const Arrangement arrangement = draw_arrangement(scene.pictures.size(), random);
  for (std::size_t i = 0; i < scene.pictures.size(); ++i) {
    const Spot& spot = arrangement.spots[i];
    scene.places.push_back(spot.place);
    Placement p;
    p.width = p.height = side * arrangement.largest * random.uniform(0.75, 1);
    const double room = (side * arrangement.largest - p.width) / 2;
    p.centre_x = side * spot.x + random.uniform(-room, room);
    p.centre_y = side * spot.y + random.uniform(-room, room);
    if (augment) vary(p, data.concept_of(scene.pictures[i]).may_flip, random);
    draw(canvas, data.decode(scene.pictures[i]), p);
  }
  scene.image = canvas.image();
  return scene;
}

std::size_t draw_picture_count(NanoRandom& random) {
  const double u = random.uniform();
  return u < 0.14 ? 1 : u < 0.69 ? 2 : u < 0.84 ? 3 : 4;
}

}  // namespace gov::train
