#include "cli/chat_answer.h"

#include <optional>

#include "cli/progress.h"

namespace gov::cli {
namespace {

// Tokens to messages, and their texts to the client.
class Collector {
 public:
  Collector(const Tokenizer& tokenizer, const ChatAnswerOptions& options) : options_(options) {
    if (options.format == ChatFormat::kPlain) return;
    parser_.emplace(tokenizer, HarmonyTokens::find(tokenizer).value(), HarmonyParser::Options{});
  }

  void take(const TokenEvent& event) {
    if (!parser_) {
      plain_ += event.text;
      show(false, event.text);
    } else if (event.token >= 0) {
      take(event.token);
    }
  }

  std::vector<HarmonyMessage> finish(std::int32_t stop_token) {
    if (!parser_) {
      if (plain_.empty()) return {};
      HarmonyMessage message;
      message.role = HarmonyRole::kAssistant;
      message.channel = "final";
      message.content.push_back({ContentPart::Kind::kText, plain_});
      return {std::move(message)};
    }
    if (stop_token >= 0) take(stop_token);
    parser_->finish(events_);
    use_events();
    return std::move(messages_);
  }

 private:
  void take(std::int32_t token) {
    parser_->append(token, events_);
    use_events();
  }

  void use_events() {
    for (HarmonyEvent& event : events_) {
      if (event.kind == HarmonyEvent::Kind::kMessageStart) {
        analysis_ = event.header.channel == "analysis";
        call_ = event.header.is_call();
      } else if (event.kind == HarmonyEvent::Kind::kDelta) {
        if (!call_) show(analysis_, event.text);
      } else if (!event.header.text().empty()) {
        messages_.push_back(std::move(event.header));
      }
    }
    events_.clear();
  }

  void show(bool analysis, std::string_view text) {
    if (!text.empty() && options_.on_text) options_.on_text(analysis, text);
  }

  const ChatAnswerOptions& options_;
  std::optional<HarmonyParser> parser_;
  std::vector<HarmonyEvent> events_;
  std::vector<HarmonyMessage> messages_;
  std::string plain_;
  bool analysis_ = false, call_ = false;
};

Request make_request(const Session& session, ChatPrompt prompt, const ChatAnswerOptions& options) {
  Request request;
  request.prompt = std::move(prompt.ids);
  request.images = std::move(prompt.images);
  request.options.sampling = options.settings.sampling;
  request.options.sampling.seed = options.settings.seed.value_or(0);
  request.options.max_new_tokens = options.settings.max_tokens;
  request.options.logit_bias = options.logit_bias;
  request.cancel = options.cancel;
  if (options.format == ChatFormat::kHarmony) {  // older checkpoints do not name <|call|> among their end tokens
    const HarmonyTokens tokens = HarmonyTokens::find(session.package->tokenizer).value();
    request.options.stop_tokens = {tokens.return_token, tokens.call};
  }
  return request;
}

}  // namespace

double ChatAnswer::tokens_per_second() const {
  const double seconds = total_seconds - first_token_seconds;
  return tokens > 1 && seconds > 0 ? static_cast<double>(tokens - 1) / seconds : 0;
}

ChatAnswer answer_chat(Session& session, ChatPrompt prompt, const ChatAnswerOptions& options,
                       const CommonOptions& common) {
  Engine& engine = *session.engine;
  Collector collector(session.package->tokenizer, options);
  PromptProgress progress(engine, prompt.rows, common);
  Request request = make_request(session, std::move(prompt), options);
  request.on_token = [&](const TokenEvent& event) {
    progress.end();
    collector.take(event);
  };
  const RequestId id = engine.submit(std::move(request));
  while (!engine.finished(id) && engine.step()) progress.update();
  progress.end();
  const RequestResult result = engine.take(id);
  const Completion& choice = result.choices.front();
  ChatAnswer answer;
  answer.messages = collector.finish(choice.stop_token);
  answer.finish_reason = choice.finish_reason;
  answer.prompt_tokens = result.prompt_tokens;
  answer.cached_tokens = result.cached_tokens;
  answer.image_tokens = result.image_tokens;
  answer.tokens = static_cast<std::int64_t>(choice.tokens.size());
  answer.first_token_seconds = result.first_token_seconds;
  answer.total_seconds = result.total_seconds;
  answer.seed = options.settings.seed.value_or(0);
  return answer;
}

}  // namespace gov::cli
