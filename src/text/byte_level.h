#pragma once
// The printable alphabet of byte-level BPE files (GPT-2's bytes_to_unicode): one character for each of the 256 bytes.

#include <optional>
#include <string>
#include <string_view>

namespace gov {

// The bytes that a vocabulary entry of such a file stands for; empty optional when a character is outside the alphabet.
std::optional<std::string> bytes_from_byte_level(std::string_view text);

// The inverse, for writing and messages.
std::string byte_level_from_bytes(std::string_view bytes);

}  // namespace gov
