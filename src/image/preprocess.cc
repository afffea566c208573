#include "image/preprocess.h"

#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace gov {

namespace {

using simdjson::dom::element;

constexpr int kMaxOutputSide = 4096;

[[noreturn]] void wrong_type(std::string_view key, const char* expected) {
  fail(ErrorCode::kCorrupt, "preprocessor_config.json: '{}' must be {}", key, expected);
}

// A member of an object; null counts as absent, as in Hugging Face files.
std::optional<element> find(element object, std::string_view key) {
  element value;
  if (object.at_key(key).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
  return value;
}

void read_flag(element object, std::string_view key, bool& to) {
  if (const auto value = find(object, key))
    if (value->get(to) != simdjson::SUCCESS) wrong_type(key, "true or false");
}

double as_number(element value, std::string_view key) {
  double number = 0;
  if (!value.is_number() || value.get(number) != simdjson::SUCCESS) wrong_type(key, "a number");
  return number;
}

int as_int(element value, std::string_view key, int low, int high) {
  const double number = as_number(value, key);
  if (number != std::floor(number)) wrong_type(key, "a whole number");
  if (number < low || number > high)
    fail(ErrorCode::kInvalidArgument, "preprocessor_config.json: '{}' is {}, expected {}..{}", key, number, low, high);
  return static_cast<int>(number);
}

int as_side(element value, std::string_view key) { return as_int(value, key, 1, kMaxOutputSide); }

// {"height": h, "width": w}; false when the object has neither.
bool read_height_width(element object, const std::string& key, int& height, int& width) {
  const auto h = find(object, "height"), w = find(object, "width");
  if (!h && !w) return false;
  if (!h || !w) wrong_type(key, "an object with both height and width");
  height = as_side(*h, key + ".height");
  width = as_side(*w, key + ".width");
  return true;
}

void read_size(element config, Preprocessor& p) {
  const auto size = find(config, "size");
  if (!size) return;
  if (size->is_number()) {
    const int side = as_side(*size, "size");
    if (p.do_center_crop) p.shortest_edge = side;
    else p.size_h = p.size_w = side;
    return;
  }
  if (!size->is_object()) wrong_type("size", "a number or an object");
  if (read_height_width(*size, "size", p.size_h, p.size_w)) return;
  const auto edge = find(*size, "shortest_edge");
  if (!edge)
    fail(ErrorCode::kUnsupported, "preprocessor_config.json: 'size' has neither height and width nor shortest_edge");
  p.shortest_edge = as_side(*edge, "size.shortest_edge");
}

void read_crop(element config, Preprocessor& p) {
  const auto crop = find(config, "crop_size");
  if (!crop) return;
  if (crop->is_number()) p.crop_h = p.crop_w = as_side(*crop, "crop_size");
  else if (!crop->is_object()) wrong_type("crop_size", "a number or an object");
  else if (!read_height_width(*crop, "crop_size", p.crop_h, p.crop_w))
    fail(ErrorCode::kUnsupported, "preprocessor_config.json: 'crop_size' has no height and width");
}

// The value as the float32 that numpy makes of it.
float as_float(element value, std::string_view key, double low, double high) {
  const double number = as_number(value, key);
  if (!(number >= low && number <= high))
    fail(ErrorCode::kInvalidArgument, "preprocessor_config.json: '{}' is {}, expected {}..{}", key, number, low, high);
  return static_cast<float>(number);
}

// Three numbers, or one for all channels.
void read_channels(element config, std::string_view key, double low, double high, std::array<float, 3>& to) {
  const auto value = find(config, key);
  if (!value) return;
  if (value->is_number()) {
    to.fill(as_float(*value, key, low, high));
    return;
  }
  simdjson::dom::array list;
  if (value->get(list) != simdjson::SUCCESS || list.size() != 3) wrong_type(key, "a number or an array of three");
  std::size_t i = 0;
  for (const element item : list) to[i++] = as_float(item, key, low, high);
}

void read_background(element config, Preprocessor& p) {
  const auto value = find(config, "alpha_background");
  if (!value) return;
  simdjson::dom::array list;
  if (value->get(list) != simdjson::SUCCESS || list.size() != 3) wrong_type("alpha_background", "an array of three");
  std::array<std::uint8_t, 3> colour{};
  std::size_t i = 0;
  for (const element item : list) colour[i++] = static_cast<std::uint8_t>(as_int(item, "alpha_background", 0, 255));
  p.alpha_background = colour;
}

Image resized(const Preprocessor& p, const Image& image) {
  if (!p.do_resize) return image;
  int width = p.size_w, height = p.size_h;
  if (p.shortest_edge > 0) {
    const int shorter = std::min(image.width, image.height), longer = std::max(image.width, image.height);
    // int(edge * long / short) as Python divides: correctly rounded, then truncated.
    const double scaled = static_cast<double>(std::int64_t{p.shortest_edge} * longer) / shorter;
    if (scaled > kMaxResizeSide)
      fail(ErrorCode::kInvalidArgument, "image: {} x {} pixels is too narrow to be resized to a shortest edge of {}",
           image.width, image.height, p.shortest_edge);
    width = height = p.shortest_edge;
    (image.width > image.height ? width : height) = static_cast<int>(scaled);
  }
  return resize(image, width, height, p.resample);
}

// The value of each byte in one channel.
std::array<float, 256> value_table(const Preprocessor& p, std::size_t channel) {
  std::array<float, 256> table{};
  for (std::size_t v = 0; v < table.size(); ++v) {
    float x = static_cast<float>(v);
    if (p.do_rescale) x = static_cast<float>(static_cast<double>(v) * p.rescale_factor);
    if (p.do_normalize) x = (x - p.mean[channel]) / p.std[channel];
    table[v] = x;
  }
  return table;
}

// Where output 0 lies in the input of `in` elements when `out` of them are kept around the centre; negative: padding.
// transformers' center_crop: floor((in - out) / 2) when cutting, a leading pad of ceil((out - in) / 2) when padding.
// When one axis pads, the other keeps its rule, since its own pad is 0.
int crop_start(int in, int out) { return in >= out ? (in - out) / 2 : -((out - in + 1) / 2); }

}  // namespace

Preprocessor Preprocessor::for_size(int size) {
  if (size < 1 || size > kMaxOutputSide)
    fail(ErrorCode::kInvalidArgument, "image preprocessing: size {} is outside 1..{}", size, kMaxOutputSide);
  Preprocessor p;
  p.size_h = p.size_w = p.crop_h = p.crop_w = size;
  return p;
}

Preprocessor Preprocessor::from_json(std::string_view json) {
  simdjson::dom::parser parser(std::size_t{1} << 20);  // a config file has about 1 KB
  element config;
  const simdjson::padded_string text(json);
  if (parser.parse(text).get(config) != simdjson::SUCCESS || !config.is_object())
    fail(ErrorCode::kCorrupt, "preprocessor_config.json: not a JSON object");
  Preprocessor p;
  read_flag(config, "do_resize", p.do_resize);
  read_flag(config, "do_center_crop", p.do_center_crop);
  read_flag(config, "do_rescale", p.do_rescale);
  read_flag(config, "do_normalize", p.do_normalize);
  bool convert_rgb = true;  // the decoder always gives RGB; the key is only checked
  read_flag(config, "do_convert_rgb", convert_rgb);
  read_size(config, p);
  read_crop(config, p);
  if (const auto code = find(config, "resample")) p.resample = static_cast<Resample>(as_int(*code, "resample", 0, 5));
  if (const auto factor = find(config, "rescale_factor")) {
    p.rescale_factor = as_number(*factor, "rescale_factor");
    if (!(p.rescale_factor >= 1e-9 && p.rescale_factor <= 1e3))
      fail(ErrorCode::kInvalidArgument, "preprocessor_config.json: 'rescale_factor' is {}, expected 1e-9..1000",
           p.rescale_factor);
  }
  read_channels(config, "image_mean", -1e6, 1e6, p.mean);
  read_channels(config, "image_std", 1e-6, 1e6, p.std);
  read_background(config, p);
  if (p.do_resize && p.shortest_edge > 0 && !p.do_center_crop)
    fail(ErrorCode::kUnsupported,
         "preprocessor_config.json: 'shortest_edge' without do_center_crop gives no fixed shape");
  return p;
}

void Preprocessor::apply(const Image& image, float* out) const {
  const Image picture = resized(*this, image);
  const int height = out_height(), width = out_width();
  if (!do_center_crop && (picture.height != height || picture.width != width))
    fail(ErrorCode::kInvalidArgument, "image: {} x {} pixels, expected {} x {} since do_resize is false", picture.width,
         picture.height, width, height);
  const int top = crop_start(picture.height, height), left = crop_start(picture.width, width);
  for (std::size_t c = 0; c < 3; ++c) {
    const std::array<float, 256> values = value_table(*this, c);
    for (int y = 0; y < height; ++y) {
      const int sy = y + top;
      const bool row_inside = sy >= 0 && sy < picture.height;
      for (int x = 0; x < width; ++x) {
        const int sx = x + left;
        std::uint8_t byte = 0;
        if (row_inside && sx >= 0 && sx < picture.width)
          byte = picture.pixels[(static_cast<std::size_t>(sy) * static_cast<std::size_t>(picture.width) +
                                 static_cast<std::size_t>(sx)) *
                                    3 +
                                c];
        *out++ = values[byte];
      }
    }
  }
}

std::string Preprocessor::fingerprint() const {
  std::string text = "image1";
  if (do_resize && shortest_edge > 0) text += fmt::format(";edge={}/{}", shortest_edge, static_cast<int>(resample));
  else if (do_resize) text += fmt::format(";resize={}x{}/{}", size_h, size_w, static_cast<int>(resample));
  else text += fmt::format(";size={}x{}", size_h, size_w);
  if (do_center_crop) text += fmt::format(";crop={}x{}", crop_h, crop_w);
  if (do_rescale) text += fmt::format(";rescale={:a}", rescale_factor);
  if (do_normalize)
    text += fmt::format(";mean={:a},{:a},{:a};std={:a},{:a},{:a}", mean[0], mean[1], mean[2], std[0], std[1], std[2]);
  if (alpha_background)
    text += fmt::format(";alpha={},{},{}", (*alpha_background)[0], (*alpha_background)[1], (*alpha_background)[2]);
  return text;
}

}  // namespace gov
