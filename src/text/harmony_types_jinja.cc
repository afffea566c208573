// The layout of the released Jinja template. Its white space is what the template's own lines leave behind.
#include <string_view>

#include "base/utf8.h"
#include "text/harmony_json.h"
#include "text/harmony_types.h"

namespace gov {
namespace {

constexpr int kMaxDepth = 64;  // as Json::parse has it

// Whether Jinja takes the member for true.
const Json* truthy(const Json& schema, std::string_view name) {
  const Json* member = schema.find(name);
  if (!member || member->is_null()) return nullptr;
  if (member->is_bool()) return member->boolean() ? member : nullptr;
  if (member->is_number()) return member->number() != 0 ? member : nullptr;
  if (member->is_string()) return member->string().empty() ? nullptr : member;
  if (member->is_array()) return member->array().empty() ? nullptr : member;
  return member->object().empty() ? nullptr : member;
}

// str(value) of Python, as far as members of an enumeration and defaults go.
std::string python_str(const Json& value) {
  if (value.is_string()) return value.string();
  if (value.is_null()) return "None";
  if (value.is_bool()) return value.boolean() ? "True" : "False";
  return json_text(value, JsonStyle::kPython);
}

std::string join(const Json::Array& items, std::string_view separator) {
  std::string out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += separator;
    out += python_str(items[i]);
  }
  return out;
}

std::string type_of(const Json& schema, int depth);

std::string array_type(const Json& schema, int depth) {
  std::string out = "any[]";
  if (const Json* items = truthy(schema, "items")) {
    const Json* type = items->find("type");
    const std::string_view name = type && type->is_string() ? std::string_view(type->string()) : "";
    if (name == "string" || name == "boolean") {
      out = std::string(name) + "[]";
    } else if (name == "number" || name == "integer") {
      out = "number[]";
    } else {
      const std::string inner = type_of(*items, depth + 1);
      if (inner != "object | object" && utf8_count(inner) <= 50) out = inner + "[]";
    }
  }
  return truthy(schema, "nullable") ? out + " | null" : out;
}

std::string one_of_type(const Json::Array& variants, int depth) {
  std::string out;
  for (std::size_t i = 0; i < variants.size(); ++i) {
    out += type_of(variants[i], depth + 1);
    if (const Json* text = truthy(variants[i], "description")) out += "// " + python_str(*text);
    if (const Json* value = variants[i].find("default")) {
      out += std::string(20, ' ') + "// default: " + json_text(*value, JsonStyle::kPython);
    }
    if (i + 1 < variants.size()) out += " | \n";
  }
  return out;
}

std::string object_type(const Json& schema, int depth) {
  const Json* properties = truthy(schema, "properties");
  if (!properties || !properties->is_object()) return "object";
  std::string out = "{\n";
  const auto required = required_names(schema);
  bool first = true;
  for (const auto& [name, property] : properties->object()) {
    if (!first) out += ", ";
    first = false;
    out += name + (required.contains(name) ? "" : "?") + ": \n" + std::string(16, ' ') + type_of(property, depth + 1);
  }
  return out + "}";
}

std::string string_type(const Json& schema) {
  if (const Json* values = truthy(schema, "enum"); values && values->is_array()) {
    return "\"" + join(values->array(), "\" | \"") + "\"";
  }
  return truthy(schema, "nullable") ? "string | null" : "string";
}

std::string type_of(const Json& schema, int depth) {
  if (depth > kMaxDepth) return "any";
  const Json* type = schema.find("type");
  const std::string_view name = type && type->is_string() ? std::string_view(type->string()) : "";
  if (name == "array") return array_type(schema, depth);
  if (type && type->is_array() && !type->array().empty()) return join(type->array(), " | ");
  if (const Json* variants = truthy(schema, "oneOf"); variants && variants->is_array()) {
    return one_of_type(variants->array(), depth);
  }
  if (name == "string") return string_type(schema);
  if (name == "number" || name == "integer") return "number";
  if (name == "boolean") return "boolean";
  if (name == "object") return object_type(schema, depth);
  return "any";
}

}  // namespace

std::string jinja_type(const Json& schema) { return type_of(schema, 0); }

std::string jinja_parameter(const std::string& name, const Json& schema, bool required) {
  std::string out = name + (required ? "" : "?") + ": " + jinja_type(schema);
  if (const Json* value = schema.find("default")) {
    if (truthy(schema, "enum")) out += ", // default: " + python_str(*value);
    else if (truthy(schema, "oneOf")) out += "// default: " + python_str(*value);
    else out += ", // default: " + json_text(*value, JsonStyle::kPython);
  }
  return out + ",\n";
}

}  // namespace gov
