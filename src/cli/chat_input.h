#pragma once
// Lines from a person or a program.

#include <filesystem>
#include <memory>
#include <string>

#include "cli/chat_commands.h"
#include "cli/chat_interrupt.h"

namespace gov::cli {

enum class ReadStatus { kLine, kEnd, kInterrupted };

// What was typed in earlier conversations. A file of mode 0600 in a folder of mode 0700; several programs may append at
// once. A path that cannot be written is no error: then nothing is kept.
class ChatHistory {
 public:
  static constexpr std::size_t kMost = 1000;  // entries that are read; a file of twice as many is cut

  explicit ChatHistory(std::filesystem::path file);  // empty: none is kept
  // $XDG_STATE_HOME/gpt-oss-vision/chat_history, by default in ~/.local/state; empty without a home.
  static std::filesystem::path default_file();

  std::vector<std::string> load() const;  // oldest first
  void append(std::string_view entry) const;

 private:
  std::filesystem::path file_;
};

// Editing of a line on a terminal with libedit: history, completion with Tab, pasted text of several lines as one.
class LineEditor {
 public:
  // Null in a build without libedit.
  static std::unique_ptr<LineEditor> create(const ChatHistory& history);
  ~LineEditor();
  ReadStatus read(const std::string& prompt, std::string& line);
  void remember(const std::string& entry);

 private:
  struct Impl;
  explicit LineEditor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};
std::string line_editor_name();  // "libedit 2.11", "none (built without libedit)"

// Lines of standard input: through the editor if there is one, else as they come.
class LineReader {
 public:
  // terminal: a person types; prompts are shown.
  LineReader(bool terminal, std::unique_ptr<LineEditor> editor, InterruptScope& interrupt);

  // A whole message or command, with its continuation lines. kInterrupted: what was typed so far is dropped.
  ReadStatus read(const std::string& prompt, std::string& text);
  // The answer to a question of ours; false unless it begins with y, and without a terminal.
  bool confirm(const std::string& question);

 private:
  ReadStatus read_line(const std::string& prompt, std::string& line);
  ReadStatus read_plain_line(std::string& line);

  bool terminal_;
  std::unique_ptr<LineEditor> editor_;
  InterruptScope& interrupt_;
  LineAssembler assembler_;
  std::string buffer_;  // read from standard input, not yet given out
  std::size_t buffer_at_ = 0;
  bool ended_ = false;
};

}  // namespace gov::cli
