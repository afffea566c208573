#pragma once
// Pictures of a request: where they come from, their limits, and their way to the model's pixel values.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "image/preprocess.h"

namespace gov::server {

inline constexpr std::size_t kMostImages = 16;            // of one request
inline constexpr double kFetchSeconds = 20;               // for all that have to be fetched
inline constexpr std::int64_t kMostPixels = 134'000'000;  // of all of them together

// A picture as a request names it.
struct ImageSource {
  std::string field;                       // "messages[0].content[1].image_url": for messages
  std::shared_ptr<const std::string> url;  // data: or https:, shared with what is stored
};

struct ImageRules {
  bool remote = false;
  // The bytes behind an allowed URL, or a gov::Error: kCancelled once `cancelled` says so.
  std::function<std::string(const std::string& url, double seconds, const std::function<bool()>& cancelled)> fetch;
};

// Checks a URL's form without decoding or fetching anything: "data:image/...;base64,...", or https where remote
// pictures are allowed. ApiError 400 naming the field.
void check_image_url(const ImageSource& source, const ImageRules& rules);
bool is_remote(std::string_view url);

// Pixel values [3, height, width] of each. All headers are checked before the first picture is decoded. ApiError 400
// with the field for everything wrong with a picture, kCancelled once `cancelled` (may be empty) says that nobody wants
// them. Takes its time: for a worker.
std::vector<std::vector<float>> load_images(const std::vector<ImageSource>& sources, const Preprocessor& preprocessor,
                                            const ImageRules& rules, const std::function<bool()>& cancelled = {});

}  // namespace gov::server
