#pragma once
// Every parameter of every route, declared once: the request's check, the defaults, the OpenAPI document, docs/api.md
// and the generated tests all read these tables.

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace gov::server {

// Kinds of JSON value that a parameter takes, as a bit set. null always stands for "not given".
inline constexpr unsigned kBool = 1, kInt = 2, kNumber = 4, kString = 8, kArray = 16, kObject = 32;

enum class Use {
  kHonoured,
  kNoted,    // about the client or its account: taken, and there is nothing to do
  kRefused,  // OpenAI has it and this server does not: 400 by name, unless the value asks for nothing (`fallback`)
};

inline constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

struct Param {
  std::string_view name;
  unsigned kinds = 0;
  // Of a number; of the bytes of a string; of the items of an array or object. kNone: no bound.
  double min = kNone, max = kNone;
  std::string_view fallback;  // JSON of the default; of a refused parameter the one value that is let through; "" none
  std::string_view choices;   // of a string: "low|medium|high"; "" any
  Use use = Use::kHonoured;
  bool required = false;
  std::string_view what;  // one line
};

struct ParamTable {
  std::string_view id;  // "chat"
  std::string_view method, path;
  std::string_view what;  // one line about the route
  std::vector<Param> params;
  const Param& find(std::string_view name) const;  // a name that is not in the table is our own bug
};

const std::vector<ParamTable>& param_tables();
const ParamTable& param_table(std::string_view id);

bool is_kind(const Json& value, unsigned kinds);
// A kind set in words: "an integer", "a string or an array".
std::string kind_words(unsigned kinds);

// A request's body, checked against a table. Reading a parameter that was not given gives the table's default.
class Fields {
 public:
  // Throws ApiError 400 naming the field: not an object, a required one missing, a wrong type, out of range, not one of
  // the choices, refused. Members that the table does not have are ignored. `body` and `table` must outlive this.
  Fields(const ParamTable& table, const Json& body);

  const Json* get(std::string_view name) const;  // null if absent or null
  bool has(std::string_view name) const { return get(name) != nullptr; }
  bool flag(std::string_view name) const;
  std::int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  std::string text(std::string_view name) const;  // "" without value and default

 private:
  Json value(std::string_view name) const;
  const ParamTable& table_;
  const Json& body_;
};

// Parses a body; ApiError 400 in one line if it is not JSON within the limits.
Json parse_body(std::string_view text);

}  // namespace gov::server
