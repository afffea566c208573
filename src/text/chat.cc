#include "text/chat.h"

#include <algorithm>
#include <string_view>

#include "base/error.h"
#include "base/utf8.h"

namespace gov {
namespace {

using Kind = ContentPart::Kind;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_' || c == '.' || c == '-';
  });
}

bool is_date(std::string_view text) {
  if (text.size() != 10) return false;
  for (std::size_t i = 0; i < 10; ++i) {
    if (i == 4 || i == 7 ? text[i] != '-' : !is_digit(text[i])) return false;
  }
  return true;
}

bool is_instructions(const ChatMessage& message) { return message.role == "system" || message.role == "developer"; }

class Renderer {
 public:
  Renderer(const Tokenizer& tokenizer, const ChatOptions& options) : tokenizer_(tokenizer), options_(options) {
    if (options.image_token_id && !tokenizer.has_token(*options.image_token_id)) {
      fail(ErrorCode::kInvalidArgument, "chat: image_token_id {} is not a token", *options.image_token_id);
    }
  }

  std::vector<std::int32_t> render_plain(std::span<const ChatMessage> messages) {
    for (const ChatMessage& message : messages) {
      if (!is_name(message.role)) {
        fail(ErrorCode::kInvalidArgument, "chat: role \"{}\" is not a name", printable(message.role, 70));
      }
      begin(message.role, message.role == "assistant" ? "final" : "");
      content(message);
      control("<|end|>");
    }
    if (options_.add_generation_prompt) begin("assistant", "final");
    return std::move(ids_);
  }

  std::vector<std::int32_t> render_harmony(std::span<const ChatMessage> messages) {
    system_message();
    for (std::size_t i = 0; i < messages.size();) {
      const ChatMessage& message = messages[i];
      if (is_instructions(message)) {
        std::string instructions;
        for (; i < messages.size() && is_instructions(messages[i]); ++i) append_instructions(messages[i], instructions);
        developer_message(instructions);
        continue;
      }
      if (message.role != "user" && message.role != "assistant") {
        fail(ErrorCode::kInvalidArgument, "chat: role \"{}\", expected system, developer, user or assistant",
             printable(message.role, 70));
      }
      begin(message.role, message.role == "assistant" ? "final" : "");
      content(message);
      control("<|end|>");
      ++i;
    }
    if (options_.add_generation_prompt) {
      control("<|start|>");
      text("assistant");
    }
    return std::move(ids_);
  }

 private:
  void control(std::string_view token) {
    const auto id = tokenizer_.find_special(token);
    if (!id) fail(ErrorCode::kInvalidArgument, "chat: the tokenizer has no special token {}", token);
    ids_.push_back(*id);
  }

  void text(std::string_view bytes) {
    if (!utf8_valid(bytes)) fail(ErrorCode::kInvalidArgument, "chat: a message's text is not valid UTF-8");
    const std::vector<std::int32_t> ids = tokenizer_.encode(bytes, SpecialTokens::kOrdinary);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
  }

  void begin(std::string_view role, std::string_view channel) {
    control("<|start|>");
    text(role);
    if (!channel.empty()) {
      control("<|channel|>");
      text(channel);
    }
    control("<|message|>");
  }

  void content(const ChatMessage& message) {
    std::string joined;  // plain only
    for (const ContentPart& part : message.content) {
      if (part.kind == Kind::kText) {
        if (options_.format == ChatFormat::kPlain) joined += part.text;
        else text(part.text);
        continue;
      }
      if (message.role != "user" && message.role != "tool") {
        fail(ErrorCode::kInvalidArgument, "chat: an image in a message of role {}", printable(message.role, 70));
      }
      if (!options_.image_token_id) continue;
      text(joined);
      joined.clear();
      ids_.push_back(*options_.image_token_id);
    }
    text(joined);
  }

  void system_message() {
    const std::string_view effort = options_.reasoning_effort;
    if (effort != "low" && effort != "medium" && effort != "high") {
      fail(ErrorCode::kInvalidArgument, "chat: reasoning effort \"{}\", expected low, medium or high",
           printable(effort, 40));
    }
    std::string system = "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n";
    if (!options_.current_date.empty()) {
      if (!is_date(options_.current_date)) {
        fail(ErrorCode::kInvalidArgument, "chat: current date \"{}\", expected YYYY-MM-DD",
             printable(options_.current_date, 40));
      }
      system += "Current date: " + options_.current_date + "\n";
    }
    system += fmt::format("\nReasoning: {}\n\n", effort);
    system += "# Valid channels: analysis, commentary, final. Channel must be included for every message.";
    begin("system", "");
    text(system);
    control("<|end|>");
  }

  void append_instructions(const ChatMessage& message, std::string& instructions) {
    std::string own;
    for (const ContentPart& part : message.content) {
      if (part.kind == Kind::kImage) {
        fail(ErrorCode::kInvalidArgument, "chat: an image in a message of role {}", message.role);
      }
      own += part.text;
    }
    if (!own.empty() && !instructions.empty()) instructions += "\n\n";
    instructions += own;
  }

  void developer_message(const std::string& instructions) {
    if (instructions.empty()) return;
    begin("developer", "");
    text("# Instructions\n\n" + instructions);
    control("<|end|>");
  }

  const Tokenizer& tokenizer_;
  const ChatOptions& options_;
  std::vector<std::int32_t> ids_;
};

}  // namespace

std::vector<std::int32_t> render_chat(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                      const ChatOptions& options) {
  Renderer renderer(tokenizer, options);
  return options.format == ChatFormat::kPlain ? renderer.render_plain(messages) : renderer.render_harmony(messages);
}

ChatFormat default_chat_format(const Tokenizer& tokenizer) {
  const auto has = [&](std::string_view text, std::int32_t id) { return tokenizer.find_special(text) == id; };
  const bool is_harmony =
      has("<|channel|>", 200005) && has("<|start|>", 200006) && has("<|end|>", 200007) && has("<|message|>", 200008);
  return is_harmony ? ChatFormat::kHarmony : ChatFormat::kPlain;
}

}  // namespace gov
