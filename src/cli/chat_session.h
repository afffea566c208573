#pragma once
// The conversation as it goes on: lines in, answers and the effects of commands out.

#include "cli/chat_answer.h"
#include "cli/chat_input.h"
#include "cli/chat_view.h"

namespace gov::cli {

struct ChatSessionOptions {
  CommonOptions common;
  PromptFormat format;
  ChatSettings settings;
  std::vector<ops::LogitBias> logit_bias;
  bool terminal = false;  // a person types
};

class ChatSession {
 public:
  // All must outlive it.
  ChatSession(Session& model, LineReader& reader, ChatView& view, InterruptScope& interrupt,
              ChatSessionOptions options);

  void add_picture(const std::string& file) { add_picture(file, pictures_); }
  void set_instructions(const std::string& text) { conversation_.system = text; }
  void load(const std::string& file);
  // Until the input ends or /quit. An error of one line is shown, and the conversation goes on. Exit status: 1 if
  // something failed and nobody was there to see it. Error kCancelled when interrupted without a terminal.
  int run();

 private:
  enum class Next { kGoOn, kQuit };
  Next take_line(const std::string& line);
  Next do_command(const ChatInput& input);
  void take_json(const std::string& line);
  void add_picture(const std::string& file, ChatPictures& pictures) const;
  bool ask(ChatTurn turn);  // false: it was stopped before its end
  ChatPrompt fitting_prompt();
  bool answer_last_turn();  // likewise
  void retry();
  void undo();
  void drop(std::size_t turns);
  void drop_command(const std::string& argument);
  void set_command(const std::string& argument);
  void system_command(const std::string& argument);
  void effort_command(const std::string& argument);
  void image_command(const std::string& argument);
  void show_stats();
  std::string prompt_text() const;

  Session& model_;
  LineReader& reader_;
  ChatView& view_;
  InterruptScope& interrupt_;
  ChatSessionOptions options_;
  Conversation conversation_;
  ChatPictures pictures_;               // for the next message
  std::optional<ChatTurn> unanswered_;  // a message that failed, for /retry
  bool failed_ = false;
  struct Totals {
    std::int64_t answers = 0, prompt_tokens = 0, cached_tokens = 0, image_tokens = 0, tokens = 0, last_rows = 0;
    double first_seconds = 0, seconds = 0;
  } totals_;
};

}  // namespace gov::cli
