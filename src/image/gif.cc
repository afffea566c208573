// The first frame of a GIF, on its canvas as Pillow puts it there. The block structure is walked here; giflib undoes
// the LZW.
#include <gif_lib.h>

#include <algorithm>
#include <memory>
#include <string>

#include "base/error.h"
#include "image/decoders.h"

namespace gov::image_detail {

namespace {

[[noreturn]] void truncated() { fail(ErrorCode::kCorrupt, "GIF image: the file is truncated"); }

struct Frame {
  int canvas_width = 0, canvas_height = 0;  // grown to hold the frame, as Pillow does
  int left = 0, top = 0, width = 0, height = 0;
  bool interlaced = false;
  int transparent = -1;           // palette index, -1: none
  std::size_t screen_bytes = 0;   // of the file: header, screen descriptor and global colour table
  std::size_t descriptor_at = 0;  // offset of the comma before the image descriptor
  Bytes palette;                  // RGB triples; the frame's own or the global one, empty when there is neither
};

class Reader {
 public:
  explicit Reader(Bytes file) : file_(file) {}
  Bytes take(std::size_t count) {
    if (count > file_.size() - at_) truncated();
    at_ += count;
    return file_.subspan(at_ - count, count);
  }
  std::size_t offset() const { return at_; }
  std::uint8_t byte() { return byte_at(take(1), 0); }
  Bytes block() { return take(byte()); }  // a data sub-block; empty is the terminator

 private:
  Bytes file_;
  std::size_t at_ = 0;
};

Bytes read_palette(Reader& reader, std::uint8_t flags) {
  return (flags & 0x80) != 0 ? reader.take(std::size_t{3} << ((flags & 7) + 1)) : Bytes();
}

// Reads up to the first frame's image descriptor and colour table.
Frame read_first_frame(Bytes file) {
  Frame frame;
  Reader reader(file);
  const Bytes screen = reader.take(13).subspan(6);
  frame.canvas_width = static_cast<int>(le16(screen, 0));
  frame.canvas_height = static_cast<int>(le16(screen, 2));
  frame.palette = read_palette(reader, byte_at(screen, 4));
  frame.screen_bytes = reader.offset();
  while (true) {
    const std::uint8_t kind = reader.byte();
    if (kind == ',') break;
    if (kind == ';') fail(ErrorCode::kCorrupt, "GIF image: it holds no picture");
    if (kind != '!') continue;  // stray bytes between blocks are skipped, as Pillow does
    const bool graphic_control = reader.byte() == 0xF9;
    Bytes block = reader.block();
    if (graphic_control && block.size() >= 4 && (byte_at(block, 0) & 1) != 0) frame.transparent = byte_at(block, 3);
    while (!block.empty()) block = reader.block();
  }
  frame.descriptor_at = reader.offset() - 1;
  const Bytes descriptor = reader.take(9);
  frame.left = static_cast<int>(le16(descriptor, 0));
  frame.top = static_cast<int>(le16(descriptor, 2));
  frame.width = static_cast<int>(le16(descriptor, 4));
  frame.height = static_cast<int>(le16(descriptor, 6));
  frame.interlaced = (byte_at(descriptor, 8) & 0x40) != 0;
  const Bytes own = read_palette(reader, byte_at(descriptor, 8));
  if (!own.empty()) frame.palette = own;
  if (frame.width == 0 || frame.height == 0) fail(ErrorCode::kCorrupt, "GIF image: the first frame is empty");
  frame.canvas_width = std::max(frame.canvas_width, frame.left + frame.width);
  frame.canvas_height = std::max(frame.canvas_height, frame.top + frame.height);
  return frame;
}

// What giflib reads: the screen with its colour table, then the first frame, without the extensions between them.
struct Stream {
  Bytes screen;
  Bytes frame;
};

int read_stream(GifFileType* gif, GifByteType* to, int count) {
  auto& stream = *static_cast<Stream*>(gif->UserData);
  int done = 0;
  for (Bytes* part : {&stream.screen, &stream.frame}) {
    const std::size_t n = std::min(static_cast<std::size_t>(count - done), part->size());
    if (n > 0) std::memcpy(to + done, part->data(), n);
    *part = part->subspan(n);
    done += static_cast<int>(n);
  }
  return done;
}

struct GifCloser {
  void operator()(GifFileType* gif) const { DGifCloseFile(gif, nullptr); }
};

void check(int status, const GifFileType* gif) {
  if (status != GIF_ERROR) return;
  if (gif->Error == D_GIF_ERR_NOT_ENOUGH_MEM) throw std::bad_alloc();
  if (gif->Error == D_GIF_ERR_READ_FAILED || gif->Error == D_GIF_ERR_EOF_TOO_SOON) truncated();
  fail(ErrorCode::kCorrupt, "GIF image: damaged data (reason {})", gif->Error);
}

// RGBA of every palette index; an index past the palette is black, without any palette the index is the grey.
std::array<std::array<std::uint8_t, 4>, 256> colour_table(const Frame& frame) {
  std::array<std::array<std::uint8_t, 4>, 256> table{};
  for (std::size_t i = 0; i < 256; ++i) {
    std::array<std::uint8_t, 4>& colour = table[i];
    colour[3] = static_cast<int>(i) == frame.transparent ? 0 : 255;
    for (std::size_t c = 0; c < 3; ++c) {
      if (frame.palette.empty()) colour[c] = static_cast<std::uint8_t>(i);
      else if (i * 3 + 2 < frame.palette.size()) colour[c] = byte_at(frame.palette, i * 3 + c);
    }
  }
  return table;
}

}  // namespace

FileHeader read_gif_header(Bytes file) {
  const Frame frame = read_first_frame(file);
  return {frame.canvas_width, frame.canvas_height, 1};
}

Raster decode_gif(Bytes file, Size size, bool keep_alpha) {
  const Frame frame = read_first_frame(file);
  Stream stream{file.first(frame.screen_bytes), file.subspan(frame.descriptor_at)};
  int error = 0;
  const std::unique_ptr<GifFileType, GifCloser> gif(DGifOpen(&stream, read_stream, &error));
  if (!gif) fail(ErrorCode::kCorrupt, "GIF image: damaged header (reason {})", error);
  GifRecordType record = UNDEFINED_RECORD_TYPE;
  check(DGifGetRecordType(gif.get(), &record), gif.get());
  check(DGifGetImageDesc(gif.get()), gif.get());
  if (record != IMAGE_DESC_RECORD_TYPE || gif->Image.Width != frame.width || gif->Image.Height != frame.height)
    fail(ErrorCode::kCorrupt, "GIF image: damaged block structure");

  const auto colours = colour_table(frame);
  Raster raster = new_raster(size, keep_alpha && frame.transparent >= 0 ? 4 : 3);
  const auto channels = static_cast<std::size_t>(raster.channels);
  const std::size_t stride = static_cast<std::size_t>(size.width) * channels;
  // Around a frame smaller than the canvas lies the transparent colour if there is one, else colour 0.
  const auto& around = colours[static_cast<std::size_t>(std::max(frame.transparent, 0))];
  if (frame.width != size.width || frame.height != size.height)
    for (std::size_t i = 0; i < raster.pixels.size(); i += channels)
      std::memcpy(&raster.pixels[i], around.data(), channels);

  std::vector<GifPixelType> line(static_cast<std::size_t>(frame.width));
  constexpr int kPassStart[4] = {0, 4, 2, 1}, kPassStep[4] = {8, 8, 4, 2};
  const int passes = frame.interlaced ? 4 : 1;
  for (int pass = 0; pass < passes; ++pass) {
    for (int y = frame.interlaced ? kPassStart[pass] : 0; y < frame.height;
         y += frame.interlaced ? kPassStep[pass] : 1) {
      check(DGifGetLine(gif.get(), line.data(), frame.width), gif.get());
      std::uint8_t* to = &raster.pixels[static_cast<std::size_t>(frame.top + y) * stride +
                                        static_cast<std::size_t>(frame.left) * channels];
      for (const GifPixelType index : line) {
        std::memcpy(to, colours[index].data(), channels);
        to += channels;
      }
    }
  }
  return raster;
}

}  // namespace gov::image_detail
