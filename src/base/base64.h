#pragma once
// Base64 of RFC 4648, with padding.

#include <string>
#include <string_view>

namespace gov {

// The bytes of a canonical text: whole groups of four, padding only at the end, unused bits zero, nothing else in
// between. False, with `out` undefined, when it is not; an empty text is not one either.
bool base64_decode(std::string_view text, std::string& out);
std::string base64_encode(std::string_view bytes);

}  // namespace gov
