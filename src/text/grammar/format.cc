#include "text/grammar/format.h"

#include <algorithm>
#include <array>

namespace gov {
namespace {

const std::string kYear = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])";
const std::string kLeapYear = "(?:(?:[0-9][0-9])(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";

std::string date() {
  return "(?:" + kYear +
         "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|"
         "2[0-8]))"
         "|" +
         kLeapYear + "-02-29)";
}

std::string time() {
  return "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
}

std::string duration() {
  const std::string clock = "T(?:[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}S)";
  const std::string days = "(?:[0-9]{1,4}D|[0-9]{1,4}M(?:[0-9]{1,4}D)?|[0-9]{1,4}Y(?:[0-9]{1,4}M(?:[0-9]{1,4}D)?)?)";
  return "P(?:" + days + "(?:" + clock + ")?|" + clock + "|[0-9]{1,4}W)";
}

const std::string kLabel = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
std::string hostname() { return kLabel + "(?:\\." + kLabel + ")*"; }

// A last label that is all digits would look like an IPv4 address, and shorter labels keep the automaton small.
std::string email() {
  const std::string atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+", label = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?";
  return atom + "(?:\\." + atom + ")*@" + label + "(?:\\." + label + ")*\\.[A-Za-z]{2,20}";
}

const std::string kOctet = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
std::string ipv4() { return kOctet + "\\." + kOctet + "\\." + kOctet + "\\." + kOctet; }

// RFC 4291 2.2: eight groups; `::` stands for one or more groups of zeros, once; the last two may be an IPv4 address.
std::string ipv6() {
  const std::string group = "[0-9A-Fa-f]{1,4}";
  const auto times = [&](int n) { return "(?:" + group + ":){" + std::to_string(n) + "}"; };
  const std::string last = "(?:" + group + ":" + group + "|" + ipv4() + ")";
  std::string out = times(6) + last;
  for (int after = 5; after >= 0; --after) {  // groups between :: and the last two
    const int before = 5 - after;             // at most, before ::
    out +=
        "|" +
        (before == 0 ? std::string() : "(?:(?:" + group + ":){0," + std::to_string(before - 1) + "}" + group + ")?") +
        "::" + (after == 0 ? std::string() : times(after)) + last;
  }
  out += "|(?:(?:" + group + ":){0,5}" + group + ")?::" + group;
  out += "|(?:(?:" + group + ":){0,6}" + group + ")?::";
  return "(?:" + out + ")";
}

std::string uuid() { return "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"; }

// RFC 3986: a scheme, a host or none, a path, a query, a fragment.
std::string uri() {
  const std::string plain = "[A-Za-z0-9._~!$&'()*+,;=:@-]", percent = "%[0-9A-Fa-f]{2}";
  const std::string character = "(?:" + plain + "|" + percent + ")", host = "(?:[A-Za-z0-9._~-]|" + percent + ")";
  const std::string path = "(?:/" + character + "*)*";
  const std::string tail = "(?:\\?(?:[/?]|" + character + ")*)?(?:#(?:[/?]|" + character + ")*)?";
  return "[A-Za-z][A-Za-z0-9+.-]*:(?://" + host + "+(?::[0-9]{1,5})?" + path + "|" + character + "+" + path + ")" +
         tail;
}

}  // namespace

FormatKind find_format(std::string_view name, std::string& pattern, std::uint32_t& max) {
  max = 0;
  if (name == "date-time") pattern = date() + "T" + time();
  else if (name == "date") pattern = date();
  else if (name == "time") pattern = time();
  else if (name == "duration") pattern = duration();
  else if (name == "email") pattern = email(), max = 254;
  else if (name == "hostname") pattern = hostname(), max = 253;
  else if (name == "ipv4") pattern = ipv4();
  else if (name == "ipv6") pattern = ipv6();
  else if (name == "uri") pattern = uri();
  else if (name == "uuid") pattern = uuid();
  else {
    static constexpr std::array kOthers = {"idn-email",    "idn-hostname",          "uri-reference",
                                           "iri",          "iri-reference",         "uri-template",
                                           "json-pointer", "relative-json-pointer", "regex"};
    const bool known = std::any_of(kOthers.begin(), kOthers.end(), [&](const char* other) { return name == other; });
    return known ? FormatKind::kRefused : FormatKind::kAnnotation;
  }
  return FormatKind::kEnforced;
}

}  // namespace gov
