// Any bytes as a picture: a gov::Error or an Image of the right size, with and without a background; then resized.
#include <cstdlib>

#include "base/error.h"
#include "image/preprocess.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  gov::DecodeOptions options;
  options.limits.max_pixels = 1 << 16;  // small pictures reach the same code, thousands of times a second
  options.limits.max_jpeg_scans = 10;
  if (size % 2 == 1) options.alpha_background = {255, 0, 128};
  try {
    const gov::Image image = gov::decode_image(std::as_bytes(std::span(data, size)), options);
    if (image.pixels.size() != static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height) * 3)
      std::abort();
    const gov::Preprocessor preprocessor = gov::Preprocessor::for_size(6);
    float values[3 * 6 * 6];
    preprocessor.apply(image, values);
    for (const float v : values)
      if (!(v > -3.f && v < 3.f)) std::abort();
  } catch (const gov::Error&) {
  }
  try {
    (void)gov::Preprocessor::from_json({reinterpret_cast<const char*>(data), size}).fingerprint();
  } catch (const gov::Error&) {
  }
  return 0;
}
