#include "server/access_rules.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "io/mapped_file.h"
#include "server/ascii.h"
#include "server/global_address.h"

namespace gov::server {
namespace {

constexpr std::size_t kMaxKey = 1024;

std::array<unsigned char, 32> sha256(std::string_view text) {
  std::array<unsigned char, 32> digest{};
  if (EVP_Digest(text.data(), text.size(), digest.data(), nullptr, EVP_sha256(), nullptr) != 1) {
    fail(ErrorCode::kUnsupported, "OpenSSL has no SHA-256");
  }
  return digest;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

}  // namespace

void ApiKeys::add(std::string_view key) {
  if (key.empty() || key.size() > kMaxKey ||
      !std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7F; })) {
    fail(ErrorCode::kInvalidArgument, "an API key has 1 to {} printable ASCII characters and no spaces", kMaxKey);
  }
  const Digest digest = sha256(key);
  digests_.push_back(digest);
  // Not the digest itself, whose beginning would help to guess the key from a log.
  const Digest second = sha256(std::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
  std::string tenant;
  for (int i = 0; i < 8; ++i) tenant += fmt::format("{:02x}", second[static_cast<std::size_t>(i)]);
  tenants_.push_back(std::move(tenant));
}

std::optional<std::string> ApiKeys::tenant_of(std::string_view key) const {
  const Digest presented = sha256(key.substr(0, kMaxKey + 1));
  std::size_t found = digests_.size();
  for (std::size_t i = 0; i < digests_.size(); ++i) {
    if (CRYPTO_memcmp(presented.data(), digests_[i].data(), presented.size()) == 0) found = i;
  }
  if (found == digests_.size()) return std::nullopt;
  return tenants_[found];
}

std::vector<std::string> read_key_file(const std::string& path) {
  const std::string text = read_text_file(path, 1u << 20);
  std::vector<std::string> keys;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = trim(std::string_view(text).substr(at, end - at));
    if (!line.empty() && line.front() != '#') keys.emplace_back(line);
    at = end + 1;
  }
  if (keys.empty()) fail(ErrorCode::kInvalidArgument, "'{}' holds no API key", printable(path));
  return keys;
}

std::string_view presented_key(std::string_view authorization, std::string_view x_api_key) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() > kScheme.size() && lower(authorization.substr(0, kScheme.size())) == kScheme) {
    return trim(authorization.substr(kScheme.size()));
  }
  return trim(x_api_key);
}

std::optional<HostPort> parse_host(std::string_view text) {
  HostPort result;
  const std::size_t bracket = text.starts_with('[') ? text.find(']') : 0;
  if (bracket == std::string_view::npos) return std::nullopt;
  const std::size_t colon = text.find(':', bracket);
  result.host = lower(text.substr(0, colon));
  if (result.host.ends_with('.')) result.host.pop_back();
  if (result.host.empty() || result.host.size() > 255) return std::nullopt;
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  };
  if (bracket == 0 && !std::all_of(result.host.begin(), result.host.end(), plain)) return std::nullopt;
  if (bracket != 0 && !is_ip_literal(result.host)) return std::nullopt;
  if (colon == std::string_view::npos) return result;
  const std::string_view digits = text.substr(colon + 1);
  if (digits.empty()) return result;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, result.port);
  if (error != std::errc() || stop != end || digits.front() == '-' || result.port > 65535) return std::nullopt;
  return result;
}

bool is_ip_literal(std::string_view host) {
  if (host.starts_with('[') && host.ends_with(']')) return is_ipv6(host.substr(1, host.size() - 2));
  return is_ipv4(host);
}

bool is_loopback_name(std::string_view host) {
  return host == "localhost" || host.ends_with(".localhost") || host == "[::1]" ||
         (is_ipv4(host) && host.starts_with("127."));
}

HostRule::HostRule(bool loopback_bind, std::vector<std::string> allowed)
    : loopback_bind_(loopback_bind), allowed_(std::move(allowed)) {
  for (std::string& name : allowed_) {
    const auto parsed = parse_host(name);
    if (!parsed || parsed->port >= 0) {
      fail(ErrorCode::kInvalidArgument, "'{}' is not a host name (without port)", printable(name));
    }
    name = parsed->host;
  }
}

bool HostRule::accepts(std::string_view host_header) const {
  const auto parsed = parse_host(host_header);
  if (!parsed) return false;
  if (!loopback_bind_ && allowed_.empty()) return true;
  if (is_loopback_name(parsed->host) || (!loopback_bind_ && is_ip_literal(parsed->host))) return true;
  return std::find(allowed_.begin(), allowed_.end(), parsed->host) != allowed_.end();
}

OriginRule::OriginRule(std::vector<std::string> allowed) : allowed_(std::move(allowed)) {
  for (const std::string& origin : allowed_) {
    const std::size_t scheme = origin.find("://");
    const bool form =
        (scheme != std::string::npos) && parse_host(std::string_view(origin).substr(scheme + 3)).has_value();
    if (origin != "*" && !form) {
      fail(ErrorCode::kInvalidArgument, "'{}' is not an origin such as https://example.com", printable(origin));
    }
  }
}

OriginRule::Verdict OriginRule::judge(std::string_view origin, std::string_view host_header) const {
  if (origin.empty()) return Verdict::kSame;
  for (const std::string& allowed : allowed_) {
    if (allowed == "*" || allowed == origin) return Verdict::kAllowed;
  }
  // Behind a proxy that ends TLS the scheme is not ours to know: host and port decide.
  const bool secure = origin.starts_with("https://");
  if (!secure && !origin.starts_with("http://")) return Verdict::kForeign;
  auto page = parse_host(origin.substr(secure ? 8 : 7)), server = parse_host(host_header);
  if (!page || !server || page->host != server->host) return Verdict::kForeign;
  const auto is_default = [](int port) { return port == -1 || port == 80 || port == 443; };
  const bool same = page->port == server->port || (is_default(page->port) && is_default(server->port));
  return same ? Verdict::kSame : Verdict::kForeign;
}

}  // namespace gov::server
