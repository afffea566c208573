#include "text/chat.h"

#include <string_view>

#include "base/error.h"
#include "base/utf8.h"
#include "text/harmony.h"
#include "text/harmony_names.h"

namespace gov {
namespace {

using Kind = ContentPart::Kind;

bool is_instructions(const ChatMessage& message) { return message.role == "system" || message.role == "developer"; }

class PlainRenderer {
 public:
  PlainRenderer(const Tokenizer& tokenizer, const ChatOptions& options) : tokenizer_(tokenizer), options_(options) {
    if (options.image_token_id && !tokenizer.has_token(*options.image_token_id)) {
      fail(ErrorCode::kInvalidArgument, "chat: image_token_id {} is not a token", *options.image_token_id);
    }
  }

  std::vector<std::int32_t> render(std::span<const ChatMessage> messages) {
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
    std::string joined;
    for (const ContentPart& part : message.content) {
      if (part.kind == Kind::kText) {
        joined += part.text;
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

  const Tokenizer& tokenizer_;
  const ChatOptions& options_;
  std::vector<std::int32_t> ids_;
};

HarmonyMessage text_message(HarmonyRole role, std::string text) {
  HarmonyMessage message{.role = role};
  message.content.push_back({Kind::kText, std::move(text)});
  return message;
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

std::vector<HarmonyMessage> harmony_messages(std::span<const ChatMessage> messages, const ChatOptions& options) {
  const SystemContent system{.current_date = options.current_date, .reasoning_effort = options.reasoning_effort};
  std::vector<HarmonyMessage> out{text_message(HarmonyRole::kSystem, system_text(system, false))};
  for (std::size_t i = 0; i < messages.size();) {
    if (is_instructions(messages[i])) {
      DeveloperContent developer;
      for (; i < messages.size() && is_instructions(messages[i]); ++i) {
        append_instructions(messages[i], developer.instructions);
      }
      std::string text = developer_text(developer, options.harmony_template);
      if (!text.empty()) out.push_back(text_message(HarmonyRole::kDeveloper, std::move(text)));
      continue;
    }
    const ChatMessage& message = messages[i++];
    const bool is_assistant = message.role == "assistant";
    if (message.role != "user" && !is_assistant) {
      fail(ErrorCode::kInvalidArgument, "chat: role \"{}\", expected system, developer, user or assistant",
           printable(message.role, 70));
    }
    out.push_back({.role = is_assistant ? HarmonyRole::kAssistant : HarmonyRole::kUser,
                   .channel = is_assistant ? "final" : "",
                   .content = message.content});
  }
  return out;
}

std::vector<std::int32_t> render_as_harmony(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                            const ChatOptions& options) {
  const auto tokens = HarmonyTokens::find(tokenizer);
  if (!tokens) {
    fail(ErrorCode::kInvalidArgument,
         "chat: the tokenizer lacks one of harmony's special tokens (<|start|> and others)");
  }
  return render_harmony(tokenizer, *tokens, harmony_messages(messages, options),
                        {.format = options.harmony_template,
                         .add_generation_prompt = options.add_generation_prompt,
                         .image_token_id = options.image_token_id});
}

}  // namespace

std::vector<std::int32_t> render_chat(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                      const ChatOptions& options) {
  if (options.format == ChatFormat::kHarmony) return render_as_harmony(tokenizer, messages, options);
  return PlainRenderer(tokenizer, options).render(messages);
}

ChatFormat default_chat_format(const Tokenizer& tokenizer) {
  const auto has = [&](std::string_view text, std::int32_t id) { return tokenizer.find_special(text) == id; };
  const bool is_harmony =
      has("<|channel|>", 200005) && has("<|start|>", 200006) && has("<|end|>", 200007) && has("<|message|>", 200008);
  return is_harmony ? ChatFormat::kHarmony : ChatFormat::kPlain;
}

}  // namespace gov
