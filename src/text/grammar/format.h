#pragma once
// The `format`s of JSON Schema that are enforced, as regular expressions over the whole text. Private to src/text.

#include <cstdint>
#include <string>
#include <string_view>

namespace gov {

enum class FormatKind {
  kEnforced,    // date-time, date, time, duration, email, hostname, ipv4, ipv6, uri, uuid
  kRefused,     // the specification's others: idn-email, idn-hostname, uri-reference, iri, iri-reference, uri-template,
                // json-pointer, relative-json-pointer, regex
  kAnnotation,  // names that the specification does not know have no meaning for it
};

// `pattern` is set for kEnforced, and `max` to the longest text allowed, or 0. What is generated is a part of what the
// format allows: years 1 to 9999, no leap seconds, ASCII only.
FormatKind find_format(std::string_view name, std::string& pattern, std::uint32_t& max);

}  // namespace gov
