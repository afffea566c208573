#include "train/nano_picture.h"

#include <algorithm>
#include <cmath>
#include <span>

namespace gov::train {
namespace {

constexpr NamedColour kColours[] = {
    {"white", {255, 255, 255}},       {"black", {12, 12, 12}},     {"grey", {132, 132, 132}},
    {"red", {216, 32, 36}},           {"orange", {244, 138, 22}},  {"yellow", {248, 224, 40}},
    {"green", {38, 152, 52}},         {"blue", {36, 72, 212}},     {"purple", {128, 44, 164}},
    {"pink", {246, 140, 184}},        {"brown", {118, 72, 36}},    {"light blue", {152, 208, 244}},
    {"light green", {164, 226, 152}}, {"dark blue", {14, 24, 92}}, {"dark green", {12, 70, 28}},
    {"turquoise", {36, 190, 184}}};

// RGB multiplied by alpha, and alpha, 0..255.
struct Layer {
  int width = 0, height = 0;
  std::vector<float> pixels;  // [height, width, 4]
  float* row(int y) { return pixels.data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(width) * 4; }
  const float* row(int y) const { return const_cast<Layer*>(this)->row(y); }
};

Layer make_layer(int width, int height) {
  return {width, height, std::vector<float>(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 4)};
}

Layer prepare(const AlphaImage& picture, const Placement& p) {
  Layer out = make_layer(picture.width, picture.height);
  const std::uint8_t* from = picture.pixels.data();
  for (int y = 0; y < out.height; ++y) {
    float* const row = out.row(y);
    for (int x = 0; x < out.width; ++x, from += 4) {
      float* const to = row + (p.flip ? out.width - 1 - x : x) * 4;
      const float grey = 0.299f * from[0] + 0.587f * from[1] + 0.114f * from[2], alpha = from[3] * (1 / 255.f);
      for (std::size_t c = 0; c < 3; ++c) {
        const float colour = (grey + (from[c] - grey) * p.saturation) * p.gain[c] + p.brightness * 255.f;
        to[c] = std::clamp(colour, 0.f, 255.f) * alpha;
      }
      to[3] = from[3];
    }
  }
  return out;
}

float cubic(float x) {
  x = std::fabs(x);
  if (x < 1) return (1.5f * x - 2.5f) * x * x + 1;
  if (x < 2) return ((-0.5f * x + 2.5f) * x - 4) * x + 2;
  return 0;
}
float triangle(float x) { return std::max(0.f, 1 - std::fabs(x)); }

// The input taps of each output of one axis, as Pillow chooses them.
struct Taps {
  std::vector<int> first, count;
  std::vector<float> weights;  // [outputs, most]
  int most = 0;
  const float* of(int i) const { return weights.data() + static_cast<std::size_t>(i) * static_cast<std::size_t>(most); }
};

Taps make_taps(int in, int out, bool soft) {
  const float scale = static_cast<float>(in) / static_cast<float>(out), stretch = std::max(scale, 1.f);
  const float support = (soft ? 1.f : 2.f) * stretch;
  Taps taps;
  taps.most = static_cast<int>(std::ceil(support)) * 2 + 1;
  taps.first.resize(static_cast<std::size_t>(out));
  taps.count.resize(static_cast<std::size_t>(out));
  taps.weights.resize(static_cast<std::size_t>(out) * static_cast<std::size_t>(taps.most));
  for (int i = 0; i < out; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const float centre = (static_cast<float>(i) + 0.5f) * scale;
    const int begin = std::max(0, static_cast<int>(std::floor(centre - support + 0.5f)));
    const int end = std::min({in, static_cast<int>(std::floor(centre + support + 0.5f)), begin + taps.most});
    float* const w = taps.weights.data() + at * static_cast<std::size_t>(taps.most);
    float total = 0;
    for (int j = begin; j < end; ++j) {
      const float x = (static_cast<float>(j) + 0.5f - centre) / stretch;
      total += w[j - begin] = soft ? triangle(x) : cubic(x);
    }
    for (int j = 0; j < end - begin; ++j) w[j] /= total;
    taps.first[at] = begin;
    taps.count[at] = end - begin;
  }
  return taps;
}

Layer resize(const Layer& in, int width, int height, bool soft) {
  const Taps xs = make_taps(in.width, width, soft), ys = make_taps(in.height, height, soft);
  Layer narrow = make_layer(width, in.height), out = make_layer(width, height);
  for (int y = 0; y < in.height; ++y) {
    const float* const row = in.row(y);
    float* to = narrow.row(y);
    for (int x = 0; x < width; ++x, to += 4) {
      const auto at = static_cast<std::size_t>(x);
      const float* const w = xs.of(x);
      const float* from = row + xs.first[at] * 4;
      float sum[4] = {0, 0, 0, 0};
      for (int j = 0; j < xs.count[at]; ++j, from += 4)
        for (int c = 0; c < 4; ++c) sum[c] += w[j] * from[c];
      std::copy_n(sum, 4, to);
    }
  }
  for (int y = 0; y < height; ++y) {
    const auto at = static_cast<std::size_t>(y);
    float* const to = out.row(y);
    for (int j = 0; j < ys.count[at]; ++j) {
      const float w = ys.of(y)[j];
      const float* const from = narrow.row(ys.first[at] + j);
      for (int x = 0; x < width * 4; ++x) to[x] += w * from[x];
    }
  }
  return out;
}

void blend(float* to, const float* from) {
  const float rest = 1 - std::clamp(from[3] * (1 / 255.f), 0.f, 1.f);
  for (int c = 0; c < 3; ++c) to[c] = to[c] * rest + from[c];
}

float* pixel(Canvas& canvas, int x, int y) {
  return canvas.pixels.data() +
         (static_cast<std::size_t>(y) * static_cast<std::size_t>(canvas.side) + static_cast<std::size_t>(x)) * 3;
}

void paste(Canvas& canvas, const Layer& layer, int left, int top) {
  const int y_end = std::min(layer.height, canvas.side - top), x_end = std::min(layer.width, canvas.side - left);
  for (int y = std::max(0, -top); y < y_end; ++y) {
    for (int x = std::max(0, -left); x < x_end; ++x) blend(pixel(canvas, left + x, top + y), layer.row(y) + x * 4);
  }
}

// The layer's value between its pixels; transparent outside.
void sample(const Layer& layer, double x, double y, float* out) {
  const int x0 = static_cast<int>(std::floor(x)), y0 = static_cast<int>(std::floor(y));
  const auto fx = static_cast<float>(x - x0), fy = static_cast<float>(y - y0);
  std::fill_n(out, 4, 0.f);
  for (int dy = 0; dy < 2; ++dy) {
    for (int dx = 0; dx < 2; ++dx) {
      const int sx = x0 + dx, sy = y0 + dy;
      if (sx < 0 || sy < 0 || sx >= layer.width || sy >= layer.height) continue;
      const float w = (dx == 1 ? fx : 1 - fx) * (dy == 1 ? fy : 1 - fy);
      const float* const from = layer.row(sy) + sx * 4;
      for (int c = 0; c < 4; ++c) out[c] += w * from[c];
    }
  }
}

void paste_turned(Canvas& canvas, const Layer& layer, const Placement& p) {
  const double cosine = std::cos(p.angle), sine = std::sin(p.angle);
  const double reach = (std::fabs(cosine) + std::fabs(sine)) * std::max(layer.width, layer.height) / 2 + 1;
  const auto clip = [&](double at) { return std::clamp(static_cast<int>(at), 0, canvas.side); };
  float value[4];
  for (int y = clip(p.centre_y - reach); y < clip(p.centre_y + reach + 1); ++y) {
    for (int x = clip(p.centre_x - reach); x < clip(p.centre_x + reach + 1); ++x) {
      const double dx = x + 0.5 - p.centre_x, dy = y + 0.5 - p.centre_y;
      sample(layer, cosine * dx + sine * dy + layer.width / 2.0 - 0.5,
             cosine * dy - sine * dx + layer.height / 2.0 - 0.5, value);
      if (value[3] > 0) blend(pixel(canvas, x, y), value);
    }
  }
}

}  // namespace

std::span<const NamedColour> named_colours() { return kColours; }

Image Canvas::image() const {
  Image out{side, side, std::vector<std::uint8_t>(pixels.size())};
  for (std::size_t i = 0; i < pixels.size(); ++i)
    out.pixels[i] = static_cast<std::uint8_t>(std::clamp(pixels[i] + 0.5f, 0.f, 255.f));
  return out;
}

void fill_plain(Canvas& canvas, const Colour& colour) {
  for (std::size_t i = 0; i < canvas.pixels.size(); i += 3) std::copy_n(colour.begin(), 3, &canvas.pixels[i]);
}

void fill_gradient(Canvas& canvas, const Colour& from, const Colour& to, double angle) {
  const auto dx = static_cast<float>(std::cos(angle)), dy = static_cast<float>(std::sin(angle));
  const float half = static_cast<float>(canvas.side) / 2, reach = half * (std::fabs(dx) + std::fabs(dy));
  for (int y = 0; y < canvas.side; ++y) {
    for (int x = 0; x < canvas.side; ++x) {
      const float along = ((static_cast<float>(x) - half) * dx + (static_cast<float>(y) - half) * dy) / reach;
      const float t = std::clamp((along + 1) / 2, 0.f, 1.f);
      float* const out = pixel(canvas, x, y);
      for (std::size_t c = 0; c < 3; ++c) out[c] = from[c] + (to[c] - from[c]) * t;
    }
  }
}

void fill_noise(Canvas& canvas, const Colour& colour, NanoRandom& random) {
  constexpr int kGrid = 8;
  float knots[(kGrid + 1) * (kGrid + 1)];
  for (float& knot : knots) knot = static_cast<float>(random.uniform(-40, 40));
  std::uint32_t grain = static_cast<std::uint32_t>(random.uniform() * 0x1p32) | 1u;
  for (int y = 0; y < canvas.side; ++y) {
    const float v = static_cast<float>(y * kGrid) / static_cast<float>(canvas.side);
    const auto gy = static_cast<int>(v);
    const float fy = v - static_cast<float>(gy);
    for (int x = 0; x < canvas.side; ++x) {
      const float u = static_cast<float>(x * kGrid) / static_cast<float>(canvas.side);
      const auto gx = static_cast<int>(u);
      const float fx = u - static_cast<float>(gx);
      const float* const k = knots + gy * (kGrid + 1) + gx;
      const float top = k[0] + (k[1] - k[0]) * fx, bottom = k[kGrid + 1] + (k[kGrid + 2] - k[kGrid + 1]) * fx;
      grain = grain * 1664525u + 1013904223u;
      const float value = top + (bottom - top) * fy + static_cast<float>(grain >> 24) * 0.125f - 16;
      float* const out = pixel(canvas, x, y);
      for (std::size_t c = 0; c < 3; ++c) out[c] = std::clamp(colour[c] + value, 0.f, 255.f);
    }
  }
}

void draw(Canvas& canvas, const AlphaImage& picture, const Placement& p) {
  const int width = std::max(1, static_cast<int>(std::lround(p.width)));
  const int height = std::max(1, static_cast<int>(std::lround(p.height)));
  const Layer layer = resize(prepare(picture, p), width, height, p.soft);
  if (p.angle != 0) return paste_turned(canvas, layer, p);
  paste(canvas, layer, static_cast<int>(std::lround(p.centre_x - width / 2.0)),
        static_cast<int>(std::lround(p.centre_y - height / 2.0)));
}

}  // namespace gov::train
