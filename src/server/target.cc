#include "server/target.h"

#include <algorithm>

#include "base/utf8.h"

namespace gov::server {
namespace {

constexpr std::size_t kMaxQueryFields = 64;

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool parse_query(std::string_view text, std::map<std::string, std::string>& query) {
  std::size_t fields = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('&'), text.size());
    const std::string_view field = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (field.empty()) continue;
    if (++fields > kMaxQueryFields) return false;
    const std::size_t equals = std::min(field.find('='), field.size());
    const auto name = percent_decode(field.substr(0, equals), true);
    const auto value = percent_decode(field.substr(std::min(equals + 1, field.size())), true);
    if (!name || !value) return false;
    query.emplace(*name, *value);
  }
  return true;
}

// Removes "scheme://authority" and keeps the authority; false when that is malformed.
bool take_authority(std::string_view& text, Target& target) {
  if (text.starts_with('/')) return true;
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!text.starts_with(scheme)) continue;
    text.remove_prefix(scheme.size());
    const std::size_t end = std::min(text.find_first_of("/?"), text.size());
    target.authority = text.substr(0, end);
    text.remove_prefix(end);
    return !target.authority.empty() && target.authority.find('@') == std::string::npos;
  }
  return false;
}

}  // namespace

std::optional<std::string> percent_decode(std::string_view text, bool plus) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      const int high = i + 2 < text.size() ? hex_value(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? hex_value(text[i + 2]) : -1;
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    } else if (plus && c == '+') {
      c = ' ';
    }
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) return std::nullopt;
    out += c;
  }
  if (!utf8_valid(out)) return std::nullopt;
  return out;
}

std::optional<Target> parse_target(std::string_view text) {
  Target target;
  if (text == "*") {
    target.path = "*";
    return target;
  }
  if (text.find('#') != std::string_view::npos || !take_authority(text, target)) return std::nullopt;
  const std::size_t mark = std::min(text.find('?'), text.size());
  std::string_view path = text.substr(0, mark);
  if (path.empty()) path = "/";
  if (!parse_query(text.substr(std::min(mark + 1, text.size())), target.query)) return std::nullopt;
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::size_t end = std::min(path.find('/'), path.size());
    auto segment = percent_decode(path.substr(0, end));
    if (!segment) return std::nullopt;
    target.path += "/" + *segment;
    target.segments.push_back(std::move(*segment));
    path.remove_prefix(end);
  }
  return target;
}

}  // namespace gov::server
