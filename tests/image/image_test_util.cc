#include "tests/image/image_test_util.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>

namespace gov::test {

std::filesystem::path data_folder() { return std::filesystem::path(GOV_SOURCE_DIR) / "tests/image/data"; }
std::filesystem::path pictures_folder() { return std::filesystem::path(GOV_SOURCE_DIR) / "models/nano/test_pictures"; }

ByteVector read_file(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error("test file missing: " + path.string());
  ByteVector bytes(std::filesystem::file_size(path));
  stream.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

std::vector<std::vector<std::string>> read_tsv(const std::filesystem::path& path) {
  std::ifstream stream(path);
  std::vector<std::vector<std::string>> lines;
  for (std::string line; std::getline(stream, line);) {
    std::vector<std::string> fields;
    std::istringstream split(line);
    for (std::string field; std::getline(split, field, '\t');) fields.push_back(field);
    lines.push_back(std::move(fields));
  }
  if (lines.empty()) throw std::runtime_error("test file missing or empty: " + path.string());
  return lines;
}

std::vector<std::filesystem::path> corpus_files() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(data_folder())) {
    const std::string kind = entry.path().extension().string();
    if (kind == ".png" || kind == ".jpg" || kind == ".webp" || kind == ".gif" || kind == ".bmp")
      files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string digest(std::span<const std::byte> bytes) {
  std::uint64_t h = 0xCBF29CE484222325u;
  for (const std::byte b : bytes) h = (h ^ std::to_integer<std::uint64_t>(b)) * 0x100000001B3u;
  return fmt::format("{:016x}", h);
}

std::uint64_t prng(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t x = (seed << 32) + index + 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

Image prng_picture(std::uint64_t seed, int width, int height) {
  Image image{width, height, {}};
  image.pixels.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
  for (std::size_t i = 0; i < image.pixels.size(); ++i)
    image.pixels[i] = static_cast<std::uint8_t>(prng(seed, i) >> 56);
  return image;
}

std::vector<std::uint8_t> sampled(const Image& image, std::uint64_t seed, std::size_t count) {
  std::vector<std::uint8_t> out;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t pixel = prng(seed, i) % (image.pixels.size() / 3);
    for (std::size_t c = 0; c < 3; ++c) out.push_back(image.pixels[pixel * 3 + c]);
  }
  return out;
}

std::vector<std::uint8_t> from_hex(std::string_view hex) {
  std::vector<std::uint8_t> out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(static_cast<std::uint8_t>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  return out;
}

int largest_difference(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b) {
  if (a.size() != b.size()) return 256;
  int largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(int{a[i]} - int{b[i]}));
  return largest;
}

bool clean_message(std::string_view message) {
  return !message.empty() && message.size() <= 200 && message.find("0x") == std::string_view::npos &&
         std::all_of(message.begin(), message.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

}  // namespace gov::test
