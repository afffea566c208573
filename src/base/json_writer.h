#pragma once
// A small JSON writer: appends to a string, escapes by RFC 8259, keeps track of commas. Reading is simdjson's job.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gov {

class JsonWriter {
 public:
  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name);
  JsonWriter& value(std::string_view text);
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(bool flag) { return raw(flag ? "true" : "false"); }
  JsonWriter& value(int number) { return raw(std::to_string(number)); }
  JsonWriter& value(std::int64_t number) { return raw(std::to_string(number)); }
  JsonWriter& value(std::uint64_t number) { return raw(std::to_string(number)); }
  JsonWriter& value(double number);  // shortest text that reads back equal; not finite: null
  JsonWriter& null() { return raw("null"); }
  JsonWriter& raw(std::string_view json);  // an already valid JSON value
  template <class T>
  JsonWriter& field(std::string_view name, const T& v) {
    return key(name).value(v);
  }

  const std::string& str() const { return out_; }
  std::string take() { return std::move(out_); }

 private:
  JsonWriter& open(char c);
  JsonWriter& close(char c);
  void separate();

  std::string out_;
  std::vector<bool> has_items_;  // per open object or array
  bool after_key_ = false;
};

// "text" with quotes and escapes. Invalid UTF-8 is replaced by U+FFFD, so the result is always valid JSON.
std::string json_quote(std::string_view text);

}  // namespace gov
