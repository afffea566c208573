#include <algorithm>
#include <string_view>

#include "base/error.h"
#include "base/utf8.h"
#include "text/harmony.h"
#include "text/harmony_json.h"
#include "text/harmony_names.h"

namespace gov {

std::optional<HarmonyTokens> HarmonyTokens::find(const Tokenizer& tokenizer) {
  HarmonyTokens tokens;
  const std::pair<std::string_view, std::int32_t*> all[] = {{"<|start|>", &tokens.start},
                                                            {"<|end|>", &tokens.end},
                                                            {"<|message|>", &tokens.message},
                                                            {"<|channel|>", &tokens.channel},
                                                            {"<|constrain|>", &tokens.constrain},
                                                            {"<|return|>", &tokens.return_token},
                                                            {"<|call|>", &tokens.call}};
  for (const auto& [text, id] : all) {
    const auto found = tokenizer.find_special(text);
    if (!found) return std::nullopt;
    *id = *found;
  }
  return tokens;
}

const char* harmony_role_name(HarmonyRole role) {
  switch (role) {
    case HarmonyRole::kSystem: return "system";
    case HarmonyRole::kDeveloper: return "developer";
    case HarmonyRole::kUser: return "user";
    case HarmonyRole::kAssistant: return "assistant";
    case HarmonyRole::kTool: return "tool";
  }
  return "?";
}

std::string HarmonyMessage::text() const {
  std::string out;
  for (const ContentPart& part : content) {
    if (part.kind == ContentPart::Kind::kText) out += part.text;
  }
  return out;
}

namespace {

using Role = HarmonyRole;

bool is_assistant(const HarmonyMessage& message, std::string_view channel) {
  return message.role == Role::kAssistant && message.channel == channel;
}

// The messages that are not rendered: analysis of a turn that reached `final`, once the next turn has begun.
std::vector<bool> past_analysis(std::span<const HarmonyMessage> messages) {
  std::vector<bool> dropped(messages.size());
  std::size_t begin = 0;  // of the turn
  bool has_final = false;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (is_assistant(messages[i], "final")) has_final = true;
    if (messages[i].role != Role::kUser) continue;
    for (std::size_t k = begin; has_final && k < i; ++k) {
      // A built-in tool's call is on this channel too, but the result that follows needs it.
      dropped[k] = is_assistant(messages[k], "analysis") && !messages[k].is_call();
    }
    begin = i;
    has_final = false;
  }
  return dropped;
}

// The pieces that every rendering is made of. Texts are encoded one by one when `separate`, else as long as no control
// token stands between them: the template's text is tokenised as a whole.
class Writer {
 public:
  Writer(const Tokenizer& tokenizer, const HarmonyTokens& tokens, const HarmonyRenderOptions& options, bool separate)
      : tokenizer_(tokenizer), tokens_(tokens), options_(options), separate_(separate) {}

  const HarmonyTokens& tokens() const { return tokens_; }

  void control(std::int32_t id) {
    flush();
    ids_.push_back(id);
  }

  void text(std::string_view bytes) {
    if (!utf8_valid(bytes)) fail(ErrorCode::kInvalidArgument, "chat: a message's text is not valid UTF-8");
    pending_ += bytes;
    if (separate_) flush();
  }

  void image(const HarmonyMessage& message) {
    if (message.role != Role::kUser && message.role != Role::kTool) {
      fail(ErrorCode::kInvalidArgument, "chat: an image in a message of role {}", harmony_role_name(message.role));
    }
    if (options_.image_token_id) control(*options_.image_token_id);
  }

  void content(const HarmonyMessage& message) {
    for (const ContentPart& part : message.content) {
      if (part.kind == ContentPart::Kind::kText) text(part.text);
      else image(message);
    }
  }

  // What the model wrote itself, which the message's fields cannot say as exactly.
  void generated(const HarmonyMessage& message) {
    if (message.role != Role::kAssistant) {
      fail(ErrorCode::kInvalidArgument, "harmony: generated ids in a message of role {}",
           harmony_role_name(message.role));
    }
    const auto is_end = [&](std::int32_t id) {
      return id == tokens_.end || id == tokens_.return_token || id == tokens_.call;
    };
    control(tokens_.start);
    text("assistant");
    flush();
    for (std::size_t i = 0; i < message.generated.size(); ++i) {
      const std::int32_t id = message.generated[i];
      const bool is_last = i + 1 == message.generated.size();
      if (!tokenizer_.has_token(id) || id == tokens_.start || (is_end(id) && !is_last)) {
        fail(ErrorCode::kInvalidArgument, "harmony: generated id {} cannot stand inside a message", id);
      }
      ids_.push_back(id == tokens_.return_token ? tokens_.end : id);
    }
    if (!is_end(message.generated.back())) ids_.push_back(message.is_call() ? tokens_.call : tokens_.end);
  }

  std::vector<std::int32_t> finish() {
    flush();
    return std::move(ids_);
  }
  void replace_last(std::int32_t id) {
    flush();
    ids_.back() = id;
  }

 private:
  void flush() {
    if (pending_.empty()) return;
    const std::vector<std::int32_t> ids = tokenizer_.encode(pending_, SpecialTokens::kOrdinary);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    pending_.clear();
  }

  const Tokenizer& tokenizer_;
  const HarmonyTokens& tokens_;
  const HarmonyRenderOptions& options_;
  bool separate_;
  std::string pending_;
  std::vector<std::int32_t> ids_;
};

constexpr std::string_view kConstrainText = "<|constrain|>";

void check_header(const HarmonyMessage& message) {
  const auto check = [](const std::string& text, std::size_t max_length, const char* what) {
    if (!text.empty() && !is_name(text, max_length)) {
      fail(ErrorCode::kInvalidArgument, "harmony: {} \"{}\" is not a name", what, printable(text, 140));
    }
  };
  check(message.name, message.role == Role::kTool ? kMaxToolName : 64, "author");
  check(message.recipient, kMaxToolName, "recipient");
  check(message.channel, 64, "channel");
  const std::string_view type = message.content_type;
  check(std::string(type.starts_with(kConstrainText) ? type.substr(kConstrainText.size()) : type), 64, "content type");
  if (message.role == Role::kTool && message.name.empty()) {
    fail(ErrorCode::kInvalidArgument, "harmony: a tool message without the tool's name");
  }
}

void write_content_type(Writer& out, const std::string& type) {
  if (type.empty()) return;
  if (type != "json" && !type.starts_with(kConstrainText)) {
    out.text(" " + type);
    return;
  }
  out.text(" ");
  out.control(out.tokens().constrain);
  out.text(type == "json" ? type : type.substr(kConstrainText.size()));
}

void write_harmony(Writer& out, const HarmonyMessage& message, HarmonyRenderOptions::Order order) {
  const bool is_written = !message.recipient.empty() && message.recipient != "all";
  // Only the assistant's own messages have two orders; results of tools are always written recipient first.
  const bool channel_first = order == HarmonyRenderOptions::Order::kChannelFirst && message.role == Role::kAssistant;
  const auto write_channel = [&] {
    if (message.channel.empty()) return;
    out.control(out.tokens().channel);
    out.text(message.channel);
  };
  out.control(out.tokens().start);
  out.text(message.role == Role::kTool ? message.name : harmony_role_name(message.role));
  if (message.role != Role::kTool && !message.name.empty()) out.text(":" + message.name);
  if (channel_first) write_channel();
  if (is_written) out.text(" to=" + message.recipient);
  if (!channel_first) write_channel();
  write_content_type(out, message.content_type);
  out.control(out.tokens().message);
  out.content(message);
  out.control(message.is_call() ? out.tokens().call : out.tokens().end);
}

// The template's rendering of the same messages. It was given whole answers of the API: thinking, text and calls of one
// answer are the assistant's messages up to a call or a final message here.
class JinjaRenderer {
 public:
  JinjaRenderer(Writer& out, std::span<const HarmonyMessage> messages, const HarmonyRenderOptions& options)
      : out_(out),
        messages_(messages),
        options_(options),
        precedes_call_(messages.size() + 1),
        answer_follows_(messages.size() + 1) {
    for (std::size_t i = messages.size(); i-- > 0;) {
      const HarmonyMessage& m = messages[i];
      const bool is_assistant = m.role == Role::kAssistant;
      precedes_call_[i] = m.is_call() || (is_assistant && m.channel != "final" && precedes_call_[i + 1]);
      const bool is_preamble = m.channel == "commentary" && precedes_call_[i];
      answer_follows_[i] =
          answer_follows_[i + 1] || (is_assistant && !m.is_call() && m.channel != "analysis" && !is_preamble);
    }
  }

  void render() {
    for (std::size_t i = 0; i < messages_.size(); ++i) render(i);
  }

 private:
  void render(std::size_t i) {
    const HarmonyMessage& message = messages_[i];
    switch (message.role) {
      case Role::kSystem:
      case Role::kDeveloper:
        if (!conversation_began_) simple(harmony_role_name(message.role), "", message, out_.tokens().end);
        return;
      case Role::kUser: simple("user", "", message, out_.tokens().end); break;
      case Role::kTool: result(message); break;
      case Role::kAssistant: assistant(i); break;
    }
    conversation_began_ = true;
  }

  void assistant(std::size_t i) {
    const HarmonyMessage& message = messages_[i];
    if (message.is_call()) {
      const bool is_second = i > 0 && messages_[i - 1].is_call();
      if (is_second) return;
      if (message.generated.empty()) call(message);
      else out_.generated(message);
      last_call_ = message.recipient;
      return;
    }
    if (message.channel == "analysis" || (message.channel == "commentary" && precedes_call_[i])) {
      if (!keeps_thinking(i)) return;
      if (message.generated.empty()) simple("assistant", "analysis", message, out_.tokens().end);
      else out_.generated(message);
      return;
    }
    const bool is_end = i + 1 == messages_.size() && !options_.add_generation_prompt;
    if (!message.generated.empty() && !is_end) out_.generated(message);
    else simple("assistant", "final", message, is_end ? out_.tokens().return_token : out_.tokens().end);
    last_call_.clear();
  }

  bool keeps_thinking(std::size_t i) const {
    if (options_.preserve_thinking) return true;
    if (precedes_call_[i]) return !answer_follows_[i];
    // Thinking before an answer: only where the answer is the end, in training.
    return i + 2 == messages_.size() && is_assistant(messages_[i + 1], "final") && !options_.add_generation_prompt;
  }

  // JSON is written anew, as Python writes it; anything else is a string to it.
  void call(const HarmonyMessage& message) {
    out_.control(out_.tokens().start);
    out_.text("assistant to=" + message.recipient);
    out_.control(out_.tokens().channel);
    std::string_view type = message.content_type;
    if (type.starts_with(kConstrainText)) type.remove_prefix(kConstrainText.size());
    out_.text(fmt::format("commentary {}", type.empty() ? "json" : type));
    out_.control(out_.tokens().message);
    const std::string arguments = message.text();
    if (!utf8_valid(arguments)) fail(ErrorCode::kInvalidArgument, "chat: a message's text is not valid UTF-8");
    Json value(arguments);
    try {
      value = Json::parse(arguments);
    } catch (const Error&) {
    }
    out_.text(json_text(value, JsonStyle::kPython));
    out_.control(out_.tokens().call);
  }

  void result(const HarmonyMessage& message) {
    out_.control(out_.tokens().start);
    out_.text((last_call_.empty() ? message.name : last_call_) + " to=assistant");
    out_.control(out_.tokens().channel);
    out_.text("commentary");
    out_.control(out_.tokens().message);
    std::string run;
    bool is_empty = true;
    for (const ContentPart& part : message.content) {
      if (part.kind == ContentPart::Kind::kText) {
        run += part.text;
        continue;
      }
      if (!run.empty()) quoted(run);
      run.clear();
      out_.image(message);
      is_empty = false;
    }
    if (!run.empty() || is_empty) quoted(run);
    out_.control(out_.tokens().end);
  }

  void quoted(const std::string& text) { out_.text(json_text(Json(text), JsonStyle::kPython)); }

  void simple(std::string_view role, std::string_view channel, const HarmonyMessage& message, std::int32_t end) {
    out_.control(out_.tokens().start);
    out_.text(role);
    if (!channel.empty()) {
      out_.control(out_.tokens().channel);
      out_.text(channel);
    }
    out_.control(out_.tokens().message);
    out_.content(message);
    out_.control(end);
  }

  Writer& out_;
  std::span<const HarmonyMessage> messages_;
  const HarmonyRenderOptions& options_;
  // Of every message, itself included: only messages of the same answer stand between it and a call; an answer comes.
  std::vector<bool> precedes_call_, answer_follows_;
  std::string last_call_;
  bool conversation_began_ = false;
};

}  // namespace

std::vector<std::int32_t> render_harmony(const Tokenizer& tokenizer, const HarmonyTokens& tokens,
                                         std::span<const HarmonyMessage> messages,
                                         const HarmonyRenderOptions& options) {
  if (options.image_token_id && !tokenizer.has_token(*options.image_token_id)) {
    fail(ErrorCode::kInvalidArgument, "chat: image_token_id {} is not a token", *options.image_token_id);
  }
  for (const HarmonyMessage& message : messages) check_header(message);
  const bool is_jinja = options.format == HarmonyTemplate::kHfJinja;
  Writer out(tokenizer, tokens, options, !is_jinja);
  HarmonyRenderOptions used = options;
  if (options.training) used.add_generation_prompt = false;
  if (is_jinja) {
    JinjaRenderer(out, messages, used).render();
  } else {
    const std::vector<bool> dropped =
        options.preserve_thinking ? std::vector<bool>(messages.size()) : past_analysis(messages);
    for (std::size_t i = 0; i < messages.size(); ++i) {
      if (dropped[i]) continue;
      if (messages[i].generated.empty()) write_harmony(out, messages[i], options.order);
      else out.generated(messages[i]);
    }
    if (options.training && !messages.empty() && is_assistant(messages.back(), "final")) {
      out.replace_last(tokens.return_token);
    }
  }
  if (used.add_generation_prompt) {
    out.control(tokens.start);
    out.text("assistant");
  }
  return out.finish();
}

}  // namespace gov
