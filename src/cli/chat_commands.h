#pragma once
// What a typed line asks for: a message, or one of the commands that begin with a slash.

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gov::cli {

enum class ChatCommand {
  kHelp,
  kImage,
  kSystem,
  kEffort,
  kSet,
  kRetry,
  kUndo,
  kDrop,
  kReset,
  kSave,
  kLoad,
  kStats,
  kQuit,
};

struct ChatCommandInfo {
  ChatCommand command;
  const char* name;      // with its slash
  const char* argument;  // for the help; empty: it takes none; in brackets: it can be left out
  const char* help;
};
std::span<const ChatCommandInfo> chat_commands();
std::string chat_help();  // the list of all, and how text is typed

struct ChatInput {
  std::optional<ChatCommand> command;  // empty: a message
  std::string text;                    // the message, or the command's argument without spaces around it
};
// "//" at the beginning is a message that begins with a slash. Error kInvalidArgument: an unknown command, an argument
// missing or too many.
ChatInput parse_chat_input(std::string_view line);

// Words of a command's argument; quotes and backslashes keep spaces inside a word. Error kInvalidArgument for a quote
// that is not closed.
std::vector<std::string> split_words(std::string_view text);

// Puts lines together: one that ends in a backslash goes on with the next; """ begins a block that the next """ at the
// end of a line ends.
class LineAssembler {
 public:
  // The whole text once it is complete.
  std::optional<std::string> add(std::string_view line);
  std::optional<std::string> finish();  // the input ended: what is there, if anything
  bool open() const { return continued_ || block_; }
  void clear() { *this = {}; }

 private:
  std::string text_;
  bool continued_ = false, block_ = false;
};

// What Tab offers: candidates for the text from `from` on.
struct ChatCompletion {
  std::size_t from = 0;
  std::vector<std::string> candidates;  // in order; folders end in a slash
};
// `line`: what stands before the cursor.
ChatCompletion complete_chat_line(std::string_view line);

// "~/x" with the user's home folder in place of "~".
std::string expand_home(std::string_view path);

}  // namespace gov::cli
