#include "server/images.h"

#include <algorithm>

#include "base/base64.h"
#include "base/timer.h"
#include "server/api_error.h"
#include "server/ascii.h"

namespace gov::server {
namespace {

bool starts_with_ignoring_case(std::string_view text, std::string_view start) {
  return text.size() >= start.size() &&
         std::equal(start.begin(), start.end(), text.begin(), [](char a, char b) { return a == lower(b); });
}

// The base64 text of "data:image/png;base64,...".
std::string_view data_of(const ImageSource& source) {
  constexpr std::size_t kLongestHead = 64;
  const std::string_view url = *source.url;
  const std::size_t comma = url.substr(0, kLongestHead).find(',');
  if (comma == std::string_view::npos) bad_field(source.field, "a data: URL is data:image/<kind>;base64,<data>");
  const std::string_view head = url.substr(0, comma);
  if (!starts_with_ignoring_case(head, "data:image/") || !head.ends_with(";base64")) {
    bad_field(source.field, "a data: URL is data:image/<kind>;base64,<data>");
  }
  const std::string_view data = url.substr(comma + 1);
  const std::size_t most = (ImageLimits().max_bytes + 2) / 3 * 4;
  if (data.size() > most) bad_field(source.field, "the picture has more than {} bytes", ImageLimits().max_bytes);
  return data;
}

std::string bytes_of(const ImageSource& source, const ImageRules& rules, double seconds,
                     const std::function<bool()>& cancelled) {
  if (is_remote(*source.url)) {
    if (seconds <= 0) bad_field(source.field, "fetching the pictures took more than {} seconds", kFetchSeconds);
    try {
      return rules.fetch(*source.url, seconds, cancelled);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kCancelled) throw;
      bad_field(source.field, "{}", printable(error.what(), 200));
    }
  }
  std::string bytes;
  if (!base64_decode(data_of(source), bytes)) bad_field(source.field, "not valid base64");
  return bytes;
}

std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

}  // namespace

bool is_remote(std::string_view url) { return starts_with_ignoring_case(url, "https:"); }

void check_image_url(const ImageSource& source, const ImageRules& rules) {
  const std::string_view url = *source.url;
  if (starts_with_ignoring_case(url, "data:")) {
    data_of(source);
    return;
  }
  if (!is_remote(url) && !starts_with_ignoring_case(url, "http:")) {
    bad_field(source.field, "pictures come as data: URLs{}", rules.remote ? " or https: URLs" : "");
  }
  if (!rules.remote) bad_field(source.field, "remote pictures are not enabled on this server; send a data: URL");
  if (!is_remote(url)) bad_field(source.field, "only https: is fetched");
}

std::vector<std::vector<float>> load_images(const std::vector<ImageSource>& sources, const Preprocessor& preprocessor,
                                            const ImageRules& rules, const std::function<bool()>& cancelled) {
  const Timer timer;
  std::vector<std::string> files;
  std::int64_t pixels = 0;
  for (const ImageSource& source : sources) {
    files.push_back(bytes_of(source, rules, kFetchSeconds - timer.seconds(), cancelled));
    try {
      const ImageHeader header = read_image_header(as_bytes(files.back()));
      pixels += std::int64_t{header.width} * header.height;
    } catch (const Error& error) {
      bad_field(source.field, "{}", printable(error.what(), 200));
    }
    if (pixels > kMostPixels) bad_field(source.field, "the pictures have more than {} pixels together", kMostPixels);
  }
  std::vector<std::vector<float>> out;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    try {
      const Image image = decode_image(as_bytes(files[i]), preprocessor.decode_options());
      std::vector<float> values(std::size_t{3} * static_cast<std::size_t>(preprocessor.out_height()) *
                                static_cast<std::size_t>(preprocessor.out_width()));
      preprocessor.apply(image, values.data());
      out.push_back(std::move(values));
    } catch (const Error& error) {
      bad_field(sources[i].field, "{}", printable(error.what(), 200));
    }
    std::string().swap(files[i]);
  }
  return out;
}

}  // namespace gov::server
