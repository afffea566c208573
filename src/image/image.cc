#include "image/image.h"

#include <algorithm>
#include <fstream>

#include "base/error.h"
#include "image/decoders.h"

namespace gov {

using image_detail::Bytes;
using image_detail::FileHeader;
using image_detail::Raster;
using image_detail::Size;

namespace {

FileHeader read_header(ImageFormat format, Bytes file) {
  switch (format) {
    case ImageFormat::kPng: return image_detail::read_png_header(file);
    case ImageFormat::kJpeg: return image_detail::read_jpeg_header(file);
    case ImageFormat::kWebp: return image_detail::read_webp_header(file);
    case ImageFormat::kGif: return image_detail::read_gif_header(file);
    case ImageFormat::kBmp: break;
  }
  return image_detail::read_bmp_header(file);
}

Raster decode(ImageFormat format, Bytes file, Size size, bool keep_alpha, const ImageLimits& limits) {
  switch (format) {
    case ImageFormat::kPng: return image_detail::decode_png(file, size, keep_alpha);
    case ImageFormat::kJpeg: return image_detail::decode_jpeg(file, size, limits);
    case ImageFormat::kWebp: return image_detail::decode_webp(file, size, keep_alpha);
    case ImageFormat::kGif: return image_detail::decode_gif(file, size, keep_alpha);
    case ImageFormat::kBmp: break;
  }
  return image_detail::decode_bmp(file, size, keep_alpha);
}

void check_byte_limit(std::uintmax_t bytes, const ImageLimits& limits) {
  if (bytes > limits.max_bytes)
    fail(ErrorCode::kInvalidArgument, "image: {} bytes, the limit is {}", bytes, limits.max_bytes);
}

void check_size(const char* format, const FileHeader& header, const ImageLimits& limits) {
  const std::int64_t w = header.width, h = header.height;
  if (w <= 0 || h <= 0) fail(ErrorCode::kCorrupt, "{} image: size {} x {} is not positive", format, w, h);
  // Both sides are below 2^31 before they are multiplied, whatever the caller set as limits.
  if (w > limits.max_side || h > limits.max_side)
    fail(ErrorCode::kInvalidArgument, "{} image: {} x {} pixels, the limit is {} a side", format, w, h,
         limits.max_side);
  if (w * h > limits.max_pixels)
    fail(ErrorCode::kInvalidArgument, "{} image: {} x {} pixels, the limit is {} pixels", format, w, h,
         limits.max_pixels);
}

// Drops alpha in place, after laying the pixels over the background if there is one. Over an opaque background Pillow's
// alpha_composite and paste(mask) both equal the product rounded to nearest.
void flatten(Raster& raster, const std::optional<std::array<std::uint8_t, 3>>& background) {
  if (raster.channels == 3) return;
  const std::size_t count = raster.pixels.size() / 4;
  std::uint8_t* to = raster.pixels.data();
  const std::uint8_t* from = raster.pixels.data();
  for (std::size_t i = 0; i < count; ++i, to += 3, from += 4) {
    const std::uint32_t alpha = from[3];
    for (std::size_t c = 0; c < 3; ++c) {
      const std::uint32_t colour = from[c];
      to[c] = static_cast<std::uint8_t>(background ? (colour * alpha + (*background)[c] * (255 - alpha) + 127) / 255
                                                   : colour);
    }
  }
  raster.pixels.resize(count * 3);
  raster.channels = 3;
}

}  // namespace

const char* image_format_name(ImageFormat format) {
  switch (format) {
    case ImageFormat::kPng: return "PNG";
    case ImageFormat::kJpeg: return "JPEG";
    case ImageFormat::kWebp: return "WebP";
    case ImageFormat::kGif: return "GIF";
    case ImageFormat::kBmp: break;
  }
  return "BMP";
}

std::optional<ImageFormat> detect_image_format(Bytes file) {
  using namespace std::string_view_literals;
  using image_detail::equals;
  if (equals(file, 0, "\x89PNG\r\n\x1a\n"sv)) return ImageFormat::kPng;
  if (equals(file, 0, "\xff\xd8\xff"sv)) return ImageFormat::kJpeg;
  if (equals(file, 0, "RIFF"sv) && equals(file, 8, "WEBP"sv)) return ImageFormat::kWebp;
  if (equals(file, 0, "GIF87a"sv) || equals(file, 0, "GIF89a"sv)) return ImageFormat::kGif;
  if (equals(file, 0, "BM"sv)) return ImageFormat::kBmp;
  return std::nullopt;
}

ImageHeader read_image_header(Bytes file, const ImageLimits& limits) {
  check_byte_limit(file.size(), limits);
  if (file.empty()) fail(ErrorCode::kCorrupt, "image: the file is empty");
  const std::optional<ImageFormat> format = detect_image_format(file);
  if (!format) fail(ErrorCode::kUnsupported, "image: not a PNG, JPEG, WebP, GIF or BMP file");
  const FileHeader header = read_header(*format, file);
  check_size(image_format_name(*format), header, limits);
  return {*format, static_cast<int>(header.width), static_cast<int>(header.height), header.orientation};
}

namespace {

Raster decode_oriented(const ImageHeader& header, Bytes file, bool keep_alpha, const ImageLimits& limits) {
  try {
    Raster raster = decode(header.format, file, {header.width, header.height}, keep_alpha, limits);
    return image_detail::orient(std::move(raster), header.orientation);
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::kOutOfMemory, "{} image: no memory for {} x {} pixels", image_format_name(header.format),
         header.width, header.height);
  }
}

}  // namespace

Image decode_image(Bytes file, const DecodeOptions& options) {
  const ImageHeader header = read_image_header(file, options.limits);
  Raster raster = decode_oriented(header, file, options.alpha_background.has_value(), options.limits);
  flatten(raster, options.alpha_background);
  return {raster.width, raster.height, std::move(raster.pixels)};
}

AlphaImage decode_image_with_alpha(Bytes file, const ImageLimits& limits) {
  Raster raster = decode_oriented(read_image_header(file, limits), file, true, limits);
  if (raster.channels == 4) return {raster.width, raster.height, std::move(raster.pixels)};
  AlphaImage out{raster.width, raster.height, std::vector<std::uint8_t>(raster.pixels.size() / 3 * 4, 255)};
  for (std::size_t from = 0, to = 0; from < raster.pixels.size(); from += 3, to += 4)
    std::copy_n(&raster.pixels[from], 3, &out.pixels[to]);
  return out;
}

Image load_image(const std::filesystem::path& path, const DecodeOptions& options) {
  const std::string name = printable(path.string());
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) fail(ErrorCode::kNotFound, "image '{}': no such file", name);
  if (!std::filesystem::is_regular_file(status)) fail(ErrorCode::kIo, "image '{}': not a regular file", name);
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) fail(ErrorCode::kIo, "image '{}': cannot be read", name);
  try {
    check_byte_limit(size, options.limits);
    std::vector<std::byte> bytes(static_cast<std::size_t>(size));
    std::ifstream stream(path, std::ios::binary);
    if (!stream) fail(ErrorCode::kIo, "cannot be opened");
    stream.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (static_cast<std::size_t>(stream.gcount()) != bytes.size()) fail(ErrorCode::kIo, "cannot be read");
    return decode_image(bytes, options);
  } catch (const Error& e) {
    fail(e.code(), "image '{}': {}", name, e.what());
  }
}

}  // namespace gov
