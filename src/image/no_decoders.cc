// Takes the place of the library-backed decoders in a build with GOV_IMAGES off; BMP, which needs none, remains.

#include "base/error.h"
#include "image/decoders.h"

namespace gov::image_detail {
namespace {

[[noreturn]] void absent(ImageFormat format) {
  fail(ErrorCode::kUnsupported, "{} image: built without picture decoders (GOV_IMAGES=OFF)", image_format_name(format));
}

}  // namespace

FileHeader read_png_header(Bytes) { absent(ImageFormat::kPng); }
FileHeader read_jpeg_header(Bytes) { absent(ImageFormat::kJpeg); }
FileHeader read_webp_header(Bytes) { absent(ImageFormat::kWebp); }
FileHeader read_gif_header(Bytes) { absent(ImageFormat::kGif); }
Raster decode_png(Bytes, Size, bool) { absent(ImageFormat::kPng); }
Raster decode_jpeg(Bytes, Size, const ImageLimits&) { absent(ImageFormat::kJpeg); }
Raster decode_webp(Bytes, Size, bool) { absent(ImageFormat::kWebp); }
Raster decode_gif(Bytes, Size, bool) { absent(ImageFormat::kGif); }

}  // namespace gov::image_detail
