// Which releases of the picture decoders this program runs with; kept apart from the code that uses their headers
// fully.

#include "cli/selftest.h"

#if GOV_IMAGES
#include <cstdio>  // jpeglib.h needs it first

#include <gif_lib.h>
#include <jpeglib.h>
#include <spng.h>
#include <webp/decode.h>

#define GOV_TEXT_(x) #x
#define GOV_TEXT(x) GOV_TEXT_(x)

namespace gov::cli {

std::string image_libraries() {
  const int webp = WebPGetDecoderVersion();
  return fmt::format("libspng {}, libjpeg-turbo {} (built against), libwebp {}.{}.{}, giflib {}.{}.{} (built against)",
                     spng_version_string(), GOV_TEXT(LIBJPEG_TURBO_VERSION), webp >> 16, (webp >> 8) & 255, webp & 255,
                     GIFLIB_MAJOR, GIFLIB_MINOR, GIFLIB_RELEASE);
}

}  // namespace gov::cli

#else

namespace gov::cli {

std::string image_libraries() { return "none: built without picture decoders (GOV_IMAGES=OFF)"; }

}  // namespace gov::cli

#endif
