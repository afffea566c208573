// The command gpt-oss-vision: reads the command line, runs one subcommand, turns every failure into one line and an
// exit status (1 refused or failed, 2 wrong usage, 130 interrupted).

#include <csignal>
#include <cstdio>
#include <new>

#include "base/error.h"
#include "cli/commands.h"

namespace {

// Lock-free, so that the signal handler may write it.
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

extern "C" void on_interrupt(int) { interrupted.store(true, std::memory_order_relaxed); }

void catch_first_interrupt() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // the second one ends the program at once
  sigaction(SIGINT, &action, nullptr);
}

// Libraries' texts may hold line breaks; ours never do.
void print_line(const char* kind, std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  fmt::print(stderr, "gpt-oss-vision: {}: {}\n", kind, text);
}

// The innermost command that was given, for pointing at its help.
const CLI::App& innermost(const CLI::App& app) {
  const auto given = app.get_subcommands();
  return given.empty() ? app : innermost(*given.front());
}

std::string command_path(const CLI::App& app) {
  return app.get_parent() == nullptr ? app.get_name() : command_path(*app.get_parent()) + " " + app.get_name();
}

int usage_error(const CLI::App& root, const CLI::ParseError& error) {
  const CLI::App& at = innermost(root);
  std::string text = error.what();
  if (error.get_name() == "RequiredError") {
    for (const std::string& word : at.remaining()) {
      if (!word.starts_with('-')) {
        text = fmt::format("unknown command '{}'", gov::printable(word));
        break;
      }
    }
  }
  print_line("error", fmt::format("{} (see {} --help)", text, command_path(at)));
  return 2;
}

int run(int argc, char** argv) {
  gov::cli::Program program;
  program.cancel = &interrupted;
  std::error_code ignored;
  program.executable = std::filesystem::read_symlink("/proc/self/exe", ignored);
  CLI::App root;
  gov::cli::add_all(root, program);
  try {
    root.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return root.exit(error);  // help and version
    return usage_error(root, error);
  }
  return program.action();
}

}  // namespace

int main(int argc, char** argv) {
  catch_first_interrupt();
  try {
    return run(argc, argv);
  } catch (const gov::Error& error) {
    if (error.code() == gov::ErrorCode::kCancelled) {
      print_line("interrupted", error.what());
      return 130;
    }
    print_line("error", error.what());
  } catch (const CLI::ParseError& error) {  // found by a subcommand after parsing: contradicting or missing options
    print_line("error", error.what());
    return 2;
  } catch (const std::bad_alloc&) {
    print_line("error", "out of memory");
  } catch (const std::exception& error) {
    print_line("error", error.what());
  }
  return 1;
}
