#pragma once
// Names inside a JSON header, compared and hashed where they stand: the raw text between the quotes of a JSON string
// that a scanner has validated. Nothing here allocates except decode_json_string.

#include <cstdint>
#include <string>
#include <string_view>

namespace gov {

// <0, 0, >0 as the decoded strings compare by bytes.
int compare_json_strings(std::string_view a, std::string_view b);
std::uint64_t hash_json_string(std::string_view raw);  // of the decoded bytes
std::string decode_json_string(std::string_view raw);

}  // namespace gov
