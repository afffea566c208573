#pragma once
// Runs gpt-oss-vision as a user does and keeps what it printed.

#include <gtest/gtest.h>
#include <simdjson.h>

#include <filesystem>
#include <string>
#include <vector>

namespace gov::test {

struct Ran {
  int status = -1;  // exit status; 128 + signal when a signal ended it
  std::string out, err;

  // One line on standard error, by the program's own error reporting.
  bool failed_cleanly() const;
};

struct RunOptions {
  std::string input;                     // standard input; empty: none
  double interrupt_after = 0;            // seconds until SIGINT is sent; 0: never
  std::vector<std::string> environment;  // "NAME=value", besides the inherited ones
};

Ran run(std::vector<std::string> arguments, const RunOptions& options = {});

// A folder that is removed with the object.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

void write_file(const std::string& path, std::string_view bytes);
std::string read_file(const std::string& path);
std::vector<std::string> lines_of(const std::string& text);

// Nano and the picture whose answer is known.
std::string nano();
std::string dog_picture();

// A parsed JSON text; the test fails when it is none.
class Json {
 public:
  explicit Json(const std::string& text);
  simdjson::dom::element operator[](std::string_view pointer) const;  // "/usage/prompt_tokens"
  bool has(std::string_view pointer) const;
  std::string text(std::string_view pointer) const;
  std::int64_t integer(std::string_view pointer) const;
  double number(std::string_view pointer) const;

 private:
  simdjson::dom::parser parser_;
  simdjson::dom::element root_;
};

}  // namespace gov::test
