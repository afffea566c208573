#pragma once
// TOML 1.0 as training files need it: tables, lists of tables, inline tables, lists, texts in one line, whole numbers,
// numbers, true and false. Dates and texts of several lines are refused. Own code: toml++ 3.3, the distributions'
// version, has undefined behaviour on some inputs (fuzz target train_toml).

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace gov::train {

class TomlValue;
using TomlTable = std::map<std::string, TomlValue, std::less<>>;
using TomlList = std::vector<TomlValue>;

class TomlValue {
 public:
  TomlValue() = default;  // an empty table
  TomlValue(bool v, int at) : line(at), kind_(Kind::kFlag), flag_(v) {}
  TomlValue(std::int64_t v, int at) : line(at), kind_(Kind::kInteger), integer_(v) {}
  TomlValue(double v, int at) : line(at), kind_(Kind::kNumber), number_(v) {}
  TomlValue(std::string v, int at) : line(at), kind_(Kind::kText), text_(std::move(v)) {}
  TomlValue(TomlList v, int at) : line(at), kind_(Kind::kList), list_(std::move(v)) {}
  TomlValue(TomlTable v, int at) : line(at), kind_(Kind::kTable), table_(std::move(v)) {}

  // What it holds, or null where it is of another kind: bool, std::int64_t, double, std::string, TomlList, TomlTable.
  template <class T>
  const T* as() const {
    return const_cast<TomlValue*>(this)->as<T>();
  }
  template <class T>
  T* as() {
    if constexpr (std::is_same_v<T, bool>) return kind_ == Kind::kFlag ? &flag_ : nullptr;
    else if constexpr (std::is_same_v<T, std::int64_t>) return kind_ == Kind::kInteger ? &integer_ : nullptr;
    else if constexpr (std::is_same_v<T, double>) return kind_ == Kind::kNumber ? &number_ : nullptr;
    else if constexpr (std::is_same_v<T, std::string>) return kind_ == Kind::kText ? &text_ : nullptr;
    else if constexpr (std::is_same_v<T, TomlList>) return kind_ == Kind::kList ? &list_ : nullptr;
    else return kind_ == Kind::kTable ? &table_ : nullptr;
  }

  int line = 0;  // where it begins in the file, from 1; 0: in no file
  // How a table or a list came to be, which decides what may still be added to it.
  enum class Made { kImplied, kHeader, kDotted, kValue };
  Made made = Made::kValue;

 private:
  // Not a variant: GCC 12 warns falsely of uninitialised values where one is moved.
  enum class Kind { kFlag, kInteger, kNumber, kText, kList, kTable };
  Kind kind_ = Kind::kTable;
  bool flag_ = false;
  std::int64_t integer_ = 0;
  double number_ = 0;
  std::string text_;
  TomlList list_;
  TomlTable table_;
};

// Error kInvalidArgument "<file>:<line>: what is wrong": breaks the grammar, a key or table defined twice, nesting of
// more than 32, text that is not UTF-8 or has control characters.
TomlTable parse_toml(std::string_view text, std::string_view file);
// The value of "key = value" alone. Error as above.
TomlValue parse_toml_value(std::string_view text);

}  // namespace gov::train
