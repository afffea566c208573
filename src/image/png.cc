// PNG through libspng. We walk the chunks ourselves and hand the library only the five that make pixels, so text,
// colour profiles and animation frames are never inflated or kept.
#include <spng.h>

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "image/decoders.h"

namespace gov::image_detail {

namespace {

using namespace std::string_view_literals;

constexpr std::size_t kSignatureBytes = 8;
constexpr std::size_t kChunkOverhead = 12;  // length, type, CRC

[[noreturn]] void truncated() { fail(ErrorCode::kCorrupt, "PNG image: the file is truncated"); }

struct Chunk {
  Bytes whole;  // length, type, data and CRC
  Bytes data() const { return whole.subspan(8, whole.size() - kChunkOverhead); }
  bool is(std::string_view type) const { return equals(whole, 4, type); }
  bool critical() const { return (byte_at(whole, 4) & 0x20) == 0; }
};

// The chunk at `offset`, which is moved past it.
Chunk next_chunk(Bytes file, std::size_t& offset) {
  const std::size_t left = file.size() - offset;
  if (left < kChunkOverhead) truncated();
  const std::size_t length = be32(file, offset);
  if (length > 0x7fffffffu) fail(ErrorCode::kCorrupt, "PNG image: a chunk length is out of range");
  if (length > left - kChunkOverhead) truncated();
  const Chunk chunk{file.subspan(offset, length + kChunkOverhead)};
  offset += chunk.whole.size();
  return chunk;
}

bool makes_pixels(const Chunk& c) {
  return c.is("IHDR") || c.is("PLTE") || c.is("tRNS") || c.is("IDAT") || c.is("IEND");
}

// XMP lies uncompressed in an iTXt chunk: keyword, flags (compressed, method), language, translated keyword, text.
int itxt_orientation(Bytes data) {
  constexpr auto kKeyword = "XML:com.adobe.xmp\0\0\0"sv;
  return equals(data, 0, kKeyword) ? xmp_orientation(data.subspan(kKeyword.size())) : 0;
}

// A stream over the pixel-making chunks only.
struct ChunkStream {
  Bytes file;
  std::size_t next = kSignatureBytes;
  Bytes current;  // what is left of the chunk being read
};

int read_stream(spng_ctx*, void* user, void* dest, std::size_t length) {
  auto& stream = *static_cast<ChunkStream*>(user);
  auto* to = static_cast<std::byte*>(dest);
  while (length > 0) {
    while (stream.current.empty()) {
      if (stream.next == stream.file.size()) return SPNG_IO_EOF;
      const Chunk chunk = next_chunk(stream.file, stream.next);  // cannot throw: the header reader walked up to IEND
      if (chunk.is("IEND")) stream.next = stream.file.size();
      if (makes_pixels(chunk)) stream.current = chunk.whole;
    }
    const std::size_t count = std::min(length, stream.current.size());
    std::memcpy(to, stream.current.data(), count);
    stream.current = stream.current.subspan(count);
    to += count;
    length -= count;
  }
  return 0;
}

void check(int status) {
  switch (status) {
    case SPNG_OK: return;
    case SPNG_EMEM: throw std::bad_alloc();
    case SPNG_ECHUNK_CRC: fail(ErrorCode::kCorrupt, "PNG image: a chunk's CRC does not match");
    case SPNG_IO_EOF:
    case SPNG_EOF:
    case SPNG_EIDAT_TOO_SHORT: truncated();
    default: fail(ErrorCode::kCorrupt, "PNG image: damaged data (reason {})", status);
  }
}

}  // namespace

FileHeader read_png_header(Bytes file) {
  FileHeader header;
  std::size_t offset = kSignatureBytes;
  int exif = 0, xmp = 0;
  bool first = true;
  while (true) {
    const Chunk chunk = next_chunk(file, offset);
    if (first) {
      if (!chunk.is("IHDR") || chunk.data().size() != 13) fail(ErrorCode::kCorrupt, "PNG image: no IHDR chunk");
      header.width = be32(chunk.data(), 0);
      header.height = be32(chunk.data(), 4);
      first = false;
    }
    if (chunk.is("IEND")) break;
    if (chunk.is("eXIf")) exif = exif_orientation(chunk.data());
    else if (chunk.is("iTXt") && xmp == 0) xmp = itxt_orientation(chunk.data());
    else if (chunk.critical() && !makes_pixels(chunk))
      fail(ErrorCode::kUnsupported, "PNG image: an unknown critical chunk");
  }
  header.orientation = choose_orientation(exif, xmp);
  return header;
}

Raster decode_png(Bytes file, Size size, bool keep_alpha) {
  const std::unique_ptr<spng_ctx, decltype(&spng_ctx_free)> context(spng_ctx_new(0), spng_ctx_free);
  if (!context) throw std::bad_alloc();
  // The signature is not a chunk: it goes first.
  ChunkStream stream{file, kSignatureBytes, file.first(kSignatureBytes)};
  check(spng_set_image_limits(context.get(), static_cast<std::uint32_t>(size.width),
                              static_cast<std::uint32_t>(size.height)));
  check(spng_set_png_stream(context.get(), read_stream, &stream));
  spng_ihdr ihdr{};
  check(spng_get_ihdr(context.get(), &ihdr));
  spng_trns trns{};
  const bool has_trns = spng_get_trns(context.get(), &trns) == SPNG_OK;
  const bool alpha = keep_alpha && (has_trns || (ihdr.color_type & 4) != 0);
  Raster raster = new_raster(size, alpha ? 4 : 3);
  check(spng_decode_image(context.get(), raster.pixels.data(), raster.pixels.size(),
                          alpha ? SPNG_FMT_RGBA8 : SPNG_FMT_RGB8, alpha ? SPNG_DECODE_TRNS : 0));
  check(spng_decode_chunks(context.get()));  // to IEND: the last chunks' checksums count too
  return raster;
}

}  // namespace gov::image_detail
