#pragma once
// The one reader of URLs that come from clients. It knows far fewer spellings than the web does: what it accepts has
// one meaning for every other reader, and only what str() writes is handed on.

#include <optional>
#include <string>
#include <string_view>

namespace gov::server {

struct HttpsUrl {
  std::string host;  // lower case; an IPv6 address without brackets
  bool v6 = false;
  int port = 443;
  std::string path;  // with query, "/" at least

  std::string host_text() const { return v6 ? "[" + host + "]" : host; }
  std::string str() const;
};

// Empty for everything but "https://" host [":" port] [path] [?query] [#fragment, dropped]. No user name, no backslash,
// no control byte, space or byte beyond ASCII anywhere, no percent sign in the host; a host is a name with a dot whose
// last label is not a number, four decimal numbers without leading zeros, or an IPv6 address without zone.
std::optional<HttpsUrl> parse_https_url(std::string_view text);

}  // namespace gov::server
