#include "server/global_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <string>

namespace gov::server {
namespace {

struct Range {
  std::array<std::uint8_t, 4> prefix;
  int bits;
};

constexpr Range kNotGlobal4[] = {
    {{0, 0, 0, 0}, 8},       {{10, 0, 0, 0}, 8},      {{100, 64, 0, 0}, 10},   {{127, 0, 0, 0}, 8},
    {{169, 254, 0, 0}, 16},  {{172, 16, 0, 0}, 12},   {{192, 0, 0, 0}, 24},    {{192, 0, 2, 0}, 24},
    {{192, 31, 196, 0}, 24}, {{192, 52, 193, 0}, 24}, {{192, 88, 99, 0}, 24},  {{192, 168, 0, 0}, 16},
    {{192, 175, 48, 0}, 24}, {{198, 18, 0, 0}, 15},   {{198, 51, 100, 0}, 24}, {{203, 0, 113, 0}, 24},
    {{224, 0, 0, 0}, 4},     {{240, 0, 0, 0}, 4},
};

struct Range6 {
  std::array<std::uint8_t, 4> prefix;  // of the 16 bytes, enough for every entry
  int bits;
};

// Inside of 2000::/3, outside of which nothing is global.
constexpr Range6 kNotGlobal6[] = {
    {{0x20, 0x01, 0x00, 0x00}, 23},  // IETF protocols: Teredo, ORCHID, benchmarking
    {{0x20, 0x01, 0x0d, 0xb8}, 32},  // documentation
    {{0x20, 0x02, 0x00, 0x00}, 16},  // 6to4
    {{0x26, 0x20, 0x00, 0x4f}, 32},  // AS112 (2620:4f:8000::/48 and its neighbours)
    {{0x3f, 0xff, 0x00, 0x00}, 20},  // documentation
};

bool in_range(const std::uint8_t* bytes, const std::array<std::uint8_t, 4>& prefix, int bits) {
  for (int i = 0; i < bits; ++i) {
    const auto at = static_cast<std::size_t>(i / 8);
    const int mask = 0x80 >> (i % 8);
    if ((bytes[at] & mask) != (prefix[at] & mask)) return false;
  }
  return true;
}

}  // namespace

std::optional<Address> parse_address(std::string_view text) {
  Address address;
  if (text.empty() || text.size() > 45) return std::nullopt;
  const std::string copy(text);
  address.v6 = text.find(':') != std::string_view::npos;
  // inet_pton takes exactly the strict spellings: no hexadecimal, octal or short forms, no zones.
  if (inet_pton(address.v6 ? AF_INET6 : AF_INET, copy.c_str(), address.bytes.data()) != 1) return std::nullopt;
  return address;
}

bool is_ipv4(std::string_view text) {
  const auto address = parse_address(text);
  return address && !address->v6;
}

bool is_ipv6(std::string_view text) {
  const auto address = parse_address(text);
  return address && address->v6;
}

bool is_global(const Address& address) {
  const std::uint8_t* const bytes = address.bytes.data();
  if (!address.v6) {
    return std::none_of(std::begin(kNotGlobal4), std::end(kNotGlobal4),
                        [&](const Range& range) { return in_range(bytes, range.prefix, range.bits); });
  }
  if (!in_range(bytes, {0x20, 0, 0, 0}, 3)) return false;
  return std::none_of(std::begin(kNotGlobal6), std::end(kNotGlobal6),
                      [&](const Range6& range) { return in_range(bytes, range.prefix, range.bits); });
}

}  // namespace gov::server
