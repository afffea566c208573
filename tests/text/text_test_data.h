#pragma once
// The data of tests/text/data and the tokenizers under test, for the tests of this folder.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <simdjson.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/tokenizer.h"

namespace gov::text_test {

inline std::filesystem::path source_path(const std::string& path) {
  return std::filesystem::path(GOV_SOURCE_DIR) / path;
}
inline std::filesystem::path data_path(const std::string& name) {
  const std::filesystem::path file = source_path("tests/text/data/" + name);
  return std::filesystem::exists(file) ? file : std::filesystem::path(GOV_UNPACKED_DIR) / "tests/text/data" / name;
}

inline std::string read_all(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// Calls visit for every line of a .jsonl file; returns the number of lines.
inline int for_each_row(const std::string& name, const std::function<void(simdjson::dom::object)>& visit) {
  std::ifstream file(data_path(name), std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  simdjson::dom::parser parser;
  int count = 0;
  for (std::string line; std::getline(file, line); ++count) visit(parser.parse(line).get_object().value());
  return count;
}

inline std::string string_of(simdjson::dom::object row, std::string_view key) {
  return std::string(std::string_view(row[key].value()));
}

inline std::vector<std::int32_t> ids_of(simdjson::dom::array array) {
  std::vector<std::int32_t> ids;
  for (const std::int64_t id : array) ids.push_back(static_cast<std::int32_t>(id));
  return ids;
}

// The row's text: "text", "hex" bytes, or "repeat": [unit, times].
inline std::string text_of(simdjson::dom::object row) {
  simdjson::dom::element value;
  std::string text;
  if (row["text"].get(value) == simdjson::SUCCESS) return std::string(std::string_view(value));
  if (row["hex"].get(value) == simdjson::SUCCESS) {
    const std::string hex(std::string_view{value});
    for (std::size_t i = 0; i < hex.size(); i += 2) text += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    return text;
  }
  const simdjson::dom::array repeat = row["repeat"].get_array().value();
  const std::string_view unit = repeat.at(0);
  for (std::int64_t i = repeat.at(1).get_int64(); i > 0; --i) text += unit;
  return text;
}

inline std::uint64_t fnv1a(std::uint64_t hash, std::uint8_t byte) { return (hash ^ byte) * 0x100000001B3ull; }
inline constexpr std::uint64_t kFnvStart = 0xCBF29CE484222325ull;

// "count hash", as generate.py's digest().
inline std::string digest(std::span<const std::int32_t> ids) {
  std::uint64_t hash = kFnvStart;
  for (const std::int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) hash = fnv1a(hash, static_cast<std::uint8_t>(id >> shift));
  }
  return fmt::format("{} {:016x}", ids.size(), hash);
}

inline std::string digest_of(simdjson::dom::object row, std::string_view key) {
  const simdjson::dom::array pair = row[key].get_array().value();
  return fmt::format("{} {}", pair.at(0).get_int64().value(), std::string_view(pair.at(1)));
}

inline std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

inline const Tokenizer& o200k() {
  static const Tokenizer t =
      Tokenizer::load(std::filesystem::path(GOV_UNPACKED_DIR) / "models/o200k/o200k_base.tiktoken");
  return t;
}
inline const Tokenizer& nano() {
  static const Tokenizer t = Tokenizer::load(source_path("models/nano"));
  return t;
}
inline std::string small_json() { return read_all(data_path("small_tokenizer.json")); }
inline const Tokenizer& small() {
  static const Tokenizer t = Tokenizer::from_json(small_json());
  return t;
}
inline const Tokenizer& small_ignore_merges() {
  static const Tokenizer t =
      Tokenizer::from_json(replaced(small_json(), "\"ignore_merges\":false", "\"ignore_merges\":true"));
  return t;
}
inline const Tokenizer& small_prefix_space() {
  static const Tokenizer t =
      Tokenizer::from_json(replaced(small_json(), "\"add_prefix_space\":false", "\"add_prefix_space\":true"));
  return t;
}
inline const Tokenizer& partial() {
  static const Tokenizer t = Tokenizer::load(data_path("partial"));
  return t;
}

struct NamedTokenizer {
  const char* name;
  const Tokenizer& tokenizer;
};
inline std::vector<NamedTokenizer> all_tokenizers() {
  return {{"o200k", o200k()},
          {"nano", nano()},
          {"small", small()},
          {"small_ignore_merges", small_ignore_merges()},
          {"small_prefix_space", small_prefix_space()},
          {"partial", partial()}};
}

// The message of the gov::Error that `call` throws; empty when it throws none. Fails on another code.
inline std::string error_of(ErrorCode code, const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(error_code_name(e.code()), std::string(error_code_name(code))) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

}  // namespace gov::text_test
