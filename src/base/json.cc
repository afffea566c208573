#include "base/json.h"

#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_set>

#include "base/error.h"

namespace gov {
namespace {

namespace dom = simdjson::dom;

// Objects of more members than this look for doubled names by a hash set.
constexpr std::size_t kFewMembers = 16;

class Builder {
 public:
  explicit Builder(const JsonLimits& limits) : limits_(limits) {}

  // The depth is bounded by the parser, which was given limits.depth.
  Json build(dom::element element) {
    if (++values_ > limits_.values) fail(ErrorCode::kInvalidArgument, "JSON: more than {} values", limits_.values);
    switch (element.type()) {
      case dom::element_type::NULL_VALUE: return Json();
      case dom::element_type::BOOL: return Json(bool(element));
      case dom::element_type::INT64: return Json(std::int64_t(element));
      case dom::element_type::UINT64: return Json(static_cast<double>(std::uint64_t(element)));
      case dom::element_type::DOUBLE: return Json(double(element));
      case dom::element_type::STRING: return Json(std::string_view(element));
      case dom::element_type::ARRAY: return array(element);
      case dom::element_type::OBJECT: return object(element);
    }
    fail(ErrorCode::kInvalidArgument, "JSON: a value of no kind");
  }

 private:
  Json array(const dom::array& items) {
    Json::Array out;
    for (const dom::element item : items) out.push_back(build(item));
    return Json(std::move(out));
  }

  Json object(const dom::object& members) {
    Json::Object out;
    std::unordered_set<std::string_view> names;  // views of simdjson's own buffer
    for (const dom::key_value_pair member : members) {
      const bool many = out.size() >= kFewMembers;
      if (many && names.empty()) {
        for (const dom::key_value_pair before : members) {
          if (names.size() == out.size()) break;
          names.insert(before.key);
        }
      }
      const bool doubled = many ? !names.insert(member.key).second
                                : std::any_of(out.begin(), out.end(),
                                              [&](const Json::Member& known) { return known.first == member.key; });
      if (doubled) fail(ErrorCode::kInvalidArgument, "JSON: \"{}\" twice in one object", printable(member.key, 60));
      out.emplace_back(std::string(member.key), build(member.value));
    }
    return Json(std::move(out));
  }

  const JsonLimits& limits_;
  std::size_t values_ = 0;
};

void write_double(JsonWriter& writer, double number) {
  if (!std::isfinite(number)) {
    writer.null();
    return;
  }
  char text[40];
  const auto end = std::to_chars(text, text + sizeof text, number).ptr;
  std::string written(text, end);
  if (written.find_first_of(".e") == std::string::npos) written += ".0";
  writer.raw(written);
}

}  // namespace

Json Json::parse(std::string_view text, const JsonLimits& limits) {
  dom::parser parser;
  const simdjson::padded_string padded(text);
  if (parser.allocate(std::max<std::size_t>(text.size(), 32), limits.depth) != simdjson::SUCCESS)
    fail(ErrorCode::kInvalidArgument, "JSON: a text of {} bytes is too large", text.size());
  dom::element root;
  if (const auto error = parser.parse(padded).get(root); error != simdjson::SUCCESS) {
    if (error == simdjson::DEPTH_ERROR)
      fail(ErrorCode::kInvalidArgument, "JSON: nested deeper than {} levels", limits.depth);
    fail(ErrorCode::kInvalidArgument, "JSON: {}", printable(simdjson::error_message(error)));
  }
  return Builder(limits).build(root);
}

const char* Json::kind_name() const {
  if (is_null()) return "null";
  if (is_bool()) return "a boolean";
  if (is_number()) return "a number";
  if (is_string()) return "a string";
  return is_array() ? "an array" : "an object";
}

const Json* Json::find(std::string_view name) const {
  if (!is_object()) return nullptr;
  for (const Member& member : object()) {
    if (member.first == name) return &member.second;
  }
  return nullptr;
}

Json& Json::set(std::string_view name, Json value) {
  if (is_null()) value_ = Object{};
  for (Member& member : object()) {
    if (member.first != name) continue;
    member.second = std::move(value);
    return *this;
  }
  object().emplace_back(std::string(name), std::move(value));
  return *this;
}

void Json::write(JsonWriter& writer) const {
  if (is_null()) writer.null();
  else if (is_bool()) writer.value(boolean());
  else if (is_integer()) writer.value(integer());
  else if (is_number()) write_double(writer, number());
  else if (is_string()) writer.value(string());
  else if (is_array()) {
    writer.begin_array();
    for (const Json& item : array()) item.write(writer);
    writer.end_array();
  } else {
    writer.begin_object();
    for (const Member& member : object()) {
      writer.key(member.first);
      member.second.write(writer);
    }
    writer.end_object();
  }
}

std::string Json::dump() const {
  JsonWriter writer;
  write(writer);
  return writer.take();
}

}  // namespace gov
