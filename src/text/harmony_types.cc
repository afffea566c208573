#include "text/harmony_types.h"

#include <string_view>

#include "text/harmony_json.h"

namespace gov {

std::unordered_set<std::string_view> required_names(const Json& schema) {
  std::unordered_set<std::string_view> names;
  const Json* required = schema.find("required");
  if (!required || !required->is_array()) return names;
  for (const Json& name : required->array()) {
    if (name.is_string()) names.insert(name.string());
  }
  return names;
}

const std::string* text_member(const Json& schema, std::string_view name) {
  const Json* member = schema.find(name);
  return member && member->is_string() && !member->string().empty() ? &member->string() : nullptr;
}

namespace {

constexpr int kMaxDepth = 64;  // as Json::parse has it; a schema that was built otherwise is cut off

const std::string* string_of(const Json& schema, std::string_view name) {
  const Json* member = schema.find(name);
  return member && member->is_string() ? &member->string() : nullptr;
}

const Json::Array* array_of(const Json& schema, std::string_view name) {
  const Json* member = schema.find(name);
  return member && member->is_array() ? &member->array() : nullptr;
}

bool is_enum(const Json& schema) {
  const Json::Array* values = array_of(schema, "enum");
  return values && !values->empty();
}

// "default: v": a string in quotes, unless it is one of an enumeration's (`bare_enums`).
std::string default_text(const Json& schema, const Json& value, bool bare_enums) {
  if (!value.is_string()) return "default: " + json_text(value, JsonStyle::kRust);
  if (!is_enum(schema)) return "default: \"" + value.string() + "\"";
  return "default: " + (bare_enums ? value.string() : json_text(value, JsonStyle::kRust));
}

std::string with_null(const Json& schema, std::string type) {
  const Json* nullable = schema.find("nullable");
  const bool is_nullable = nullable && nullable->is_bool() && nullable->boolean();
  if (is_nullable && type.find("null") == std::string::npos) type += " | null";
  return type;
}

std::string comment(const std::string& text) { return text.empty() ? "" : " // " + text; }

std::string joined(std::string first, const std::string& second) {
  if (!first.empty() && !second.empty()) first += ' ';
  return first + second;
}

// A schema that is nothing but alternatives.
std::string one_of_type(const Json::Array& variants, const std::string& indent, int depth) {
  std::string out;
  for (const Json& variant : variants) {
    out += "\n" + indent + " | " + with_null(variant, harmony_type(variant, indent + "   ", depth + 1));
    const std::string* description = string_of(variant, "description");
    const Json* value = variant.find("default");
    // An empty description still makes a comment.
    if (description && !value) out += " // " + *description;
    else if (description) out += " // " + *description + " " + default_text(variant, *value, false);
    else if (value) out += " // " + default_text(variant, *value, false);
  }
  return out;
}

// Alternatives of a property: above its name what is said of all, behind each variant what is said of it.
std::string one_of_property(const std::string& head, const Json& schema, const Json::Array& variants,
                            const std::string& indent, int depth) {
  std::string out;
  const std::string* description = string_of(schema, "description");
  const std::string* first = variants.empty() ? nullptr : string_of(variants.front(), "description");
  const bool above = description && !(first && *first == *description);
  if (above) out += indent + "// " + *description + "\n";
  if (const Json* value = schema.find("default")) out += indent + "// " + default_text(schema, *value, true) + "\n";
  out += head + ":\n";
  for (std::size_t i = 0; i < variants.size(); ++i) {
    const Json& variant = variants[i];
    out += indent + " | " + with_null(variant, harmony_type(variant, indent + "   ", depth + 1));
    const std::string* own = string_of(variant, "description");
    if ((i == 0 && above) || (own && description && *own == *description)) own = nullptr;
    const Json* value = variant.find("default");
    const std::string note = value ? default_text(variant, *value, true) : "";
    if (own && own->empty() && note.empty()) out += " // ";
    else out += comment(own && own->empty() ? " " + note : joined(own ? *own : "", note));
    out += '\n';
  }
  return out + indent + ",\n";
}

std::string property_lines(const std::string& name, const Json& schema, bool required, const std::string& indent,
                           int depth) {
  std::string out;
  if (const std::string* title = string_of(schema, "title")) out += indent + "// " + *title + "\n" + indent + "//\n";
  if (const std::string* text = string_of(schema, "description"); text && !schema.find("oneOf")) {
    out += indent + "// " + *text + "\n";
  }
  if (const Json::Array* examples = array_of(schema, "examples"); examples && !examples->empty()) {
    out += indent + "// Examples:\n";
    for (const Json& example : *examples) {
      if (example.is_string()) out += indent + "// - \"" + example.string() + "\"\n";
    }
  }
  const std::string head = indent + name + (required ? "" : "?");
  if (const Json::Array* variants = array_of(schema, "oneOf"))
    return out + one_of_property(head, schema, *variants, indent, depth);
  out += head + ": " + with_null(schema, harmony_type(schema, indent + "    ", depth + 1)) + ",";
  if (const Json* value = schema.find("default"); value && !schema.find("oneOf")) {
    out += " // " + default_text(schema, *value, true);
  }
  return out + "\n";
}

std::string object_type(const Json& schema, const std::string& indent, int depth) {
  std::string out;
  if (const std::string* description = string_of(schema, "description")) out += indent + "// " + *description + "\n";
  out += "{\n";
  if (const Json* properties = schema.find("properties"); properties && properties->is_object()) {
    const auto required = required_names(schema);
    for (const auto& [name, property] : properties->object()) {
      out += property_lines(name, property, required.contains(name), indent, depth);
    }
  }
  return out + indent + "}";
}

std::string string_type(const Json& schema) {
  std::string out;
  const Json::Array* values = array_of(schema, "enum");
  for (const Json& value : values ? *values : Json::Array{}) {
    if (value.is_string()) out += (out.empty() ? "\"" : " | \"") + value.string() + "\"";
  }
  return out.empty() ? "string" : out;
}

}  // namespace

std::string harmony_type(const Json& schema, const std::string& indent, int depth) {
  if (depth > kMaxDepth) return "any";
  if (const Json::Array* variants = array_of(schema, "oneOf")) return one_of_type(*variants, indent, depth);
  if (const Json::Array* types = array_of(schema, "type")) {
    std::string out;
    for (const Json& type : *types) {
      if (!type.is_string()) continue;
      if (!out.empty()) out += " | ";
      out += type.string() == "integer" ? "number" : type.string();
    }
    if (!out.empty()) return out;
  }
  const std::string* type = string_of(schema, "type");
  if (!type) return "any";
  if (*type == "object") return object_type(schema, indent, depth);
  if (*type == "string") return string_type(schema);
  if (*type == "number" || *type == "integer") return "number";
  if (*type == "boolean") return "boolean";
  if (*type == "array") {
    const Json* items = schema.find("items");
    return items ? harmony_type(*items, indent, depth + 1) + "[]" : "Array<any>";
  }
  return "any";
}

}  // namespace gov
