#pragma once
// Which addresses are out in the internet: everything else (this machine, private networks, link-local services of
// clouds, tunnels into any of them) must not be reached through a URL that a client sent.

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace gov::server {

struct Address {
  bool v6 = false;
  std::array<std::uint8_t, 16> bytes{};  // the first 4 of IPv4
};

// Numbers only, in the one strict spelling: four decimal parts without leading zeros, or RFC 4291 without a zone.
std::optional<Address> parse_address(std::string_view text);
bool is_ipv4(std::string_view text);
bool is_ipv6(std::string_view text);

// By IANA's special-purpose registries: globally reachable unicast. IPv6 that carries IPv4 (mapped, 6to4, Teredo,
// NAT64) never is.
bool is_global(const Address& address);

}  // namespace gov::server
