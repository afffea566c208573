#include "cli/chat_commands.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "cli/chat_settings.h"

namespace gov::cli {
namespace {

constexpr ChatCommandInfo kCommands[] = {
    {ChatCommand::kHelp, "/help", "", "this list"},
    {ChatCommand::kImage, "/image", "[FILE...]",
     "send pictures with the next message; without a file: show what will be sent; -: send none"},
    {ChatCommand::kSystem, "/system", "[TEXT]", "instructions for the model; without text: show them; -: none"},
    {ChatCommand::kEffort, "/effort", "[LEVEL]", "reasoning effort: low, medium or high"},
    {ChatCommand::kSet, "/set", "[NAME [VALUE]]", "change a setting, or show one or all"},
    {ChatCommand::kRetry, "/retry", "", "answer the last message again"},
    {ChatCommand::kUndo, "/undo", "", "forget the last message and its answer"},
    {ChatCommand::kDrop, "/drop", "[N]", "forget the oldest message and its answer, or the N oldest"},
    {ChatCommand::kReset, "/reset", "", "forget the conversation; instructions and settings stay"},
    {ChatCommand::kSave, "/save", "FILE", "write the conversation: .json to go on from, .md to read"},
    {ChatCommand::kLoad, "/load", "FILE", "go on with a conversation from a .json file"},
    {ChatCommand::kStats, "/stats", "", "tokens, speed, use of the context and of the prefix cache"},
    {ChatCommand::kQuit, "/quit", "", "leave; so does Ctrl-D"},
};

constexpr std::size_t kMostCandidates = 1000;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::vector<std::string> names_in_folder(const std::string& folder, std::string_view prefix) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator at(folder.empty() ? "." : folder, error);
  for (; !error && at != std::filesystem::directory_iterator() && names.size() < kMostCandidates; at.increment(error)) {
    std::string name = at->path().filename().string();
    if (!name.starts_with(prefix) || (name[0] == '.' && prefix.empty())) continue;
    std::error_code ignored;
    if (at->is_directory(ignored)) name += '/';
    names.push_back(std::move(name));
  }
  return names;
}

void offer(ChatCompletion& completion, std::string_view word, const std::string& candidate) {
  if (candidate.starts_with(word)) completion.candidates.push_back(candidate);
}

// Spaces of a file's name are written with a backslash, as split_words() reads them.
std::string escaped(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c == ' ' || c == '\\' || c == '"' || c == '\'') out += '\\';
    out += c;
  }
  return out;
}

void complete_file(std::string_view typed, ChatCompletion& completion) {
  std::string path;
  try {
    const std::vector<std::string> words = split_words(typed);
    if (words.size() > 1) return;
    if (!words.empty()) path = words[0];
  } catch (const Error&) {
    return;  // inside a quote
  }
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  const std::string prefix = slash == std::string::npos ? path : path.substr(slash + 1);
  for (const std::string& name : names_in_folder(expand_home(folder), prefix))
    completion.candidates.push_back(escaped(folder) + escaped(name));
}

// Where the last word of a line begins; a space behind a backslash does not end one.
std::size_t last_word(std::string_view line) {
  std::size_t at = line.size();
  while (at > 0 && (line[at - 1] != ' ' || (at > 1 && line[at - 2] == '\\'))) --at;
  return at;
}

}  // namespace

std::span<const ChatCommandInfo> chat_commands() { return kCommands; }

std::string chat_help() {
  std::string out;
  for (const ChatCommandInfo& info : kCommands)
    out += fmt::format("  {:<24}{}\n", fmt::format("{} {}", info.name, info.argument), info.help);
  out += "  settings: " + fmt::format("{}", fmt::join(chat_setting_names(), ", ")) + "\n";
  out +=
      "A line that ends in a backslash goes on with the next one; \"\"\" begins and ends a text of several lines.\n"
      "// at the beginning: a message that begins with a slash. Ctrl-C stops an answer, Ctrl-D leaves.\n";
  return out;
}

ChatInput parse_chat_input(std::string_view line) {
  if (line.starts_with("//")) return {std::nullopt, std::string(line.substr(1))};
  if (!line.starts_with('/')) return {std::nullopt, std::string(line)};
  const std::size_t end = std::min(line.find_first_of(" \t\n"), line.size());
  std::string_view name = line.substr(0, end);
  const std::string_view argument = trimmed(line.substr(end));
  if (name == "/exit" || name == "/q") name = "/quit";
  if (name == "/?") name = "/help";
  for (const ChatCommandInfo& info : kCommands) {
    if (name != info.name) continue;
    const std::string_view wanted = info.argument;
    if (wanted.empty() && !argument.empty()) fail(ErrorCode::kInvalidArgument, "{} takes nothing behind it", info.name);
    if (!wanted.empty() && wanted[0] != '[' && argument.empty())
      fail(ErrorCode::kInvalidArgument, "{} needs {}", info.name, info.argument);
    return {info.command, std::string(argument)};
  }
  fail(ErrorCode::kInvalidArgument, "there is no command '{}'; /help lists them, // begins a message with a slash",
       printable(name, 40));
}

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  bool in_word = false;
  char quote = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote == 0 && (c == ' ' || c == '\t' || c == '\n')) {
      in_word = false;
      continue;
    }
    if (!in_word) words.emplace_back();
    in_word = true;
    if (c == '\\' && quote != '\'' && i + 1 < text.size()) words.back() += text[++i];
    else if (quote == 0 && (c == '"' || c == '\'')) quote = c;
    else if (quote != 0 && c == quote) quote = 0;
    else words.back() += c;
  }
  if (quote != 0) fail(ErrorCode::kInvalidArgument, "the quote {} is not closed", quote);
  return words;
}

std::optional<std::string> LineAssembler::add(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  bool first = text_.empty() && !open();
  if (first && line.starts_with("\"\"\"")) {
    block_ = true;
    line.remove_prefix(3);
    if (line.empty()) return std::nullopt;
  }
  bool ends = !block_;
  if (block_ && line.ends_with("\"\"\"")) {
    line.remove_suffix(3);
    ends = true;
    if (line.empty() && text_.ends_with('\n')) text_.pop_back();
  }
  continued_ = !block_ && line.ends_with('\\') && !line.ends_with("\\\\");
  if (continued_) line.remove_suffix(1);
  text_ += line;
  if (!ends || continued_) {
    text_ += '\n';
    return std::nullopt;
  }
  std::string whole = std::move(text_);
  clear();
  return whole;
}

std::optional<std::string> LineAssembler::finish() {
  if (text_.empty()) return std::nullopt;
  std::string whole = std::move(text_);
  if (whole.ends_with('\n')) whole.pop_back();
  clear();
  return whole;
}

ChatCompletion complete_chat_line(std::string_view line) {
  ChatCompletion completion;
  if (!line.starts_with('/') || line.find('\n') != std::string_view::npos) return completion;
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos) {
    for (const ChatCommandInfo& info : kCommands)
      offer(completion, line, std::string(info.name) + (*info.argument != 0 ? " " : ""));
    std::sort(completion.candidates.begin(), completion.candidates.end());
    return completion;
  }
  const std::string_view command = line.substr(0, space);
  completion.from = std::max(last_word(line), space + 1);
  const std::string_view word = line.substr(completion.from);
  if (command == "/image" || command == "/save" || command == "/load") {
    complete_file(word, completion);
  } else if (command == "/effort") {
    for (const char* level : {"low", "medium", "high"}) offer(completion, word, level);
  } else if (command == "/set" &&
             line.find_first_not_of(' ', space) == (word.empty() ? std::string_view::npos : completion.from)) {
    for (const std::string& name : chat_setting_names()) offer(completion, word, name + " ");
  }
  std::sort(completion.candidates.begin(), completion.candidates.end());
  return completion;
}

std::string expand_home(std::string_view path) {
  const char* home = std::getenv("HOME");
  if (home == nullptr || !(path == "~" || path.starts_with("~/"))) return std::string(path);
  return home + std::string(path.substr(1));
}

}  // namespace gov::cli
