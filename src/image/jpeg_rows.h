#pragma once
// The one place where libjpeg runs. Its errors leave by longjmp, so nothing in jpeg_rows.cc owns memory.

#include <cstddef>
#include <cstdint>

namespace gov::image_detail {

enum class JpegFault { kNone, kTruncated, kDamaged, kUnsupported, kTooManyScans, kTooManyWarnings, kMemory };

struct JpegJob {
  const std::uint8_t* file;
  std::size_t file_bytes;
  int width, height;  // as the header said; the decoder must agree
  int max_scans;
  int max_warnings;
  std::uint8_t* rgb;      // [height, width, 3]
  std::uint8_t* scratch;  // one row of width * 4 bytes
};

// Fills job.rgb, or says why not.
JpegFault decode_jpeg_rows(const JpegJob& job);

}  // namespace gov::image_detail
