// Sizes at the borders of the integer types, judged against 128-bit arithmetic, and files cut everywhere.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "tests/io/hostile_safetensors.h"
#include "tests/io/temp_folder.h"

namespace gov::test {
namespace {

using Rule = SafetensorsRule;
using Wide = unsigned __int128;

std::string verdict(std::string_view file) {
  try {
    parse_safetensors(as_bytes(file));
    return "accepted";
  } catch (const SafetensorsError& error) {
    EXPECT_LE(error.offset(), file.size());
    return safetensors_rule_name(error.rule());
  }
}

std::vector<std::uint64_t> border_values() {
  std::vector<std::uint64_t> values = {0, 1, 2, 3, 4, 5, 7, 8, 16, 17};
  for (const int bit : {8, 15, 16, 28, 29, 31, 32, 33, 47, 58, 59, 60, 61, 62, 63}) {
    const std::uint64_t power = std::uint64_t{1} << bit;
    values.insert(values.end(), {power - 1, power, power + 1});
  }
  values.insert(values.end(), {UINT64_MAX - 1, UINT64_MAX});
  std::sort(values.begin(), values.end());
  return values;
}

std::string one_tensor(const std::string& dtype, const std::string& shape, std::uint64_t begin, std::uint64_t end,
                       std::size_t data_bytes) {
  return file_of(
      fmt::format(R"({{"t":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}}}})", dtype, shape, begin, end),
      std::string(data_bytes, '\0'));
}

TEST(SafetensorsBounds, ShapeProducts) {
  constexpr std::size_t kData = 16;
  const std::vector<std::uint64_t> values = border_values();
  std::size_t pairs = 0, accepted = 0, overflowed = 0;
  for (const auto& [dtype, bytes] : {std::pair("U8", 1u), {"BF16", 2u}, {"F32", 4u}, {"F64", 8u}}) {
    for (const std::uint64_t a : values) {
      for (const std::uint64_t b : values) {
        const bool too_large = a > INT64_MAX || b > INT64_MAX;
        const Wide nonzero = static_cast<Wide>(std::max<std::uint64_t>(a, 1)) * std::max<std::uint64_t>(b, 1);
        const bool overflow = too_large || nonzero > static_cast<Wide>(INT64_MAX) / (8 * bytes);
        const std::uint64_t wrapped = a * b * bytes;  // what a reader without checks would compute
        std::string expected = "shape_overflow";
        if (!overflow) expected = wrapped > kData ? "data_truncated" : wrapped < kData ? "trailing_bytes" : "accepted";
        ASSERT_EQ(verdict(one_tensor(dtype, fmt::format("{},{}", a, b), 0, wrapped, kData)), expected)
            << dtype << " " << a << " x " << b;
        ++pairs;
        accepted += expected == "accepted";
        overflowed += overflow;
      }
    }
  }
  EXPECT_GE(pairs, 5000u);
  EXPECT_GE(accepted, 10u);
  EXPECT_GE(overflowed, 2000u);
}

TEST(SafetensorsBounds, OffsetPairs) {
  constexpr std::uint64_t kData = 16;
  const std::vector<std::uint64_t> values = border_values();
  std::size_t pairs = 0;
  for (const std::uint64_t begin : values) {
    for (const std::uint64_t end : values) {
      const std::uint64_t extent = end - begin;  // wraps when reversed
      std::string expected = "accepted";
      if (begin == end || (begin < end && extent <= INT64_MAX / 8)) {
        if (end > kData) expected = "data_truncated";
        else if (begin > 0) expected = "hole";
        else if (end < kData) expected = "trailing_bytes";
      } else {
        // An extent beyond 63 bits is refused where it stands, before the offsets behind it are read.
        expected = extent > INT64_MAX || begin < end ? "shape_overflow" : "bad_offsets";
      }
      ASSERT_EQ(verdict(one_tensor("U8", std::to_string(extent), begin, end, kData)), expected) << begin << " " << end;
      // The same range declared one element longer.
      if (begin <= end && extent < INT64_MAX / 8) {
        ASSERT_EQ(verdict(one_tensor("U8", std::to_string(extent + 1), begin, end, kData)), "size_mismatch");
      }
      ++pairs;
    }
  }
  EXPECT_GE(pairs, 2500u);
}

TEST(SafetensorsBounds, CutAtEveryHeaderByteAnd500DataOffsets) {
  const TempFolder folder;
  const std::filesystem::path path = folder / "model.safetensors";
  Random random(5);
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[64,32],"data_offsets":[0,4096]},)"
      R"("b":{"dtype":"F32","shape":[1024],"data_offsets":[4096,8192]}})";
  const std::string whole = file_of(header, std::string(8192, '\x11'));
  put_file(path, whole);
  ASSERT_EQ(SafetensorsFile::open(path).entries().size(), 2u);
  std::vector<std::size_t> sizes(8 + header.size());
  std::iota(sizes.begin(), sizes.end(), std::size_t{0});
  for (int i = 0; i < 500; ++i) sizes.push_back(8 + header.size() + static_cast<std::size_t>(random.below(8192)));
  std::sort(sizes.rbegin(), sizes.rend());
  for (const std::size_t size : sizes) {
    std::filesystem::resize_file(path, size);
    const char* rule = size < 8 ? "too_short" : size < 8 + header.size() ? "header_truncated" : "data_truncated";
    try {
      SafetensorsFile::open(path);
      FAIL() << "accepted at " << size << " bytes";
    } catch (const SafetensorsError& error) {
      ASSERT_STREQ(safetensors_rule_name(error.rule()), rule) << size;
      ASSERT_NE(std::string_view(error.what()).find(path.native()), std::string_view::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace gov::test
