#include "server/params.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "server/api_error.h"

namespace gov::server {
namespace {

double size_of(const Json& value) {
  if (value.is_number()) return value.number();
  if (value.is_string()) return static_cast<double>(value.string().size());
  if (value.is_array()) return static_cast<double>(value.array().size());
  return value.is_object() ? static_cast<double>(value.object().size()) : 0;
}

std::string limit_text(double limit) {
  return limit == std::floor(limit) ? fmt::format("{:.0f}", limit) : fmt::format("{}", limit);
}

bool is_choice(std::string_view choices, std::string_view text) {
  for (std::size_t begin = 0; begin <= choices.size();) {
    const std::size_t end = std::min(choices.find('|', begin), choices.size());
    if (choices.substr(begin, end - begin) == text) return true;
    begin = end + 1;
  }
  return false;
}

std::string with_commas(std::string_view choices) {
  std::string out;
  for (const char c : choices) out += c == '|' ? std::string(", ") : std::string(1, c);
  return out;
}

// Nothing is asked for: false, an empty list or object, or the value that the table lets through.
bool asks_for_nothing(const Param& param, const Json& value) {
  if (value.is_bool() && !value.boolean()) return true;
  if ((value.is_array() || value.is_object()) && size_of(value) == 0) return true;
  return !param.fallback.empty() && value == Json::parse(param.fallback);
}

void check_value(const Param& param, const Json& value) {
  if (param.use == Use::kRefused) {
    if (asks_for_nothing(param, value)) return;
    throw ApiError(400, "invalid_request_error", fmt::format("{}: this server does not support it", param.name),
                   std::string(param.name), "unsupported_parameter");
  }
  if (!is_kind(value, param.kinds)) {
    throw ApiError(400, "invalid_request_error",
                   fmt::format("{}: expected {}, but got {}", param.name, kind_words(param.kinds), value.kind_name()),
                   std::string(param.name), "invalid_type");
  }
  const double size = size_of(value);
  // A parameter may be a number or something longer; the bounds are the number's, if it can be one.
  const bool bounded = (param.kinds & kNumber) == 0 || value.is_number();
  if (bounded &&
      ((param.min == param.min && !(size >= param.min)) || (param.max == param.max && !(size <= param.max)))) {
    const char* what = value.is_number() ? "" : value.is_string() ? " bytes" : " items";
    std::string range = param.max != param.max ? fmt::format("at least {}", limit_text(param.min))
                        : param.min != param.min
                            ? fmt::format("at most {}", limit_text(param.max))
                            : fmt::format("{} to {}", limit_text(param.min), limit_text(param.max));
    bad_field(param.name, "must be {}{}", range, what);
  }
  if (value.is_string() && !param.choices.empty() && !is_choice(param.choices, value.string())) {
    bad_field(param.name, "must be one of {}, not \"{}\"", with_commas(param.choices), printable(value.string(), 40));
  }
}

}  // namespace

bool is_kind(const Json& v, unsigned kinds) {
  return (v.is_bool() && (kinds & kBool)) || (v.is_integer() && (kinds & (kInt | kNumber))) ||
         (v.is_number() && (kinds & kNumber)) || (v.is_string() && (kinds & kString)) ||
         (v.is_array() && (kinds & kArray)) || (v.is_object() && (kinds & kObject));
}

std::string kind_words(unsigned kinds) {
  static constexpr std::pair<unsigned, std::string_view> kWords[] = {{kBool, "a boolean"},  {kInt, "an integer"},
                                                                     {kNumber, "a number"}, {kString, "a string"},
                                                                     {kArray, "an array"},  {kObject, "an object"}};
  std::string out;
  for (const auto& [bit, word] : kWords) {
    if ((kinds & bit) == 0) continue;
    if (!out.empty()) out += " or ";
    out += word;
  }
  return out;
}

const Param& ParamTable::find(std::string_view name) const {
  const auto it = std::find_if(params.begin(), params.end(), [&](const Param& p) { return p.name == name; });
  if (it == params.end()) throw std::logic_error(fmt::format("no parameter {} in the table {}", name, id));
  return *it;
}

const ParamTable& param_table(std::string_view id) {
  const std::vector<ParamTable>& tables = param_tables();
  const auto it = std::find_if(tables.begin(), tables.end(), [&](const ParamTable& t) { return t.id == id; });
  if (it == tables.end()) throw std::logic_error(fmt::format("no table {}", id));
  return *it;
}

Fields::Fields(const ParamTable& table, const Json& body) : table_(table), body_(body) {
  if (!body.is_object()) {
    throw ApiError(400, "invalid_request_error", fmt::format("the body must be an object, not {}", body.kind_name()));
  }
  for (const Param& param : table.params) {
    const Json* value = get(param.name);
    if (value) check_value(param, *value);
    else if (param.required) {
      throw ApiError(400, "invalid_request_error", fmt::format("{}: a required parameter is missing", param.name),
                     std::string(param.name), "missing_required_parameter");
    }
  }
}

const Json* Fields::get(std::string_view name) const {
  const Json* value = body_.find(name);
  return value && !value->is_null() ? value : nullptr;
}

Json Fields::value(std::string_view name) const {
  if (const Json* given = get(name)) return *given;
  const Param& param = table_.find(name);
  return param.fallback.empty() ? Json() : Json::parse(param.fallback);
}

bool Fields::flag(std::string_view name) const {
  const Json v = value(name);
  return v.is_bool() && v.boolean();
}

std::int64_t Fields::integer(std::string_view name) const {
  const Json v = value(name);
  return v.is_integer() ? v.integer() : v.is_number() ? static_cast<std::int64_t>(v.number()) : 0;
}

double Fields::number(std::string_view name) const {
  const Json v = value(name);
  return v.is_number() ? v.number() : 0;
}

std::string Fields::text(std::string_view name) const {
  const Json v = value(name);
  return v.is_string() ? v.string() : std::string();
}

Json parse_body(std::string_view text) {
  try {
    return Json::parse(text);
  } catch (const Error& error) {
    throw ApiError(400, "invalid_request_error", fmt::format("the body is not valid JSON: {}", error.what()), "",
                   "invalid_json");
  }
}

}  // namespace gov::server
