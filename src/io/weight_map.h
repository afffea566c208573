#pragma once
// The index of a sharded checkpoint, {"metadata": {..}, "weight_map": {"<tensor>": "<shard file>"}}, from untrusted
// bytes.

#include <string>
#include <string_view>
#include <vector>

namespace gov {

struct WeightMapEntry {
  std::string tensor;
  std::string file;  // passes is_plain_file_name
};

// One path component of 1 to 255 characters from [A-Za-z0-9._-] that does not start with a dot.
bool is_plain_file_name(std::string_view name);

// The entries in the file's order. Error kCorrupt: not JSON, no weight_map, a key twice, a value that is not a string
// or not a plain file name, more than kMaxSafetensorsTensors entries. `what` names the file in messages.
std::vector<WeightMapEntry> parse_weight_map(std::string_view json, std::string_view what);

}  // namespace gov
