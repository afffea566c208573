#pragma once
// JSON as a value: what a request, a tool's parameters or a schema say, with the order of members kept. Parsing is
// simdjson's; the limits are ours. Large files (tokenizer.json, headers) are read with simdjson directly instead.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/json_writer.h"

namespace gov {

struct JsonLimits {
  std::size_t depth = 64;          // of nested arrays and objects
  std::size_t values = 1'000'000;  // in all, members' names not counted
};

class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;  // in the order of the text

  Json() = default;  // null
  Json(bool flag) : value_(flag) {}
  Json(int number) : value_(std::int64_t{number}) {}
  Json(std::int64_t number) : value_(number) {}
  Json(double number) : value_(number) {}
  Json(std::string text) : value_(std::move(text)) {}
  Json(std::string_view text) : value_(std::string(text)) {}
  Json(const char* text) : value_(std::string(text)) {}
  Json(Array items) : value_(std::move(items)) {}
  Json(Object members) : value_(std::move(members)) {}

  // Strict RFC 8259 in UTF-8. Error kInvalidArgument in one line: bad syntax, not UTF-8, a member's name twice in one
  // object, a number outside of double's range, a limit exceeded.
  static Json parse(std::string_view text, const JsonLimits& limits = {});

  bool is_null() const { return holds<std::monostate>(); }
  bool is_bool() const { return holds<bool>(); }
  bool is_integer() const { return holds<std::int64_t>(); }  // written without fraction and exponent, and in range
  bool is_number() const { return is_integer() || holds<double>(); }
  bool is_string() const { return holds<std::string>(); }
  bool is_array() const { return holds<Array>(); }
  bool is_object() const { return holds<Object>(); }
  const char* kind_name() const;  // "null", "a boolean", "a number", "a string", "an array", "an object"

  // Of the wrong kind: std::bad_variant_access, a bug of the caller, who has to look first.
  bool boolean() const { return std::get<bool>(value_); }
  std::int64_t integer() const { return std::get<std::int64_t>(value_); }
  double number() const { return is_integer() ? static_cast<double>(integer()) : std::get<double>(value_); }
  const std::string& string() const { return std::get<std::string>(value_); }
  const Array& array() const { return std::get<Array>(value_); }
  Array& array() { return std::get<Array>(value_); }
  const Object& object() const { return std::get<Object>(value_); }
  Object& object() { return std::get<Object>(value_); }

  // The member of that name, or null if this is no object or has no such member.
  const Json* find(std::string_view name) const;
  // Sets or adds a member; a null value becomes an object first. Returns this value, for chains.
  Json& set(std::string_view name, Json value);

  // Compact, members in order. An integer is written as such; a double always with a fraction or an exponent, so that
  // it reads back as one.
  std::string dump() const;
  void write(JsonWriter& writer) const;

  friend bool operator==(const Json&, const Json&) = default;  // members in the same order; 1 and 1.0 differ

 private:
  template <class T>
  bool holds() const {
    return std::holds_alternative<T>(value_);
  }
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> value_;
};

}  // namespace gov
