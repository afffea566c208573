#include "tests/cli/run_program.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

extern char** environ;

namespace gov::test {

bool Ran::failed_cleanly() const {
  return err.starts_with("gpt-oss-vision: error: ") && lines_of(err).size() == 1 && err.back() == '\n' &&
         err.find("terminate called") == std::string::npos && out.empty();
}

Ran run(std::vector<std::string> arguments, const RunOptions& options) {
  // Output through files: no pipe can fill up and block the program.
  const TempFolder folder;
  const std::string in = folder / "in", out = folder / "out", err = folder / "err";
  write_file(in, options.input);
  arguments.insert(arguments.begin(), GOV_PROGRAM);
  std::vector<char*> argv, env;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  std::vector<std::string> variables = options.environment;
  for (char** v = environ; *v != nullptr; ++v) {
    if (!std::string_view(*v).starts_with("GPT_OSS_VISION_")) variables.emplace_back(*v);
  }
  for (std::string& variable : variables) env.push_back(variable.data());
  env.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, in.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT, 0600);
  pid_t child = 0;
  const int error = posix_spawn(&child, GOV_PROGRAM, &actions, nullptr, argv.data(), env.data());
  posix_spawn_file_actions_destroy(&actions);
  Ran ran;
  if (error != 0) {
    ADD_FAILURE() << "cannot start " << GOV_PROGRAM;
    return ran;
  }
  if (options.interrupt_after > 0) {
    std::this_thread::sleep_for(std::chrono::duration<double>(options.interrupt_after));
    kill(child, SIGINT);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  ran.out = read_file(out);
  ran.err = read_file(err);
  return ran;
}

TempFolder::TempFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "gov_cli_XXXXXX").string();
  path_ = mkdtemp(name.data());
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void write_file(const std::string& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string nano() { return GOV_SOURCE_DIR "/models/nano"; }
std::string dog_picture() { return nano() + "/test_pictures/dog_face.png"; }

Json::Json(const std::string& text) {
  const auto error = parser_.parse(text).get(root_);
  EXPECT_EQ(error, simdjson::SUCCESS) << text;
}

simdjson::dom::element Json::operator[](std::string_view pointer) const {
  simdjson::dom::element value;
  EXPECT_EQ(root_.at_pointer(pointer).get(value), simdjson::SUCCESS) << pointer;
  return value;
}

bool Json::has(std::string_view pointer) const { return root_.at_pointer(pointer).error() == simdjson::SUCCESS; }

std::string Json::text(std::string_view pointer) const {
  std::string_view value;
  EXPECT_EQ((*this)[pointer].get(value), simdjson::SUCCESS) << pointer;
  return std::string(value);
}

std::int64_t Json::integer(std::string_view pointer) const {
  std::int64_t value = 0;
  EXPECT_EQ((*this)[pointer].get(value), simdjson::SUCCESS) << pointer;
  return value;
}

double Json::number(std::string_view pointer) const {
  double value = 0;
  EXPECT_EQ((*this)[pointer].get(value), simdjson::SUCCESS) << pointer;
  return value;
}

}  // namespace gov::test
