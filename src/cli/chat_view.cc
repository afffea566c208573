#include "cli/chat_view.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/json_writer.h"
#include "cli/format.h"

namespace gov::cli {
namespace {

constexpr double kFull = 0.8;  // of the context; beyond, every answer says so

void write_messages(JsonWriter& json, const ChatAnswer& answer) {
  ChatTurn turn;
  turn.answer = answer.messages;
  json.field("text", turn.text());
  const std::string reasoning = turn.reasoning();
  if (!reasoning.empty()) json.field("reasoning", reasoning);
  for (const HarmonyMessage& message : answer.messages) {
    if (!message.is_call()) continue;
    json.key("call").begin_object().field("recipient", message.recipient).field("arguments", message.text());
    json.end_object();
    break;
  }
}

}  // namespace

int terminal_width() {
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string ChatView::dimmed(std::string_view text) const {
  return options_.colour ? fmt::format("\033[2m{}\033[0m", text) : std::string(text);
}

void ChatView::write(std::string_view text) {
  if (text.empty()) return;
  put(text);
  shown_ = true;
  line_open_ = text.back() != '\n';
}

void ChatView::event(const char* kind, std::string_view text) {
  JsonWriter json;
  put(json.begin_object().field("event", kind).field("text", text).end_object().take() + "\n");
}

void ChatView::begin_answer() { analysis_ = line_open_ = shown_ = false; }

void ChatView::text(bool analysis, std::string_view text) {
  if (options_.json) {
    if (options_.stream) event(analysis ? "reasoning_delta" : "delta", text);
    return;
  }
  if (analysis && !options_.reasoning) return;
  if (analysis != analysis_) {
    end_answer();
    if (shown_) write("\n");
    analysis_ = analysis;
  }
  if (options_.markdown) {
    if (!markdown_) markdown_.emplace(terminal_width(), analysis ? style::kDim : std::uint8_t{0});
    write(markdown_->append(text));
  } else {
    const std::string clean = sanitizer_.append(text);
    if (!clean.empty()) write(analysis ? dimmed(clean) : clean);
    line_open_ = !clean.empty() ? clean.back() != '\n' : line_open_;
  }
}

void ChatView::end_answer() {
  if (options_.json) return;
  if (markdown_) write(markdown_->finish());
  else write(sanitizer_.flush());
  markdown_.reset();
  if (line_open_) write("\n");
}

void ChatView::show_answer(const ChatAnswer& answer, std::int64_t context) {
  if (!options_.json) {
    if (!shown_) write("\n");  // an answer without text is a line of its own too
    for (const HarmonyMessage& message : answer.messages) {
      if (message.is_call())
        note(fmt::format("the model wants to call {}, but a chat has no tools", printable(message.recipient)));
    }
    if (options_.terminal) show_figures(answer, context);
    return;
  }
  JsonWriter json;
  json.begin_object().field("event", "answer");
  write_messages(json, answer);
  json.field("finish_reason", finish_reason_name(answer.finish_reason)).field("seed", answer.seed);
  json.key("usage").begin_object().field("prompt_tokens", answer.prompt_tokens);
  json.field("cached_tokens", answer.cached_tokens).field("image_tokens", answer.image_tokens);
  json.field("completion_tokens", answer.tokens).field("total_tokens", answer.prompt_tokens + answer.tokens);
  json.field("context", context).end_object();
  json.key("timings").begin_object().field("first_token_seconds", answer.first_token_seconds);
  json.field("total_seconds", answer.total_seconds).field("tokens_per_second", answer.tokens_per_second());
  put(json.end_object().end_object().take() + "\n");
}

void ChatView::show_figures(const ChatAnswer& answer, std::int64_t context) {
  const std::int64_t used = answer.prompt_tokens + answer.tokens;
  std::string line = fmt::format("{} tokens", answer.tokens);
  if (answer.tokens_per_second() > 0) line += fmt::format(", {:.1f} tokens/s", answer.tokens_per_second());
  line += fmt::format(", first after {:.2f} s, context {} of {}", answer.first_token_seconds, with_commas(used),
                      with_commas(context));
  if (answer.finish_reason == FinishReason::kLength) line += ", cut at the most tokens";
  if (answer.finish_reason == FinishReason::kCancelled) line += ", stopped";
  put(dimmed(line) + "\n");
  const double share = static_cast<double>(used) / static_cast<double>(std::max<std::int64_t>(context, 1));
  if (share >= kFull) note(fmt::format("the context is {:.0f} % full; /drop forgets the oldest messages", share * 100));
}

void ChatView::reply(std::string_view text) {
  if (options_.json) return event("reply", text);
  put(text);
  if (!text.ends_with('\n')) put("\n");
}

void ChatView::note(std::string_view text) {
  if (options_.quiet) return;
  if (options_.json) event("note", text);
  else if (options_.terminal) put(dimmed(text) + "\n");
  else fmt::print(stderr, "gpt-oss-vision: {}\n", text);
}

void ChatView::error(const Error& error, std::string_view hint) {
  std::string text = error.what();
  if (!hint.empty()) text += fmt::format("; {}", hint);
  std::replace(text.begin(), text.end(), '\n', ' ');
  if (options_.json) {
    JsonWriter json;
    json.begin_object().field("event", "error").field("code", error_code_name(error.code())).field("message", text);
    put(json.end_object().take() + "\n");
    return;
  }
  fmt::print(stderr, "{}error: {}\n", options_.terminal ? "" : "gpt-oss-vision: ", text);
}

}  // namespace gov::cli
