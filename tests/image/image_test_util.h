#pragma once
// What the picture tests share. tests/image/data/generate.py holds the Python side of digest and prng.

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "image/image.h"

namespace gov::test {

using ByteVector = std::vector<std::byte>;

std::filesystem::path data_folder();      // tests/image/data
std::filesystem::path pictures_folder();  // models/nano/test_pictures

ByteVector read_file(const std::filesystem::path& path);
// The lines of a tab-separated file, split; throws when it is missing or empty.
std::vector<std::vector<std::string>> read_tsv(const std::filesystem::path& path);
std::vector<std::filesystem::path> corpus_files();  // every picture in data_folder(), sorted

std::string digest(std::span<const std::byte> bytes);  // FNV-1a, 64 bit, hex
template <class T>
std::string digest_of(const std::vector<T>& values) {
  return digest(std::as_bytes(std::span(values)));
}

std::uint64_t prng(std::uint64_t seed, std::uint64_t index);
Image prng_picture(std::uint64_t seed, int width, int height);
// RGB of `count` pixels at pseudo-random places, as generate.py's sampled() takes them.
std::vector<std::uint8_t> sampled(const Image& image, std::uint64_t seed, std::size_t count);
std::vector<std::uint8_t> from_hex(std::string_view hex);

int largest_difference(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b);  // 256 when sizes differ

// Runs it; empty when it returned, else the message of the gov::Error. Anything else that is thrown passes through.
template <class F>
std::string error_of(F&& f);

// A message that a client may show: one short line, no decoder text, no address.
bool clean_message(std::string_view message);

}  // namespace gov::test

#include "base/error.h"

template <class F>
std::string gov::test::error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}
