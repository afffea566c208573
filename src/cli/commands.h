#pragma once
// The subcommands of gpt-oss-vision, one file each. Each add_* function declares its options, with help and examples,
// and leaves in Program::action what is to be run once the whole command line has been understood.

#include <CLI/CLI.hpp>
#include <atomic>
#include <filesystem>
#include <functional>

namespace gov::cli {

struct Program {
  std::filesystem::path executable;           // the data folder is found beside it
  const std::atomic<bool>* cancel = nullptr;  // set by SIGINT
  std::function<int()> action;                // returns the exit status; throws gov::Error
};

void add_generate(CLI::App& root, Program& program);
void add_serve(CLI::App& root, Program& program);
void add_chat(CLI::App& root, Program& program);
void add_inspect(CLI::App& root, Program& program);
void add_tokenize(CLI::App& root, Program& program);
void add_synth(CLI::App& root, Program& program);
void add_bench(CLI::App& root, Program& program);
void add_doctor(CLI::App& root, Program& program);
void add_train(CLI::App& root, Program& program);
void add_debug(CLI::App& root, Program& program);
void add_completion(CLI::App& root, Program& program);

// The whole command line: version, all subcommands.
void add_all(CLI::App& root, Program& program);

}  // namespace gov::cli
