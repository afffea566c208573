// Training files in TOML. Syntax is toml.h's matter; keys, types and ranges are config_fields.h's.

#include <set>

#include "base/error.h"
#include "base/json_writer.h"
#include "base/utf8.h"
#include "io/mapped_file.h"
#include "train/config_fields.h"
#include "train/toml.h"

namespace gov::train {
namespace {

constexpr std::size_t kMaxBytes = 1u << 20;
constexpr std::size_t kMaxSources = 1024;

// Where a value stands, for messages: "train.toml:7", or the override that it comes from.
struct Place {
  std::string_view file;
  const std::set<std::string>* overridden;  // keys that came with --set

  std::string of(int line, const std::string& key) const {
    if (overridden->contains(key) || line == 0) return fmt::format("--set {}", printable(key));
    return fmt::format("{}:{}", file, line);
  }
};

bool is_clean(std::string_view text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
  return utf8_valid(text);
}

class Reader {
 public:
  Reader(const TomlTable& table, std::string prefix, const Place& place, const std::filesystem::path& base)
      : table_(table), prefix_(std::move(prefix)), place_(place), base_(base) {}

  void text(const char* key, std::string& to, const char*) {
    if (const TomlValue* node = take(key)) to = text_of(*node, key);
  }

  void path(const char* key, std::string& to, const char*) {
    const TomlValue* node = take(key);
    if (!node) return;
    to = text_of(*node, key);
    const bool from_file = !place_.overridden->contains(name(key));
    if (from_file && !to.empty() && !base_.empty()) to = (base_ / to).lexically_normal().string();
  }

  void texts(const char* key, std::vector<std::string>& to, const char*) {
    const TomlValue* node = take(key);
    if (!node) return;
    const TomlList* list = node->as<TomlList>();
    if (!list) wrong_type(*node, key, "a list of texts");
    to.clear();
    for (const TomlValue& item : *list) to.push_back(text_of(item, key));
  }

  void flag(const char* key, bool& to, const char*) {
    const TomlValue* node = take(key);
    if (!node) return;
    const bool* value = node->as<bool>();
    if (!value) wrong_type(*node, key, "true or false");
    to = *value;
  }

  void integer(const char* key, std::int64_t& to, std::int64_t low, std::int64_t high, const char*) {
    const TomlValue* node = take(key);
    if (!node) return;
    const std::int64_t* value = node->as<std::int64_t>();
    if (!value) wrong_type(*node, key, "a whole number");
    if (*value < low || *value > high) refuse(*node, key, fmt::format("is {}, expected {}..{}", *value, low, high));
    to = *value;
  }

  void number(const char* key, double& to, double low, double high, const char*) {
    const TomlValue* node = take(key);
    if (!node) return;
    const std::int64_t* whole = node->as<std::int64_t>();
    const double* real = node->as<double>();
    if (!whole && !real) wrong_type(*node, key, "a number");
    const double value = whole ? static_cast<double>(*whole) : *real;
    if (!(value >= low && value <= high)) refuse(*node, key, fmt::format("is {}, expected {}..{}", value, low, high));
    to = value;
  }

  template <class E>
  void choice(const char* key, E& to, std::initializer_list<const char*> names, const char*) {
    const TomlValue* node = take(key);
    if (!node) return;
    const std::string value = text_of(*node, key);
    int index = 0;
    std::string all;
    for (const char* option : names) {
      if (value == option) {
        to = static_cast<E>(index);
        return;
      }
      ++index;
      all += (all.empty() ? "" : ", ") + std::string(option);
    }
    refuse(*node, key, fmt::format("is \"{}\", expected one of {}", printable(value, 40), all));
  }

  template <class T>
  void section(const char* key, T& to) {
    const TomlValue* node = take(key);
    if (!node) return;
    const TomlTable* table = node->as<TomlTable>();
    if (!table) wrong_type(*node, key, "a table");
    read(*table, name(key), to);
  }

  template <class T>
  void list(const char* key, std::vector<T>& to) {
    const TomlValue* node = take(key);
    if (!node) return;
    const TomlList* items = node->as<TomlList>();
    if (!items) wrong_type(*node, key, "a list of tables");
    if (items->size() > kMaxSources) refuse(*node, key, fmt::format("has more than {} entries", kMaxSources));
    to.clear();
    for (const TomlValue& item : *items) {
      const TomlTable* table = item.as<TomlTable>();
      if (!table) wrong_type(item, key, "a list of tables");
      const std::string element = fmt::format("{}.{}", name(key), to.size());
      read(*table, element, to.emplace_back());
    }
  }

  void refuse_unknown() const {
    for (const auto& [key, node] : table_) {
      if (known_.contains(key)) continue;
      const std::string full = name(key);
      const bool is_set = place_.overridden->contains(full) || node.line == 0;
      const std::string where = is_set ? "--set" : fmt::format("{}:{}", place_.file, node.line);
      fail(ErrorCode::kInvalidArgument, "{}: unknown key '{}'", where, printable(full));
    }
  }

 private:
  std::string name(std::string_view key) const {
    return prefix_.empty() ? std::string(key) : prefix_ + "." + std::string(key);
  }

  const TomlValue* take(const char* key) {
    known_.insert(key);
    const auto it = table_.find(key);
    return it == table_.end() ? nullptr : &it->second;
  }

  template <class T>
  void read(const TomlTable& table, std::string prefix, T& to) {
    Reader reader(table, std::move(prefix), place_, base_);
    visit(reader, to);
    reader.refuse_unknown();
  }

  std::string text_of(const TomlValue& node, const char* key) const {
    const std::string* value = node.as<std::string>();
    if (!value) wrong_type(node, key, "a text");
    if (!is_clean(*value)) refuse(node, key, "holds a control character");
    return *value;
  }

  [[noreturn]] void refuse(const TomlValue& node, const char* key, const std::string& what) const {
    fail(ErrorCode::kInvalidArgument, "{}: '{}' {}", place_.of(node.line, name(key)), name(key), what);
  }
  [[noreturn]] void wrong_type(const TomlValue& node, const char* key, const char* expected) const {
    refuse(node, key, fmt::format("must be {}", expected));
  }

  const TomlTable& table_;
  std::string prefix_;
  const Place& place_;
  const std::filesystem::path& base_;
  std::set<std::string> known_;
};

class Writer {
 public:
  explicit Writer(std::string prefix) : prefix_(std::move(prefix)) {}
  void text(const char* key, const std::string& value, const char* help) { line(key, json_quote(value), help); }
  void path(const char* key, const std::string& value, const char* help) { text(key, value, help); }
  void texts(const char* key, const std::vector<std::string>& values, const char* help) {
    std::string list;
    for (const std::string& value : values) list += (list.empty() ? "" : ", ") + json_quote(value);
    line(key, "[" + list + "]", help);
  }
  void flag(const char* key, bool value, const char* help) { line(key, value ? "true" : "false", help); }
  void integer(const char* key, std::int64_t value, std::int64_t, std::int64_t, const char* help) {
    line(key, std::to_string(value), help);
  }
  void number(const char* key, double value, double, double, const char* help) {
    line(key, fmt::format("{}", value), help);
  }
  template <class E>
  void choice(const char* key, E value, std::initializer_list<const char*> names, const char* help) {
    std::string all;
    for (const char* option : names) all += (all.empty() ? "" : " | ") + std::string(option);
    line(key, json_quote(names.begin()[static_cast<std::size_t>(value)]), fmt::format("{}; {}", all, help).c_str());
  }
  template <class T>
  void section(const char* key, T& value) {
    const std::string full = name(key);
    Writer inner(full);
    visit(inner, value);
    tables_ += fmt::format("\n[{}]\n", full) + inner.str();
  }
  template <class T>
  void list(const char* key, std::vector<T>& values) {
    for (T& value : values) {
      Writer inner(name(key));
      visit(inner, value);
      tables_ += fmt::format("\n[[{}]]\n", name(key)) + inner.str();
    }
  }
  std::string str() const { return lines_ + tables_; }

 private:
  std::string name(const char* key) const { return prefix_.empty() ? key : prefix_ + "." + key; }
  void line(const char* key, const std::string& value, const char* help) {
    lines_ += fmt::format("{} = {}  # {}\n", key, value, help);
  }
  std::string prefix_, lines_, tables_;
};

// The value of "key=value": TOML, or a text as it stands.
TomlValue override_value(const std::string& text) {
  try {
    TomlValue value = parse_toml_value(text);
    value.line = 0;
    return value;
  } catch (const Error&) {
    return {text, 0};
  }
}

// The table or list element that a part of an override's key names; a missing table is made.
TomlValue& step_into(TomlValue& at, const std::string& part, const std::string& text) {
  if (TomlTable* table = at.as<TomlTable>()) return table->try_emplace(part).first->second;
  if (TomlList* list = at.as<TomlList>()) {
    const bool is_number =
        !part.empty() && part.size() < 6 && part.find_first_not_of("0123456789") == std::string::npos;
    if (is_number && static_cast<std::size_t>(std::stoi(part)) < list->size())
      return (*list)[static_cast<std::size_t>(std::stoi(part))];
  }
  fail(ErrorCode::kInvalidArgument, "--set {}: there is no '{}'", printable(text), printable(part));
}

void apply_override(TomlValue& root, const std::string& text, std::set<std::string>& overridden) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || !is_clean(text))
    fail(ErrorCode::kInvalidArgument, "--set {}: expected section.key=value", printable(text));
  const std::string key = text.substr(0, equals);
  TomlValue* at = &root;
  std::size_t begin = 0;
  for (std::size_t dot; (dot = key.find('.', begin)) != std::string::npos; begin = dot + 1)
    at = &step_into(*at, key.substr(begin, dot - begin), text);
  TomlTable* table = at->as<TomlTable>();
  if (!table) fail(ErrorCode::kInvalidArgument, "--set {}: expected section.key=value", printable(text));
  table->insert_or_assign(key.substr(begin), override_value(text.substr(equals + 1)));
  overridden.insert(key);
}

void check(const TrainConfig& c, std::string_view file) {
  const auto refuse = [&](const char* what) { fail(ErrorCode::kInvalidArgument, "{}: {}", file, what); };
  if (c.model.base.empty() == c.model.config.empty()) refuse("give either model.base or model.config");
  if ((c.run.steps == 0) == (c.run.epochs == 0)) refuse("give either run.steps or run.epochs");
  if (c.data.sources.empty()) refuse("there is no [[data.source]]");
  if (c.data.max_length > c.data.tokens_per_batch) refuse("data.max_length is above data.tokens_per_batch");
  if (c.eval.every > 0 && c.eval.sources.empty()) refuse("eval.every needs an [[eval.source]]");
  if (c.eval.patience > 0 && c.eval.every == 0) refuse("eval.patience needs eval.every");
  if (c.lora.dora && c.lora.rank == 0) refuse("lora.dora needs lora.rank");
  if (c.lora.rank > 0 && c.lora.targets.empty()) refuse("lora.rank needs lora.targets");
  if (c.lora.rank > 0 && c.model.base.empty()) refuse("lora.rank needs model.base");
  for (const auto* sources : {&c.data.sources, &c.eval.sources})
    for (const SourceConfig& source : *sources)
      if (source.path.empty()) refuse("a source has no path");
  for (const SourceConfig& source : c.data.sources)
    if (source.kind == SourceConfig::Kind::kNano && source.nano.split != "train")
      refuse("pictures that are held out are not trained on: nano.split of a data.source must be \"train\"");
  for (const GroupConfig& group : c.groups)
    if (group.match.empty()) refuse("a group has no 'match'");
}

TrainConfig read_config(std::string_view text, std::span<const std::string> overrides, std::string_view file,
                        const std::filesystem::path& base) {
  if (text.size() > kMaxBytes)
    fail(ErrorCode::kInvalidArgument, "{}: {} bytes, at most {} are read", file, text.size(), kMaxBytes);
  TomlValue root(parse_toml(text, file), 1);
  std::set<std::string> overridden;
  for (const std::string& item : overrides) apply_override(root, item, overridden);
  const Place place{file, &overridden};
  TrainConfig config;
  Reader reader(*root.as<TomlTable>(), "", place, base);
  visit(reader, config);
  reader.refuse_unknown();
  check(config, file);
  return config;
}

}  // namespace

TrainConfig parse_train_config(std::string_view toml, std::span<const std::string> overrides,
                               std::string_view file_name) {
  return read_config(toml, overrides, file_name, {});
}

TrainConfig load_train_config(const std::filesystem::path& file, std::span<const std::string> overrides) {
  return read_config(read_text_file(file, kMaxBytes), overrides, printable(file.string()), file.parent_path());
}

std::string train_config_toml(const TrainConfig& config) {
  TrainConfig copy = config;
  Writer writer("");
  visit(writer, copy);
  return writer.str().substr(1);  // no empty line in front
}

}  // namespace gov::train
