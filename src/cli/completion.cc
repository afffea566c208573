// gpt-oss-vision completion: scripts for bash, zsh and fish, made from the command line's own description.

#include <set>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/format.h"

namespace gov::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  source <(gpt-oss-vision completion bash)\n"
    "  gpt-oss-vision completion zsh > ~/.zfunc/_gpt-oss-vision\n"
    "  gpt-oss-vision completion fish > ~/.config/fish/completions/gpt-oss-vision.fish";

struct OptionInfo {
  std::vector<std::string> names;  // "--prompt", "-p"
  std::string help, type;
  bool takes_value = false, takes_file = false;
};

struct CommandInfo {
  std::string path;  // "debug forward"; empty for the program itself
  std::string help;
  std::vector<std::string> commands;  // one word each
  std::vector<OptionInfo> options;
};

std::string one_line(std::string text) {
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

bool is_file_type(const std::string& type) {
  return type == "FILE" || type == "FOLDER" || type == "IMAGE" || type == "MODEL";
}

// All commands, outer ones before the commands inside them.
std::vector<CommandInfo> describe(const CLI::App& root) {
  std::vector<CommandInfo> all;
  std::vector<std::pair<const CLI::App*, std::string>> open{{&root, ""}};
  for (std::size_t i = 0; i < open.size(); ++i) {
    const auto [app, path] = open[i];
    CommandInfo info{path, one_line(app->get_description()), {}, {}};
    for (const CLI::App* sub : app->get_subcommands({})) {
      info.commands.push_back(sub->get_name());
      open.emplace_back(sub, path.empty() ? sub->get_name() : path + " " + sub->get_name());
    }
    for (const CLI::Option* option : app->get_options()) {
      if (option->get_positional()) continue;
      OptionInfo o;
      for (const std::string& name : option->get_lnames()) o.names.push_back("--" + name);
      for (const std::string& name : option->get_snames()) o.names.push_back("-" + name);
      o.help = one_line(option->get_description());
      o.type = option->get_type_name();
      o.takes_value = option->get_items_expected_max() > 0;
      o.takes_file = o.takes_value && is_file_type(o.type.substr(0, o.type.find(':')));
      info.options.push_back(std::move(o));
    }
    all.push_back(std::move(info));
  }
  return all;
}

std::vector<std::string> words_of(const CommandInfo& command) {
  std::vector<std::string> words = command.commands;
  for (const OptionInfo& option : command.options) words.insert(words.end(), option.names.begin(), option.names.end());
  return words;
}

std::string bash_script(const std::vector<CommandInfo>& commands) {
  std::set<std::string> file_options;
  for (const CommandInfo& command : commands) {
    for (const OptionInfo& option : command.options) {
      if (option.takes_file) file_options.insert(option.names.begin(), option.names.end());
    }
  }
  std::string paths, words;
  for (const CommandInfo& command : commands) {
    for (const std::string& sub : command.commands)
      paths += fmt::format("      \"{} {}\") path=\"$path $word\" ;;\n", command.path.empty() ? "" : " " + command.path,
                           sub);
    words += fmt::format("    \"{}\") words=\"{}\" ;;\n", command.path.empty() ? "" : " " + command.path,
                         fmt::join(words_of(command), " "));
  }
  return fmt::format(R"(# bash completion of gpt-oss-vision
_gpt_oss_vision() {{
  local path="" word words="" current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$path $word" in
{}    esac
  done
  case "$previous" in
    {}) COMPREPLY=($(compgen -f -- "$current")); return ;;
  esac
  case "$path" in
{}  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$current"))
}}
complete -o filenames -F _gpt_oss_vision gpt-oss-vision
)",
                     paths, fmt::join(file_options, "|"), words);
}

// Inside single quotes of zsh's _arguments: its own special characters escaped.
std::string zsh_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'') out += "'\\''";
    else if (c == '[' || c == ']' || c == ':' || c == '\\') out += std::string("\\") + c;
    else out += c;
  }
  return out;
}

std::string zsh_script(const std::vector<CommandInfo>& commands) {
  std::string cases;
  for (const CommandInfo& command : commands) {
    std::string specs;
    for (const OptionInfo& option : command.options) {
      const std::string value = !option.takes_value ? "" : option.takes_file ? ":file:_files" : ":value:";
      for (const std::string& name : option.names)
        specs += fmt::format(" \\\n        '*{}[{}]{}'", name, zsh_text(option.help), value);
    }
    const std::string rest = command.commands.empty()
                                 ? "'*:file:_files'"
                                 : fmt::format("'*:command:({})'", fmt::join(command.commands, " "));
    cases += fmt::format("    '{}')\n      _arguments{} \\\n        {} ;;\n", command.path, specs, rest);
  }
  std::string paths;  // zsh's own variable `path` must stay alone
  for (const CommandInfo& command : commands) {
    for (const std::string& sub : command.commands) {
      paths += fmt::format("      '{}:{}') command_path='{}{}{}' ;;\n", command.path, sub, command.path,
                           command.path.empty() ? "" : " ", sub);
    }
  }
  return fmt::format(R"(#compdef gpt-oss-vision
_gpt_oss_vision() {{
  local command_path='' word
  for word in "${{(@)words[2,CURRENT-1]}}"; do
    case "$command_path:$word" in
{}    esac
  done
  case "$command_path" in
{}  esac
}}
compdef _gpt_oss_vision gpt-oss-vision
)",
                     paths, cases);
}

std::string fish_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string fish_script(const std::vector<CommandInfo>& commands) {
  std::string out = "# fish completion of gpt-oss-vision\n";
  for (const CommandInfo& command : commands) {
    // Holds where all words of the path were typed and, if commands follow, none of them yet.
    std::string when;
    for (std::size_t at = 0; at < command.path.size();) {
      const std::size_t end = std::min(command.path.find(' ', at), command.path.size());
      when += fmt::format("{}__fish_seen_subcommand_from {}", when.empty() ? "" : "; and ",
                          command.path.substr(at, end - at));
      at = end + 1;
    }
    if (!command.commands.empty())
      when += fmt::format("{}not __fish_seen_subcommand_from {}", when.empty() ? "" : "; and ",
                          fmt::join(command.commands, " "));
    for (const std::string& sub : command.commands) {
      const std::string path = command.path.empty() ? sub : command.path + " " + sub;
      const auto found =
          std::find_if(commands.begin(), commands.end(), [&](const CommandInfo& c) { return c.path == path; });
      out += fmt::format("complete -c gpt-oss-vision -n '{}' -f -a {} -d '{}'\n", when, sub, fish_text(found->help));
    }
    for (const OptionInfo& option : command.options) {
      out += fmt::format("complete -c gpt-oss-vision -n '{}'", when);
      for (const std::string& name : option.names)
        out += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      if (option.takes_value) out += option.takes_file ? " -r -F" : " -x";
      out += fmt::format(" -d '{}'\n", fish_text(option.help));
    }
  }
  return out;
}

}  // namespace

void add_completion(CLI::App& root, Program& program) {
  const auto shell = std::make_shared<std::string>();
  CLI::App& app = *root.add_subcommand("completion", "Print a completion script for a shell");
  app.add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}))
      ->type_name("SHELL");
  app.footer(kExamples);
  app.callback([&program, &root, shell] {
    program.action = [&root, shell] {
      const std::vector<CommandInfo> commands = describe(root);
      put(*shell == "bash" ? bash_script(commands) : *shell == "zsh" ? zsh_script(commands) : fish_script(commands));
      return 0;
    };
  });
}

}  // namespace gov::cli
