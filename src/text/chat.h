#pragma once
// Chat messages to prompt token ids, without tools. Control tokens are written only here, as ids; every text from
// outside (contents, role names) is encoded with special tokens disabled, so no text can forge a message boundary. A
// checkpoint's own chat template is a program in a file from outside and is never executed.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace gov {

struct ContentPart {
  enum class Kind { kText, kImage };
  Kind kind = Kind::kText;
  std::string text;  // UTF-8; empty for an image
};

struct ChatMessage {
  std::string role;
  std::vector<ContentPart> content;
};

enum class ChatFormat {
  // <|start|>role<|message|>text<|end|> per message, an assistant's with <|channel|>final after the role, then
  // <|start|>assistant<|channel|>final<|message|>. Any role of 1 to 64 letters, digits, '_', '.', '-'.
  kPlain,
  // OpenAI's harmony: a fixed system message, the "system" and "developer" texts as developer messages (those that
  // stand
  // together are joined by a blank line), then the turns, then <|start|>assistant. Roles: system, developer, user,
  // assistant; an assistant's message is taken as its final answer.
  kHarmony,
};

// Two renderings of the same messages are in use, with different ids: harmony's own, and the Jinja template that OpenAI
// released for Hugging Face, with all its peculiarities: a blank line behind instructions, another layout of
// types, recipient first and "json" without <|constrain|>, arguments and tool results written by Python's json.dumps
// (a result is a string in quotes), only the first of several calls, results named after the last call, thinking kept
// only before calls that no answer follows, text beside a call as analysis, developer messages only in front,
// <|return|> behind a final message at the end where no generation prompt is asked for.
enum class HarmonyTemplate { kHarmony, kHfJinja };

struct ChatOptions {
  ChatFormat format = ChatFormat::kHarmony;
  HarmonyTemplate harmony_template = HarmonyTemplate::kHarmony;
  std::string reasoning_effort = "medium";  // harmony: low, medium, high
  std::string current_date = {};            // harmony: YYYY-MM-DD; empty: no date line
  bool add_generation_prompt = true;        // false: ends after the last message
  // The id that stands for an image in the prompt. Empty: the prompt has no place for images, the engine puts them, in
  // order, in front of it (as the nano model wants it), and image parts give no token.
  std::optional<std::int32_t> image_token_id = std::nullopt;
};

// Text parts are encoded one by one where harmony says so; in the plain format, texts with no image token between them
// are encoded as one. Errors kInvalidArgument: a role or option that the format does not have, text that is not UTF-8,
// an image outside a user or tool message, an image_token_id without token, a tokenizer that lacks the format's tokens.
std::vector<std::int32_t> render_chat(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                      const ChatOptions& options);

// Harmony when the control tokens have o200k_harmony's ids, plain otherwise.
ChatFormat default_chat_format(const Tokenizer& tokenizer);

}  // namespace gov
