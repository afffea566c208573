// BMP (OS/2 1.x and Windows headers; 1, 4, 8, 16, 24 and 32 bits; RLE4, RLE8, bit fields; top-down): a strict reader.
#include <algorithm>
#include <bit>

#include "base/error.h"
#include "image/decoders.h"

namespace gov::image_detail {

namespace {

constexpr std::size_t kFileHeader = 14;

enum class Compression { kNone, kRle8, kRle4, kBitFields };

struct BmpInfo {
  std::int64_t width = 0, height = 0;
  bool top_down = false;
  std::uint32_t bits = 0;
  Compression compression = Compression::kNone;
  std::array<std::uint32_t, 4> masks{};  // R, G, B, A of 16- and 32-bit pixels
  Bytes palette;                         // entries of palette_entry bytes: B, G, R[, unused]
  std::size_t palette_entry = 4;
  Bytes data;  // from the first pixel on
};

[[noreturn]] void truncated() { fail(ErrorCode::kCorrupt, "BMP image: the file is truncated"); }
[[noreturn]] void unsupported(const char* what) {
  fail(ErrorCode::kUnsupported, "BMP image: {} is not supported", what);
}

std::int32_t signed_le32(Bytes b, std::size_t i) { return std::bit_cast<std::int32_t>(le32(b, i)); }

void read_compression(BmpInfo& info, std::uint32_t code, std::size_t header_bytes) {
  const std::uint32_t bits = info.bits;
  if (code == 0) return;
  if (header_bytes == 64) unsupported("OS/2 2.x compression");
  if (code == 1 && bits == 8) info.compression = Compression::kRle8;
  else if (code == 2 && bits == 4) info.compression = Compression::kRle4;
  else if (code == 3 && (bits == 16 || bits == 32)) info.compression = Compression::kBitFields;
  else unsupported("this compression");
  if (info.top_down && info.compression != Compression::kBitFields) unsupported("top-down run-length coding");
}

bool contiguous(std::uint32_t mask) {
  if (mask == 0) return true;
  const std::uint32_t shifted = mask >> std::countr_zero(mask);
  return (shifted & (shifted + 1)) == 0;
}

// Returns the bytes that masks take after a 40-byte header.
std::size_t read_masks(BmpInfo& info, Bytes file, std::size_t header_bytes) {
  info.masks = info.bits == 16 ? std::array<std::uint32_t, 4>{0x7C00, 0x3E0, 0x1F, 0}
                               : std::array<std::uint32_t, 4>{0xFF0000, 0xFF00, 0xFF, 0};
  if (info.compression != Compression::kBitFields) return 0;
  const std::size_t count = header_bytes >= 56 ? 4 : 3;
  const std::size_t at = kFileHeader + 40;
  if (file.size() < at + count * 4) truncated();
  std::array<std::uint32_t, 4> masks{};
  for (std::size_t i = 0; i < count; ++i) masks[i] = le32(file, at + i * 4);
  std::uint32_t seen = 0;
  for (const std::uint32_t mask : masks) {
    if (!contiguous(mask) || (seen & mask) != 0 || (info.bits == 16 && mask > 0xFFFF))
      fail(ErrorCode::kCorrupt, "BMP image: the bit fields are invalid");
    seen |= mask;
  }
  // All zero: Pillow takes it for BGRA.
  if (seen == 0 && info.bits == 32) masks = {0xFF0000, 0xFF00, 0xFF, 0xFF000000};
  info.masks = masks;
  return header_bytes == 40 ? 12 : 0;
}

void read_info_fields(BmpInfo& info, Bytes file, std::size_t header_bytes, std::uint32_t& colours) {
  std::uint32_t compression = 0;
  if (header_bytes == 12) {
    info.width = le16(file, 18);
    info.height = le16(file, 20);
    info.bits = le16(file, 24);
    info.palette_entry = 3;
  } else {
    info.width = signed_le32(file, 18);
    info.height = signed_le32(file, 22);
    info.bits = le16(file, 28);
    compression = le32(file, 30);
    colours = le32(file, 46);
  }
  info.top_down = info.height < 0;
  if (info.top_down) info.height = -info.height;
  const std::uint32_t b = info.bits;
  if (b != 1 && b != 4 && b != 8 && b != 16 && b != 24 && b != 32) unsupported("this pixel depth");
  read_compression(info, compression, header_bytes);
}

BmpInfo read_info(Bytes file) {
  if (file.size() < kFileHeader + 12) truncated();
  const std::size_t header_bytes = le32(file, kFileHeader);
  constexpr std::array<std::size_t, 7> kKnown = {12, 40, 52, 56, 64, 108, 124};
  if (std::find(kKnown.begin(), kKnown.end(), header_bytes) == kKnown.end()) unsupported("this header");
  if (file.size() < kFileHeader + header_bytes) truncated();
  BmpInfo info;
  std::uint32_t colours = 0;
  read_info_fields(info, file, header_bytes, colours);
  std::size_t at = kFileHeader + header_bytes + read_masks(info, file, header_bytes);
  std::size_t palette_bytes = 0;
  if (info.bits <= 8) {
    if (colours == 0) colours = 1u << info.bits;
    if (colours > 65536) fail(ErrorCode::kCorrupt, "BMP image: the palette has {} colours", colours);
    palette_bytes = colours * info.palette_entry;
    if (palette_bytes > file.size() - at) truncated();
    info.palette = file.subspan(at, palette_bytes);
  }
  std::size_t offset = le32(file, 10);
  // Some writers leave the palette out of the offset, or the offset out of the file; Pillow mends both.
  if (offset == kFileHeader + header_bytes && info.bits <= 8) offset += palette_bytes;
  if (offset == 0) offset = at + palette_bytes;
  if (offset > file.size()) truncated();
  info.data = file.subspan(offset);
  return info;
}

using Colour = std::array<std::uint8_t, 3>;

// RGB of every index; indices past the palette are black.
std::array<Colour, 256> colour_table(const BmpInfo& info) {
  std::array<Colour, 256> table{};
  const std::size_t count = std::min<std::size_t>(256, info.palette.size() / info.palette_entry);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = i * info.palette_entry;
    table[i] = {byte_at(info.palette, at + 2), byte_at(info.palette, at + 1), byte_at(info.palette, at)};
  }
  return table;
}

// Palette indices [height, width], bottom row first as stored. Runs past the end of a row are cut; pixels that no run
// covers keep index 0.
std::vector<std::uint8_t> unpack_rle(const BmpInfo& info, Size size) {
  const bool four = info.compression == Compression::kRle4;
  const auto width = static_cast<std::size_t>(size.width), height = static_cast<std::size_t>(size.height);
  std::vector<std::uint8_t> indices(width * height);
  std::size_t x = 0, y = 0, at = 0;
  const auto put = [&](std::uint8_t index) {
    if (x < width) indices[y * width + x++] = index;
  };
  const auto nibble = [](std::uint8_t pair, std::size_t i) {
    return static_cast<std::uint8_t>((i & 1) == 0 ? pair >> 4 : pair & 15);
  };
  while (y < height && !(y == height - 1 && x == width)) {
    if (info.data.size() - at < 2) truncated();
    const std::uint8_t count = byte_at(info.data, at), value = byte_at(info.data, at + 1);
    at += 2;
    if (count > 0) {
      for (std::size_t i = 0; i < count; ++i) put(four ? nibble(value, i) : value);
    } else if (value == 0) {
      x = 0;
      ++y;
    } else if (value == 1) {
      break;
    } else if (value == 2) {
      if (info.data.size() - at < 2) truncated();
      x = std::min(width, x + byte_at(info.data, at));
      y += byte_at(info.data, at + 1);
      at += 2;
    } else {
      const std::size_t bytes = four ? (std::size_t{value} + 1) / 2 : value;
      if (info.data.size() - at < bytes) truncated();
      for (std::size_t i = 0; i < value; ++i)
        put(four ? nibble(byte_at(info.data, at + i / 2), i) : byte_at(info.data, at + i));
      at = std::min(info.data.size(), at + bytes + (bytes & 1));  // padded to 16 bits
    }
  }
  return indices;
}

// One channel of a masked pixel, stretched to 0..255 with Pillow's truncating division; `absent` without a mask.
std::uint8_t masked(std::uint32_t pixel, std::uint32_t mask, std::uint8_t absent) {
  if (mask == 0) return absent;
  const int shift = std::countr_zero(mask);
  return static_cast<std::uint8_t>(std::uint64_t{(pixel & mask) >> shift} * 255 / (mask >> shift));
}

void unpack_row(const BmpInfo& info, const std::array<Colour, 256>& colours, Bytes row, Raster& raster,
                std::uint8_t* to) {
  const auto channels = static_cast<std::size_t>(raster.channels);
  for (std::size_t x = 0; x < static_cast<std::size_t>(raster.width); ++x, to += channels) {
    switch (info.bits) {
      case 1: std::memcpy(to, colours[(byte_at(row, x / 8) >> (7 - x % 8)) & 1u].data(), 3); break;
      case 4: std::memcpy(to, colours[(byte_at(row, x / 2) >> (x % 2 == 0 ? 4 : 0)) & 15u].data(), 3); break;
      case 8: std::memcpy(to, colours[byte_at(row, x)].data(), 3); break;
      case 24:
        for (std::size_t c = 0; c < 3; ++c) to[c] = byte_at(row, x * 3 + 2 - c);
        break;
      default: {
        const std::uint32_t pixel = info.bits == 16 ? le16(row, x * 2) : le32(row, x * 4);
        for (std::size_t c = 0; c < channels; ++c) to[c] = masked(pixel, info.masks[c], c == 3 ? 255 : 0);
      }
    }
  }
}

}  // namespace

FileHeader read_bmp_header(Bytes file) {
  const BmpInfo info = read_info(file);
  return {info.width, info.height, 1};
}

Raster decode_bmp(Bytes file, Size size, bool keep_alpha) {
  const BmpInfo info = read_info(file);
  const auto colours = colour_table(info);
  const auto width = static_cast<std::size_t>(size.width), height = static_cast<std::size_t>(size.height);
  const bool rle = info.compression == Compression::kRle4 || info.compression == Compression::kRle8;
  const std::size_t used = (width * info.bits + 7) / 8,
                    stride = (used + 3) / 4 * 4;  // bytes a row, without and with padding
  // The last row's padding may be missing, as for Pillow.
  if (!rle && info.data.size() < stride * (height - 1) + used) truncated();
  const std::vector<std::uint8_t> indices = rle ? unpack_rle(info, size) : std::vector<std::uint8_t>();
  Raster raster = new_raster(size, keep_alpha && info.bits >= 16 && info.masks[3] != 0 ? 4 : 3);
  const std::size_t out_stride = width * static_cast<std::size_t>(raster.channels);
  for (std::size_t y = 0; y < height; ++y) {
    std::uint8_t* to = &raster.pixels[(info.top_down ? y : height - 1 - y) * out_stride];
    if (rle) {
      for (std::size_t x = 0; x < width; ++x) std::memcpy(to + 3 * x, colours[indices[y * width + x]].data(), 3);
    } else {
      unpack_row(info, colours, info.data.subspan(y * stride, used), raster, to);
    }
  }
  return raster;
}

}  // namespace gov::image_detail
