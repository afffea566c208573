// WebP (lossy, lossless, with alpha, first frame of an animation) through libwebp.
#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>

#include "base/error.h"
#include "image/decoders.h"

namespace gov::image_detail {

namespace {

constexpr std::size_t kRiffHeader = 12;

[[noreturn]] void damaged() { fail(ErrorCode::kCorrupt, "WebP image: damaged or truncated data"); }

WebPBitstreamFeatures features_of(Bytes file) {
  WebPBitstreamFeatures features{};
  if (WebPGetFeatures(as_u8(file), file.size(), &features) != VP8_STATUS_OK) damaged();
  return features;
}

struct Target {
  std::uint8_t* pixels;
  std::size_t bytes;
  int stride;  // bytes from row to row
  int channels;
};

void decode_into(const std::uint8_t* data, std::size_t bytes, const Target& to) {
  const std::uint8_t* done = to.channels == 4 ? WebPDecodeRGBAInto(data, bytes, to.pixels, to.bytes, to.stride)
                                              : WebPDecodeRGBInto(data, bytes, to.pixels, to.bytes, to.stride);
  if (done == nullptr) damaged();
}

// The first frame on its canvas; what it does not cover is transparent black, as WebPAnimDecoder leaves it.
void decode_first_frame(Bytes file, Raster& canvas) {
  const WebPData data{as_u8(file), file.size()};
  const std::unique_ptr<WebPDemuxer, decltype(&WebPDemuxDelete)> demuxer(WebPDemux(&data), WebPDemuxDelete);
  if (!demuxer) damaged();
  WebPIterator frame{};
  if (WebPDemuxGetFrame(demuxer.get(), 1, &frame) == 0) damaged();
  const std::unique_ptr<WebPIterator, decltype(&WebPDemuxReleaseIterator)> release(&frame, WebPDemuxReleaseIterator);
  const bool inside = frame.x_offset >= 0 && frame.y_offset >= 0 && frame.width > 0 && frame.height > 0 &&
                      frame.x_offset <= canvas.width - frame.width && frame.y_offset <= canvas.height - frame.height;
  if (!inside || frame.complete == 0) damaged();
  const auto stride = static_cast<std::size_t>(canvas.width) * static_cast<std::size_t>(canvas.channels);
  const std::size_t start = static_cast<std::size_t>(frame.y_offset) * stride +
                            static_cast<std::size_t>(frame.x_offset) * static_cast<std::size_t>(canvas.channels);
  decode_into(frame.fragment.bytes, frame.fragment.size,
              {canvas.pixels.data() + start, canvas.pixels.size() - start, static_cast<int>(stride), canvas.channels});
}

}  // namespace

FileHeader read_webp_header(Bytes file) {
  if (file.size() < kRiffHeader) damaged();
  const std::uint64_t riff_bytes = std::uint64_t{le32(file, 4)} + 8;
  if (riff_bytes > file.size()) damaged();
  const WebPBitstreamFeatures features = features_of(file);
  int exif = 0, xmp = 0;
  const Bytes riff = file.first(static_cast<std::size_t>(riff_bytes));
  for (std::size_t at = kRiffHeader; at <= riff.size() && riff.size() - at >= 8;) {
    const std::size_t bytes = le32(riff, at + 4);
    if (bytes > riff.size() - at - 8) damaged();
    const Bytes data = riff.subspan(at + 8, bytes);
    if (exif == 0 && equals(riff, at, "EXIF")) exif = exif_orientation(data);
    if (xmp == 0 && equals(riff, at, "XMP ")) xmp = xmp_orientation(data);
    at += 8 + bytes + (bytes & 1);
  }
  return {features.width, features.height, choose_orientation(exif, xmp)};
}

Raster decode_webp(Bytes file, Size size, bool keep_alpha) {
  const WebPBitstreamFeatures features = features_of(file);
  Raster raster = new_raster(size, keep_alpha && features.has_alpha != 0 ? 4 : 3);
  if (features.has_animation != 0) decode_first_frame(file, raster);
  else
    decode_into(as_u8(file), file.size(),
                {raster.pixels.data(), raster.pixels.size(), size.width * raster.channels, raster.channels});
  return raster;
}

}  // namespace gov::image_detail
