#pragma once
// A JSON schema as a type of TypeScript, in the two forms that models have seen. Nothing is escaped: the texts are
// encoded as ordinary text, and what a schema says cannot become a control token.

#include <string>
#include <string_view>
#include <unordered_set>

#include "base/json.h"

namespace gov {

// As harmony's renderer writes it; `indent` stands in front of every line but the first. Below `depth` 64, "any".
std::string harmony_type(const Json& schema, const std::string& indent, int depth = 0);

// As the released Jinja template writes it.
std::string jinja_type(const Json& schema);
// The line or lines of a function's parameter, without its description.
std::string jinja_parameter(const std::string& name, const Json& schema, bool required);

// The properties that the schema's "required" names; the views are into the schema.
std::unordered_set<std::string_view> required_names(const Json& schema);
// The member if it is a string that is not empty; else null.
const std::string* text_member(const Json& schema, std::string_view name);

}  // namespace gov
