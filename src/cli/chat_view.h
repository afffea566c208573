#pragma once
// What the user of `chat` sees: markdown on a terminal, plain text in a pipe, or JSON lines for programs.

#include <optional>

#include "base/error.h"
#include "cli/chat_answer.h"
#include "cli/chat_markdown.h"

namespace gov::cli {

struct ChatViewOptions {
  bool json = false, stream = false;  // stream: JSON lines for the pieces too
  bool terminal = false;              // a person sees it: notes and figures are shown
  bool colour = false;                // ANSI styles may be used
  bool markdown = false;
  bool reasoning = true;  // shown
  bool quiet = false;
};

class ChatView {
 public:
  explicit ChatView(const ChatViewOptions& options) : options_(options) {}

  void begin_answer();
  void text(bool analysis, std::string_view text);
  void end_answer();  // what was held back
  // context: positions that there are.
  void show_answer(const ChatAnswer& answer, std::int64_t context);

  void reply(std::string_view text);  // what a command was asked for
  void note(std::string_view text);   // what one may like to know
  void error(const Error& error, std::string_view hint = "");

 private:
  void event(const char* kind, std::string_view text);
  void show_figures(const ChatAnswer& answer, std::int64_t context);
  std::string dimmed(std::string_view text) const;
  void write(std::string_view text);

  ChatViewOptions options_;
  std::optional<Markdown> markdown_;  // of the part of the answer that is being shown
  Sanitizer sanitizer_;
  bool analysis_ = false, line_open_ = false, shown_ = false;
};

// Columns of the terminal of standard output, or 80.
int terminal_width();

}  // namespace gov::cli
