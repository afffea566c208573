// EXIF orientation: finding the tag and turning the picture, as PIL.ImageOps.exif_transpose.
#include "image/decoders.h"

namespace gov::image_detail {

namespace {

using namespace std::string_view_literals;

constexpr std::uint32_t kOrientationTag = 0x0112;
constexpr std::size_t kEntryBytes = 12;

// The value of a one-element entry of integer type, or -1.
std::int64_t entry_value(Bytes tiff, std::size_t entry, bool little) {
  const auto u16 = [&](std::size_t i) { return little ? le16(tiff, i) : be16(tiff, i); };
  const auto u32 = [&](std::size_t i) { return little ? le32(tiff, i) : be32(tiff, i); };
  if (u32(entry + 4) != 1) return -1;
  switch (u16(entry + 2)) {
    case 1:
    case 6: return byte_at(tiff, entry + 8);  // BYTE, SBYTE
    case 3:
    case 8: return u16(entry + 8);  // SHORT, SSHORT
    case 4:
    case 9: return u32(entry + 8);  // LONG, SLONG
    default: return -1;
  }
}

}  // namespace

int exif_orientation(Bytes tiff) {
  while (equals(tiff, 0, "Exif\0\0"sv)) tiff = tiff.subspan(6);
  const bool little = equals(tiff, 0, "II*\0"sv);
  if (!little && !equals(tiff, 0, "MM\0*"sv)) return 0;
  if (tiff.size() < 8) return 0;
  const std::size_t ifd = little ? le32(tiff, 4) : be32(tiff, 4);
  if (ifd > tiff.size() || tiff.size() - ifd < 2) return 0;
  const std::size_t count = little ? le16(tiff, ifd) : be16(tiff, ifd);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t entry = ifd + 2 + i * kEntryBytes;
    if (tiff.size() < entry + kEntryBytes) return 0;
    if ((little ? le16(tiff, entry) : be16(tiff, entry)) != kOrientationTag) continue;
    const std::int64_t value = entry_value(tiff, entry, little);
    // Present but out of range: it still shadows an XMP orientation, as in Pillow; 9 stands for "present, no turn".
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 9;
  }
  return 0;
}

int xmp_orientation(Bytes xmp) {
  const std::string_view text(reinterpret_cast<const char*>(xmp.data()), xmp.size());
  constexpr std::string_view kName = "tiff:Orientation";
  for (std::size_t at = text.find(kName); at != std::string_view::npos; at = text.find(kName, at + 1)) {
    std::string_view rest = text.substr(at + kName.size());
    if (rest.starts_with("=\"")) rest.remove_prefix(2);
    else if (rest.starts_with(">")) rest.remove_prefix(1);
    else continue;
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') return rest[0] - '0';
  }
  return 0;
}

int choose_orientation(int exif, int xmp) {
  const int value = exif != 0 ? exif : xmp;
  return value >= 1 && value <= 8 ? value : 1;
}

Raster orient(Raster raster, int orientation) {
  if (orientation <= 1 || orientation > 8) return raster;
  const int w = raster.width, h = raster.height;
  const bool swapped = orientation >= 5;
  Raster out = new_raster(swapped ? Size{h, w} : Size{w, h}, raster.channels);
  const auto channels = static_cast<std::size_t>(raster.channels);
  std::uint8_t* to = out.pixels.data();
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x, to += channels) {
      int sx = swapped ? y : x, sy = swapped ? x : y;
      // Which axes of the stored picture run backwards: EXIF 2.3, tag 0x0112.
      if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) sx = w - 1 - sx;
      if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) sy = h - 1 - sy;
      const std::size_t from =
          (static_cast<std::size_t>(sy) * static_cast<std::size_t>(w) + static_cast<std::size_t>(sx)) * channels;
      std::memcpy(to, raster.pixels.data() + from, channels);
    }
  }
  return out;
}

}  // namespace gov::image_detail
