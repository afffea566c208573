#pragma once
// Inside src/image only: one header reader and one decoder per format. A header reader finds the size, touches nothing
// but the given bytes and allocates nothing. A decoder may trust that the header was read and passed the limits.

#include <cstring>
#include <span>
#include <string_view>

#include "image/image.h"

namespace gov::image_detail {

using Bytes = std::span<const std::byte>;

struct FileHeader {
  std::int64_t width = 0;  // not yet checked against any limit
  std::int64_t height = 0;
  int orientation = 1;
};

struct Raster {
  int width = 0;
  int height = 0;
  int channels = 3;  // 3: RGB, 4: RGBA, not premultiplied
  std::vector<std::uint8_t> pixels;
};

struct Size {
  int width;
  int height;
};

FileHeader read_png_header(Bytes file);
FileHeader read_jpeg_header(Bytes file);
FileHeader read_webp_header(Bytes file);
FileHeader read_gif_header(Bytes file);
FileHeader read_bmp_header(Bytes file);

// keep_alpha: give RGBA where the picture has transparency; otherwise alpha may be dropped while decoding.
Raster decode_png(Bytes file, Size size, bool keep_alpha);
Raster decode_jpeg(Bytes file, Size size, const ImageLimits& limits);
Raster decode_webp(Bytes file, Size size, bool keep_alpha);
Raster decode_gif(Bytes file, Size size, bool keep_alpha);
Raster decode_bmp(Bytes file, Size size, bool keep_alpha);

// The orientation tag (1..8) of a TIFF block as EXIF embeds it, with or without "Exif\0\0" before it; 0 when there is
// none or the block is damaged (a picture is never refused for its EXIF).
int exif_orientation(Bytes tiff);
// The same from an XMP packet (tiff:Orientation), which Pillow takes when EXIF has none; 0 when absent.
int xmp_orientation(Bytes xmp);
// 1..8, with anything else (absent, out of range) as 1; EXIF goes before XMP.
int choose_orientation(int exif, int xmp);

Raster orient(Raster raster, int orientation);

inline std::uint8_t byte_at(Bytes b, std::size_t i) { return std::to_integer<std::uint8_t>(b[i]); }
inline std::uint32_t le16(Bytes b, std::size_t i) { return byte_at(b, i) | (std::uint32_t{byte_at(b, i + 1)} << 8); }
inline std::uint32_t be16(Bytes b, std::size_t i) { return (std::uint32_t{byte_at(b, i)} << 8) | byte_at(b, i + 1); }
inline std::uint32_t le32(Bytes b, std::size_t i) { return le16(b, i) | (le16(b, i + 2) << 16); }
inline std::uint32_t be32(Bytes b, std::size_t i) { return (be16(b, i) << 16) | be16(b, i + 2); }
inline bool equals(Bytes b, std::size_t i, std::string_view text) {
  return i <= b.size() && b.size() - i >= text.size() && std::memcmp(b.data() + i, text.data(), text.size()) == 0;
}
inline const std::uint8_t* as_u8(Bytes b) { return reinterpret_cast<const std::uint8_t*>(b.data()); }
// [height, width, channels] zero bytes; the sides passed the limits, so the product fits.
inline Raster new_raster(Size size, int channels) {
  Raster r{size.width, size.height, channels, {}};
  r.pixels.resize(static_cast<std::size_t>(size.width) * static_cast<std::size_t>(size.height) *
                  static_cast<std::size_t>(channels));
  return r;
}

}  // namespace gov::image_detail
