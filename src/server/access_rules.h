#pragma once
// Who may ask: API keys, the Host header (against DNS rebinding) and the Origin header (other web pages).

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gov::server {

// Keys are kept as SHA-256 digests only; presented ones are compared digest by digest in constant time, with all of
// them every time.
class ApiKeys {
 public:
  void add(std::string_view key);  // Error kInvalidArgument: empty, too long, or not printable ASCII
  bool empty() const { return digests_.empty(); }
  // The tenant of a key (16 hexadecimal digits of a second digest, safe to log); empty if the key is none of ours.
  std::optional<std::string> tenant_of(std::string_view key) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  std::vector<Digest> digests_;
  std::vector<std::string> tenants_;
};

// One key a line; empty lines and lines with # in front are left out. Error names the file, never a key.
std::vector<std::string> read_key_file(const std::string& path);

// The key of "Authorization: Bearer KEY" or "x-api-key: KEY"; empty if there is none.
std::string_view presented_key(std::string_view authorization, std::string_view x_api_key);

// A Host header or the authority of a URL, in lower case. Empty when malformed.
struct HostPort {
  std::string host;  // an IPv6 address with its brackets
  int port = -1;     // -1: none given
};
std::optional<HostPort> parse_host(std::string_view text);
bool is_loopback_name(std::string_view host);  // localhost, *.localhost, 127.x.x.x, [::1]
bool is_ip_literal(std::string_view host);

class HostRule {
 public:
  // Bound to loopback: only loopback names and `allowed`. Elsewhere: everything if `allowed` is empty, else loopback
  // names, addresses and `allowed`, since names could be rebound, but addresses cannot.
  HostRule(bool loopback_bind, std::vector<std::string> allowed);
  bool accepts(std::string_view host_header) const;

 private:
  bool loopback_bind_;
  std::vector<std::string> allowed_;
};

class OriginRule {
 public:
  explicit OriginRule(std::vector<std::string> allowed);  // exact origins: "https://example.com"; "*": any
  enum class Verdict { kSame, kAllowed, kForeign };
  // kSame: no Origin header, or the page came from this server.
  Verdict judge(std::string_view origin, std::string_view host_header) const;

 private:
  std::vector<std::string> allowed_;
};

}  // namespace gov::server
