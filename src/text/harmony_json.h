#pragma once
// JSON as two other programs write it, to the last character, for texts that a model has seen written by them.

#include <string>

#include "base/json.h"

namespace gov {

enum class JsonStyle {
  kRust,    // serde_json: compact
  kPython,  // json.dumps(value, ensure_ascii=False): ", " and ": "
};
std::string json_text(const Json& value, JsonStyle style);

}  // namespace gov
