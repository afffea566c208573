#include "image/resize.h"

#include <cmath>
#include <numbers>

#include "base/error.h"

namespace gov {

namespace {

constexpr int kFractionBits = 22;

// The kernels with Pillow's order of operations, which decides the last bit of a weight.
double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

double bilinear(double x) {
  x = std::fabs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

double hamming(double x) {
  x = std::fabs(x);
  if (x == 0.0) return 1.0;
  if (x >= 1.0) return 0.0;
  x = x * std::numbers::pi;
  return std::sin(x) / x * (0.54f + 0.46f * std::cos(x));  // Pillow's constants are floats
}

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x = x * std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos(double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0; }

struct Kernel {
  double (*function)(double);
  double support;
};

Kernel kernel_of(Resample filter) {
  switch (filter) {
    case Resample::kBox: return {box, 0.5};
    case Resample::kBilinear: return {bilinear, 1.0};
    case Resample::kHamming: return {hamming, 1.0};
    case Resample::kLanczos: return {lanczos, 3.0};
    default: return {bicubic, 2.0};
  }
}

// For one axis: output i is the sum over j < count[i] of input[first[i] + j] * weights[i * max_count + j] / 2^22.
struct Taps {
  std::vector<int> first, count;
  std::vector<std::int32_t> weights;
  int max_count = 0;
};

Taps make_taps(int in, int out, Kernel kernel) {
  const double scale = static_cast<double>(in) / out;
  const double stretch = scale < 1.0 ? 1.0 : scale;
  const double support = kernel.support * stretch;
  const double inverse = 1.0 / stretch;
  Taps taps;
  taps.max_count = static_cast<int>(std::ceil(support)) * 2 + 1;
  taps.first.resize(static_cast<std::size_t>(out));
  taps.count.resize(static_cast<std::size_t>(out));
  taps.weights.resize(static_cast<std::size_t>(out) * static_cast<std::size_t>(taps.max_count));
  std::vector<double> exact(static_cast<std::size_t>(taps.max_count));
  for (int i = 0; i < out; ++i) {
    const double centre = (i + 0.5) * scale;
    // Truncated, not rounded: this is where Pillow lets a tap begin and end.
    int begin = static_cast<int>(centre - support + 0.5);  // NOLINT(bugprone-incorrect-roundings)
    if (begin < 0) begin = 0;
    int end = static_cast<int>(centre + support + 0.5);  // NOLINT(bugprone-incorrect-roundings)
    if (end > in) end = in;
    const int count = end - begin;
    double total = 0.0;
    for (int j = 0; j < count; ++j) {
      const double w = kernel.function((j + begin - centre + 0.5) * inverse);
      exact[static_cast<std::size_t>(j)] = w;
      total += w;
    }
    std::int32_t* to = &taps.weights[static_cast<std::size_t>(i) * static_cast<std::size_t>(taps.max_count)];
    for (int j = 0; j < count; ++j) {
      double w = exact[static_cast<std::size_t>(j)];
      if (total != 0.0) w /= total;
      to[j] = static_cast<std::int32_t>((w < 0 ? -0.5 : 0.5) + w * (1 << kFractionBits));
    }
    taps.first[static_cast<std::size_t>(i)] = begin;
    taps.count[static_cast<std::size_t>(i)] = count;
  }
  return taps;
}

std::uint8_t to_byte(std::int32_t sum) {
  const std::int32_t value = sum >> kFractionBits;
  return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

constexpr std::int32_t kHalf = 1 << (kFractionBits - 1);

Image empty_image(int width, int height) {
  Image image{width, height, {}};
  image.pixels.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
  return image;
}

std::size_t stride(const Image& image) { return static_cast<std::size_t>(image.width) * 3; }

Image resize_columns(const Image& in, int width, Kernel kernel) {
  const Taps taps = make_taps(in.width, width, kernel);
  Image out = empty_image(width, in.height);
  std::uint8_t* to = out.pixels.data();
  for (int y = 0; y < in.height; ++y) {
    const std::uint8_t* row = &in.pixels[static_cast<std::size_t>(y) * stride(in)];
    for (int x = 0; x < width; ++x, to += 3) {
      const auto i = static_cast<std::size_t>(x);
      const std::int32_t* w = &taps.weights[i * static_cast<std::size_t>(taps.max_count)];
      const std::uint8_t* from = row + static_cast<std::size_t>(taps.first[i]) * 3;
      std::int32_t r = kHalf, g = kHalf, b = kHalf;
      for (int j = 0; j < taps.count[i]; ++j, from += 3) {
        r += w[j] * from[0];
        g += w[j] * from[1];
        b += w[j] * from[2];
      }
      to[0] = to_byte(r);
      to[1] = to_byte(g);
      to[2] = to_byte(b);
    }
  }
  return out;
}

Image resize_rows(const Image& in, int height, Kernel kernel) {
  const Taps taps = make_taps(in.height, height, kernel);
  Image out = empty_image(in.width, height);
  const std::size_t row_bytes = stride(in);
  std::vector<std::int32_t> sums(row_bytes);
  for (int y = 0; y < height; ++y) {
    const auto i = static_cast<std::size_t>(y);
    const std::int32_t* w = &taps.weights[i * static_cast<std::size_t>(taps.max_count)];
    std::fill(sums.begin(), sums.end(), kHalf);
    for (int j = 0; j < taps.count[i]; ++j) {
      const std::uint8_t* row = &in.pixels[static_cast<std::size_t>(taps.first[i] + j) * row_bytes];
      for (std::size_t x = 0; x < row_bytes; ++x) sums[x] += w[j] * row[x];
    }
    std::uint8_t* to = &out.pixels[i * row_bytes];
    for (std::size_t x = 0; x < row_bytes; ++x) to[x] = to_byte(sums[x]);
  }
  return out;
}

// The input position of every output position, -1 where the running sum left the picture. Pillow adds the step up
// instead of multiplying, so its rounding errors add up too.
std::vector<int> nearest_positions(int in, int out) {
  std::vector<int> positions(static_cast<std::size_t>(out));
  const double step = static_cast<double>(in) / out;
  double at = step * 0.5;
  for (int& position : positions) {
    const int p = static_cast<int>(at);
    position = p < in ? p : -1;
    at += step;
  }
  return positions;
}

Image resize_nearest(const Image& in, int width, int height) {
  const std::vector<int> xs = nearest_positions(in.width, width), ys = nearest_positions(in.height, height);
  Image out = empty_image(width, height);  // black, which is what Pillow leaves at position -1
  for (int y = 0; y < height; ++y) {
    const int sy = ys[static_cast<std::size_t>(y)];
    if (sy < 0) continue;
    const std::uint8_t* row = &in.pixels[static_cast<std::size_t>(sy) * stride(in)];
    std::uint8_t* to = &out.pixels[static_cast<std::size_t>(y) * stride(out)];
    for (int x = 0; x < width; ++x, to += 3) {
      const int sx = xs[static_cast<std::size_t>(x)];
      if (sx < 0) continue;
      for (std::size_t c = 0; c < 3; ++c) to[c] = row[static_cast<std::size_t>(sx) * 3 + c];
    }
  }
  return out;
}

}  // namespace

Image resize(const Image& image, int width, int height, Resample filter) {
  if (image.width <= 0 || image.height <= 0 ||
      image.pixels.size() != static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height) * 3)
    fail(ErrorCode::kInvalidArgument, "resize: the picture is empty or its size does not match its pixels");
  if (width < 1 || height < 1 || width > kMaxResizeSide || height > kMaxResizeSide)
    fail(ErrorCode::kInvalidArgument, "resize: {} x {} is outside 1..{}", width, height, kMaxResizeSide);
  if (width == image.width && height == image.height) return image;
  if (filter == Resample::kNearest) return resize_nearest(image, width, height);
  const Kernel kernel = kernel_of(filter);
  if (width == image.width) return resize_rows(image, height, kernel);
  Image narrow = resize_columns(image, width, kernel);
  return height == image.height ? narrow : resize_rows(narrow, height, kernel);
}

}  // namespace gov
