// JPEG: the header walk (size, EXIF, XMP) and the call into libjpeg.
#include "base/error.h"
#include "image/decoders.h"
#include "image/jpeg_rows.h"

namespace gov::image_detail {

namespace {

using namespace std::string_view_literals;

[[noreturn]] void truncated() { fail(ErrorCode::kCorrupt, "JPEG image: the file is truncated"); }

bool is_frame_header(std::uint8_t marker) {
  return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

bool has_no_body(std::uint8_t marker) { return marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8); }

// The next marker at or after `at`, which is moved past it; garbage between segments is skipped, as libjpeg does.
std::uint8_t next_marker(Bytes file, std::size_t& at) {
  while (true) {
    while (at < file.size() && byte_at(file, at) != 0xFF) ++at;
    while (at < file.size() && byte_at(file, at) == 0xFF) ++at;
    if (at >= file.size()) truncated();
    const std::uint8_t marker = byte_at(file, at++);
    if (marker != 0) return marker;
  }
}

}  // namespace

FileHeader read_jpeg_header(Bytes file) {
  constexpr auto kExif = "Exif\0\0"sv;
  constexpr auto kXmp = "http://ns.adobe.com/xap/1.0/\0"sv;
  FileHeader header;
  int exif = 0, xmp = 0;
  std::size_t at = 2;
  while (true) {
    const std::uint8_t marker = next_marker(file, at);
    if (has_no_body(marker)) continue;
    // Start of scan or end of image before any frame header.
    if (marker == 0xDA || marker == 0xD9) fail(ErrorCode::kCorrupt, "JPEG image: no frame header before the data");
    if (file.size() - at < 2) truncated();
    const std::size_t length = be16(file, at);
    if (length < 2) fail(ErrorCode::kCorrupt, "JPEG image: a segment length is out of range");
    if (length > file.size() - at) truncated();
    const Bytes body = file.subspan(at + 2, length - 2);
    at += length;
    if (is_frame_header(marker)) {
      if (body.size() < 6) fail(ErrorCode::kCorrupt, "JPEG image: the frame header is too short");
      header.height = be16(body, 1);
      header.width = be16(body, 3);
      break;
    }
    if (marker != 0xE1) continue;
    if (exif == 0 && equals(body, 0, kExif)) exif = exif_orientation(body);
    if (xmp == 0 && equals(body, 0, kXmp)) xmp = xmp_orientation(body.subspan(kXmp.size()));
  }
  header.orientation = choose_orientation(exif, xmp);
  return header;
}

Raster decode_jpeg(Bytes file, Size size, const ImageLimits& limits) {
  Raster raster = new_raster(size, 3);
  std::vector<std::uint8_t> scratch(static_cast<std::size_t>(size.width) * 4);
  const JpegFault fault = decode_jpeg_rows({as_u8(file), file.size(), size.width, size.height, limits.max_jpeg_scans,
                                            limits.max_jpeg_warnings, raster.pixels.data(), scratch.data()});
  switch (fault) {
    case JpegFault::kNone: return raster;
    case JpegFault::kTruncated: truncated();
    case JpegFault::kUnsupported: fail(ErrorCode::kUnsupported, "JPEG image: this kind of JPEG is not supported");
    case JpegFault::kTooManyScans:
      fail(ErrorCode::kInvalidArgument, "JPEG image: more than {} scans", limits.max_jpeg_scans);
    case JpegFault::kTooManyWarnings:
      fail(ErrorCode::kCorrupt, "JPEG image: damaged data at more than {} places", limits.max_jpeg_warnings);
    case JpegFault::kMemory: throw std::bad_alloc();
    case JpegFault::kDamaged: break;
  }
  fail(ErrorCode::kCorrupt, "JPEG image: damaged data");
}

}  // namespace gov::image_detail
