#include "io/weight_map.h"

#include <simdjson.h>

#include <algorithm>

#include "base/error.h"
#include "io/safetensors.h"

namespace gov {

bool is_plain_file_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name[0] == '.') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

std::vector<WeightMapEntry> parse_weight_map(std::string_view json, std::string_view what) {
  namespace dom = simdjson::dom;
  dom::parser parser;
  dom::object root;
  if (const auto code = parser.parse(json.data(), json.size()).get(root); code != simdjson::SUCCESS) {
    fail(ErrorCode::kCorrupt, "{}: not a JSON object: {}", what, simdjson::error_message(code));
  }
  bool found = false;
  dom::object map;
  for (const auto& [key, value] : root) {
    if (key != "weight_map") continue;
    if (found) fail(ErrorCode::kCorrupt, "{}: weight_map is there twice", what);
    if (value.get(map) != simdjson::SUCCESS) fail(ErrorCode::kCorrupt, "{}: weight_map is not an object", what);
    found = true;
  }
  if (!found) fail(ErrorCode::kCorrupt, "{}: there is no weight_map", what);
  std::vector<WeightMapEntry> entries;
  for (const auto& [key, value] : map) {
    std::string_view file;
    if (value.get(file) != simdjson::SUCCESS) {
      fail(ErrorCode::kCorrupt, "{}: weight_map of tensor '{}' is not a string", what, printable(key));
    }
    if (!is_plain_file_name(file)) {
      fail(ErrorCode::kCorrupt, "{}: weight_map of tensor '{}' is not a plain file name: '{}'", what, printable(key),
           printable(file));
    }
    if (entries.size() == kMaxSafetensorsTensors) {
      fail(ErrorCode::kCorrupt, "{}: weight_map has more than {} tensors", what, kMaxSafetensorsTensors);
    }
    entries.push_back({std::string(key), std::string(file)});
  }
  std::vector<std::string_view> names;
  names.reserve(entries.size());
  for (const WeightMapEntry& entry : entries) names.push_back(entry.tensor);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) fail(ErrorCode::kCorrupt, "{}: tensor '{}' is there twice", what, printable(*twice));
  return entries;
}

}  // namespace gov
