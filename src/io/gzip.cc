#include "io/gzip.h"

#include <zlib.h>

#include <limits>
#include <memory>

#include "base/error.h"

namespace gov {

std::string gunzip(std::span<const std::byte> file, std::size_t max_bytes) {
  if (file.size() > std::numeric_limits<uInt>::max())
    fail(ErrorCode::kInvalidArgument, "gzip: {} bytes are too many", file.size());
  z_stream stream{};
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) fail(ErrorCode::kOutOfMemory, "gzip: no memory");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> end(&stream, inflateEnd);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(file.data()));
  stream.avail_in = static_cast<uInt>(file.size());
  std::string out;
  int result = Z_OK;
  while (result == Z_OK) {
    constexpr std::size_t kPiece = 1u << 18;
    const std::size_t had = out.size();
    out.resize(had + kPiece);
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + had);
    stream.avail_out = kPiece;
    result = inflate(&stream, Z_NO_FLUSH);
    out.resize(had + kPiece - stream.avail_out);
    if (out.size() > max_bytes) fail(ErrorCode::kInvalidArgument, "gzip: more than {} bytes come out of it", max_bytes);
  }
  if (result != Z_STREAM_END || stream.avail_in != 0) fail(ErrorCode::kCorrupt, "gzip: damaged or truncated data");
  return out;
}

}  // namespace gov
