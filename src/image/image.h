#pragma once
// Pictures from untrusted bytes: PNG, JPEG, WebP, GIF (first frame) and BMP become 8-bit RGB, as Pillow's
// ImageOps.exif_transpose(Image.open(f)).convert("RGB") gives, except that 16-bit grey keeps its high byte.
// Every limit is checked against the header before anything is allocated or decoded.
//
// Errors (gov::Error): kCorrupt for damaged or truncated bytes, kUnsupported for a kind that is not read,
// kInvalidArgument for a picture over a limit, kNotFound and kIo for files.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

namespace gov {

struct Image {
  int width = 0;                     // pixels
  int height = 0;                    // pixels
  std::vector<std::uint8_t> pixels;  // [height, width, 3] RGB, row-major
};

struct ImageLimits {
  std::size_t max_bytes = 20u << 20;     // of the encoded file
  std::int64_t max_pixels = 33'500'000;  // width * height
  int max_side = 16384;                  // pixels
  int max_jpeg_scans = 100;              // progressive scans; each costs a pass over the picture
  int max_jpeg_warnings = 100;           // recoverable faults that libjpeg reports
};

struct DecodeOptions {
  ImageLimits limits;
  // Colour that a picture with transparency is laid over. None: alpha is dropped as PIL convert("RGB") does, so the
  // colours under transparent pixels stay.
  std::optional<std::array<std::uint8_t, 3>> alpha_background;
};

enum class ImageFormat { kPng, kJpeg, kWebp, kGif, kBmp };

const char* image_format_name(ImageFormat format);  // "PNG", "JPEG", "WebP", "GIF", "BMP"

// By the leading bytes only; empty when it is none of the five.
std::optional<ImageFormat> detect_image_format(std::span<const std::byte> file);

struct ImageHeader {
  ImageFormat format = ImageFormat::kPng;
  int width = 0;  // as stored, before the orientation is applied
  int height = 0;
  int orientation = 1;  // EXIF 1..8; 5..8 swap width and height in the decoded picture
};

// Reads the size without decoding, in time linear in the file's size, and checks all limits that the header shows.
ImageHeader read_image_header(std::span<const std::byte> file, const ImageLimits& limits = {});

// A picture with its transparency, for laying it over something else.
struct AlphaImage {
  int width = 0;                     // pixels
  int height = 0;                    // pixels
  std::vector<std::uint8_t> pixels;  // [height, width, 4] RGBA, not premultiplied; 255 where the file has no alpha
};
AlphaImage decode_image_with_alpha(std::span<const std::byte> file, const ImageLimits& limits = {});

Image decode_image(std::span<const std::byte> file, const DecodeOptions& options = {});
Image load_image(const std::filesystem::path& path, const DecodeOptions& options = {});

}  // namespace gov
