#include "server/https_url.h"

#include <algorithm>
#include <charconv>

#include "server/ascii.h"
#include "server/global_address.h"

namespace gov::server {
namespace {

constexpr std::size_t kMaxUrl = 4096;
constexpr std::string_view kScheme = "https://";

bool is_label(std::string_view label) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; };
  return !label.empty() && label.size() <= 63 && label.front() != '-' && label.back() != '-' &&
         std::all_of(label.begin(), label.end(), plain);
}

// "1.2.3.4" is an address, and so are "0x7f.1" and "127.1" to some readers: a last label that is a number in any base
// belongs to no name.
bool looks_numeric(std::string_view label) {
  if (label.starts_with("0x")) return true;
  return !label.empty() && std::all_of(label.begin(), label.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool is_name(std::string_view host) {
  if (host.size() > 253 || host.find('.') == std::string_view::npos) return false;
  std::string_view rest = host, last;
  for (bool more = true; more;) {
    const std::size_t dot = rest.find('.');
    last = rest.substr(0, dot);
    if (!is_label(last)) return false;
    more = dot != std::string_view::npos;
    if (more) rest.remove_prefix(dot + 1);
  }
  return !looks_numeric(last);
}

bool parse_port(std::string_view digits, int& port) {
  if (digits.empty() || digits.size() > 5 || digits.front() == '0') return false;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, port);
  return error == std::errc() && stop == end && port > 0 && port <= 65535;
}

bool parse_authority(std::string_view text, HttpsUrl& url) {
  std::string_view host = text, port;
  bool has_port = false;
  if (text.starts_with('[')) {
    const std::size_t bracket = text.find(']');
    if (bracket == std::string_view::npos) return false;
    host = text.substr(1, bracket - 1);
    const std::string_view rest = text.substr(bracket + 1);
    if (!rest.empty() && rest.front() != ':') return false;
    has_port = !rest.empty();
    port = has_port ? rest.substr(1) : rest;
    url.v6 = true;
  } else if (const std::size_t colon = text.find(':'); colon != std::string_view::npos) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
    has_port = true;
  }
  url.host = lower(host);
  if (url.v6 ? !is_ipv6(url.host) : !(is_ipv4(url.host) || is_name(url.host))) return false;
  return !has_port || parse_port(port, url.port);
}

}  // namespace

std::string HttpsUrl::str() const {
  return std::string(kScheme) + host_text() + (port == 443 ? "" : ":" + std::to_string(port)) + path;
}

std::optional<HttpsUrl> parse_https_url(std::string_view text) {
  const auto fine = [](char c) { return c > 0x20 && c < 0x7F && c != '\\'; };
  if (text.size() > kMaxUrl || text.size() <= kScheme.size() || !std::all_of(text.begin(), text.end(), fine))
    return std::nullopt;
  if (lower(text.substr(0, kScheme.size())) != kScheme) return std::nullopt;
  text.remove_prefix(kScheme.size());
  const std::size_t end = std::min(text.find_first_of("/?#"), text.size());
  HttpsUrl url;
  if (!parse_authority(text.substr(0, end), url)) return std::nullopt;
  url.path = text.substr(end, text.find('#', end) - end);
  if (!url.path.starts_with('/')) url.path.insert(0, "/");
  return url;
}

}  // namespace gov::server
