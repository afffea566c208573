#include "text/harmony_json.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <string_view>

namespace gov {
namespace {

// Both escape the same characters; other than JsonWriter they have short forms for backspace and form feed.
void append_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\b': out += "\\b"; break;
      case '\f': out += "\\f"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        else out += c;
    }
  }
  out += '"';
}

// The shortest digits that read back equal, laid out as the two programs do: Rust writes 1e16 and 1e-6, Python 1e+16
// and 1e-05; in between both write digits with a point.
void append_number(std::string& out, double value, JsonStyle style) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  if (std::signbit(value)) out += '-';
  char text[32];
  const char* end = std::to_chars(text, text + sizeof text, std::fabs(value), std::chars_format::scientific).ptr;
  const std::string_view scientific(text, static_cast<std::size_t>(end - text));
  const std::size_t e = scientific.find('e');
  const char* sign = text + e + 1;  // from_chars takes a minus alone
  int exponent = 0;
  std::from_chars(*sign == '+' ? sign + 1 : sign, end, exponent);
  std::string digits(scientific.substr(0, e));
  if (digits.size() > 1) digits.erase(1, 1);
  const int count = static_cast<int>(digits.size());
  const bool plain = exponent >= (style == JsonStyle::kRust ? -5 : -4) && exponent < 16;
  if (!plain) {
    out += digits[0];
    if (count > 1) out += "." + digits.substr(1);
    if (style == JsonStyle::kRust) out += fmt::format("e{}", exponent);
    else out += fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  } else if (exponent < 0) {
    out += "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  } else if (count <= exponent + 1) {
    out += digits + std::string(static_cast<std::size_t>(exponent + 1 - count), '0') + ".0";
  } else {
    out += digits.substr(0, static_cast<std::size_t>(exponent) + 1) + "." +
           digits.substr(static_cast<std::size_t>(exponent) + 1);
  }
}

void append(std::string& out, const Json& value, JsonStyle style) {
  const std::string_view comma = style == JsonStyle::kRust ? "," : ", ";
  if (value.is_string()) {
    append_string(out, value.string());
  } else if (value.is_integer()) {
    out += std::to_string(value.integer());
  } else if (value.is_number()) {
    append_number(out, value.number(), style);
  } else if (value.is_bool()) {
    out += value.boolean() ? "true" : "false";
  } else if (value.is_array()) {
    out += '[';
    bool first = true;
    for (const Json& item : value.array()) {
      if (!first) out += comma;
      first = false;
      append(out, item, style);
    }
    out += ']';
  } else if (value.is_object()) {
    out += '{';
    bool first = true;
    for (const auto& [name, member] : value.object()) {
      if (!first) out += comma;
      first = false;
      append_string(out, name);
      out += style == JsonStyle::kRust ? ":" : ": ";
      append(out, member, style);
    }
    out += '}';
  } else {
    out += "null";
  }
}

}  // namespace

std::string json_text(const Json& value, JsonStyle style) {
  std::string out;
  append(out, value, style);
  return out;
}

}  // namespace gov
