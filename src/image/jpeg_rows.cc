#include "image/jpeg_rows.h"

#include <csetjmp>
#include <cstdio>
// jpeglib.h needs <cstdio> before it.
#include <jerror.h>
#include <jpeglib.h>

namespace gov::image_detail {

namespace {

// Everything libjpeg's callbacks need; cinfo.client_data points here.
struct Decoder {
  jpeg_decompress_struct cinfo;
  jpeg_error_mgr errors;
  jpeg_source_mgr source;
  jpeg_progress_mgr progress;
  std::jmp_buf escape;
  JpegFault fault;
  const JpegJob* job;
  int warnings;
};

Decoder& decoder_of(j_common_ptr cinfo) { return *static_cast<Decoder*>(cinfo->client_data); }
Decoder& decoder_of(j_decompress_ptr cinfo) { return *static_cast<Decoder*>(cinfo->client_data); }

[[noreturn]] void leave(Decoder& d, JpegFault fault) {
  d.fault = fault;
  std::longjmp(d.escape, 1);
}

[[noreturn]] void on_error(j_common_ptr cinfo) {
  switch (cinfo->err->msg_code) {
    case JERR_OUT_OF_MEMORY: leave(decoder_of(cinfo), JpegFault::kMemory);
    case JERR_BAD_PRECISION:
    case JERR_SOF_UNSUPPORTED:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_ARITH_NOTIMPL:
    case JERR_CCIR601_NOTIMPL:
    case JERR_FRACT_SAMPLE_NOTIMPL: leave(decoder_of(cinfo), JpegFault::kUnsupported);
    default: leave(decoder_of(cinfo), JpegFault::kDamaged);
  }
}

// Level -1 is a warning: the data is damaged but libjpeg goes on. Higher levels are trace messages.
void on_message(j_common_ptr cinfo, int level) {
  if (level >= 0) return;
  Decoder& d = decoder_of(cinfo);
  if (++d.warnings > d.job->max_warnings) leave(d, JpegFault::kTooManyWarnings);
}

void print_nothing(j_common_ptr) {}

void on_progress(j_common_ptr cinfo) {
  Decoder& d = decoder_of(cinfo);
  if (d.cinfo.input_scan_number > d.job->max_scans) leave(d, JpegFault::kTooManyScans);
}

void do_nothing(j_decompress_ptr) {}

boolean out_of_data(j_decompress_ptr cinfo) { leave(decoder_of(cinfo), JpegFault::kTruncated); }

void skip_data(j_decompress_ptr cinfo, long count) {
  if (count <= 0) return;
  if (static_cast<std::size_t>(count) > cinfo->src->bytes_in_buffer) leave(decoder_of(cinfo), JpegFault::kTruncated);
  cinfo->src->next_input_byte += count;
  cinfo->src->bytes_in_buffer -= static_cast<std::size_t>(count);
}

void set_up(Decoder& d, const JpegJob& job) {
  d.job = &job;
  d.cinfo.err = jpeg_std_error(&d.errors);
  d.errors.error_exit = on_error;
  d.errors.emit_message = on_message;
  d.errors.output_message = print_nothing;
  d.cinfo.client_data = &d;
}

// Grey is replicated. CMYK is inverted first, always, as Adobe's programs write it and Pillow reads it.
void convert_row(const std::uint8_t* from, int components, int width, std::uint8_t* to) {
  for (int x = 0; x < width; ++x, to += 3) {
    if (components == 1) {
      to[0] = to[1] = to[2] = from[x];
      continue;
    }
    const std::uint8_t* cmyk = from + std::size_t{4} * static_cast<std::size_t>(x);
    const std::uint32_t light = cmyk[3];  // 255 - black
    for (int c = 0; c < 3; ++c) {
      const std::uint32_t product = (255u - cmyk[c]) * light + 128;
      to[c] = static_cast<std::uint8_t>(light - ((product + (product >> 8)) >> 8));
    }
  }
}

void decode_picture(Decoder& d, const JpegJob& job) {
  jpeg_decompress_struct& cinfo = d.cinfo;
  d.source.next_input_byte = job.file;
  d.source.bytes_in_buffer = job.file_bytes;
  d.source.init_source = do_nothing;
  d.source.fill_input_buffer = out_of_data;
  d.source.skip_input_data = skip_data;
  d.source.resync_to_restart = jpeg_resync_to_restart;
  d.source.term_source = do_nothing;
  cinfo.src = &d.source;
  d.progress.progress_monitor = on_progress;
  cinfo.progress = &d.progress;

  if (jpeg_read_header(&cinfo, TRUE) != JPEG_HEADER_OK) leave(d, JpegFault::kDamaged);
  const int components = cinfo.num_components;
  if (components == 1) cinfo.out_color_space = JCS_GRAYSCALE;
  else if (components == 3) cinfo.out_color_space = JCS_RGB;
  else if (components == 4) cinfo.out_color_space = JCS_CMYK;
  else leave(d, JpegFault::kUnsupported);
  jpeg_start_decompress(&cinfo);
  if (cinfo.output_width != static_cast<JDIMENSION>(job.width) ||
      cinfo.output_height != static_cast<JDIMENSION>(job.height) || cinfo.output_components != components)
    leave(d, JpegFault::kDamaged);
  const std::size_t stride = std::size_t{3} * static_cast<std::size_t>(job.width);
  while (cinfo.output_scanline < cinfo.output_height) {
    std::uint8_t* to = job.rgb + cinfo.output_scanline * stride;
    JSAMPROW row = components == 3 ? to : job.scratch;
    if (jpeg_read_scanlines(&cinfo, &row, 1) != 1) leave(d, JpegFault::kDamaged);
    if (components != 3) convert_row(job.scratch, components, job.width, to);
  }
  // Trailing bytes do not matter, so the end of the image is not looked for.
}

// The decoder lives in the caller, so that its fields are well defined after longjmp.
void run(Decoder& d, const JpegJob& job) {
  if (setjmp(d.escape) != 0) return;
  jpeg_create_decompress(&d.cinfo);
  decode_picture(d, job);
}

}  // namespace

JpegFault decode_jpeg_rows(const JpegJob& job) {
  Decoder d{};
  set_up(d, job);
  run(d, job);
  jpeg_destroy_decompress(&d.cinfo);
  return d.fault;
}

}  // namespace gov::image_detail
