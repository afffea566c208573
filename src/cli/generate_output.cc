#include "base/json_writer.h"
#include "cli/format.h"
#include "cli/generate.h"

namespace gov::cli {
namespace {

void write_logprob(JsonWriter& json, const Tokenizer& tokenizer, std::int32_t token, float logprob) {
  const std::string_view text = tokenizer.has_token(token) ? tokenizer.token_bytes(token) : "";
  json.field("token", token).field("text", text).field("logprob", static_cast<double>(logprob));
}

void write_top(JsonWriter& json, const Tokenizer& tokenizer, std::span<const TokenLogprob> top) {
  json.key("top").begin_array();
  for (const TokenLogprob& entry : top) {
    json.begin_object();
    write_logprob(json, tokenizer, entry.token, entry.logprob);
    json.end_object();
  }
  json.end_array();
}

}  // namespace

AnswerPrinter::AnswerPrinter(const GenerateOptions& o, const Tokenizer& tokenizer, std::size_t prompts,
                             bool show_special)
    : o_(o), tokenizer_(tokenizer), single_(prompts == 1 && o.n == 1), show_special_(show_special), prompts_(prompts) {
  if (single_ && show_special) decoder_ = std::make_unique<StreamDecoder>(tokenizer, false);
}

std::function<void(const TokenEvent&)> AnswerPrinter::on_token(std::size_t prompt) {
  if (o_.common.json ? !o_.stream : !single_) return {};
  return [this, prompt](const TokenEvent& event) { stream_event(prompt, event); };
}

void AnswerPrinter::stream_event(std::size_t prompt, const TokenEvent& event) {
  printed_ = true;
  if (!o_.common.json) {
    // An event that only brings text held back before has no token.
    if (!decoder_) put(event.text);
    else if (event.token >= 0) put(decoder_->append(event.token));
    return;
  }
  JsonWriter json;
  json.begin_object().field("prompt", static_cast<std::int64_t>(prompt)).field("choice", event.choice);
  if (event.token >= 0) json.field("token", event.token);
  json.field("text", event.text);
  if (o_.generation.logprobs >= 0 && event.token >= 0) {
    json.field("logprob", static_cast<double>(event.logprob));
    write_top(json, tokenizer_, event.top_logprobs);
  }
  json.end_object();
  put(json.str() + "\n");
}

std::string AnswerPrinter::full_text(const Completion& choice) const {
  if (!show_special_) return choice.text;
  StreamDecoder decoder(tokenizer_, false);
  std::string text;
  for (const std::int32_t token : choice.tokens) text += decoder.append(token);
  return text + decoder.flush();
}

std::string AnswerPrinter::choice_json(std::size_t prompt, const RequestResult& result, const Completion& choice,
                                       std::uint64_t seed) const {
  const auto tokens = static_cast<std::int64_t>(choice.tokens.size());
  JsonWriter json;
  json.begin_object().field("prompt", static_cast<std::int64_t>(prompt)).field("choice", choice.choice);
  json.field("text", full_text(choice)).field("finish_reason", finish_reason_name(choice.finish_reason));
  if (!choice.stop_match.empty()) json.field("stop_match", choice.stop_match);
  if (choice.stop_token >= 0) json.field("stop_token", choice.stop_token);
  json.key("tokens").begin_array();
  for (const std::int32_t token : choice.tokens) json.value(token);
  json.end_array();
  if (o_.generation.logprobs >= 0) {
    json.key("logprobs").begin_array();
    for (std::size_t i = 0; i < choice.logprobs.size(); ++i) {
      json.begin_object();
      write_logprob(json, tokenizer_, choice.tokens[i], choice.logprobs[i]);
      write_top(json, tokenizer_, choice.top_logprobs[i]);
      json.end_object();
    }
    json.end_array();
  }
  json.field("seed", seed);
  json.key("usage").begin_object().field("prompt_tokens", result.prompt_tokens).field("completion_tokens", tokens);
  json.field("total_tokens", result.prompt_tokens + tokens).end_object();
  const double rest = result.total_seconds - result.first_token_seconds;
  json.key("timings").begin_object().field("first_token_seconds", result.first_token_seconds);
  json.field("total_seconds", result.total_seconds);
  json.key("tokens_per_second");
  if (tokens > 1 && rest > 0) json.value(static_cast<double>(tokens - 1) / rest);
  else json.null();
  return json.end_object().end_object().take();
}

void AnswerPrinter::finish(std::size_t prompt, const RequestResult& result, std::uint64_t seed) {
  for (const Completion& choice : result.choices) {
    if (o_.common.json) {
      put(choice_json(prompt, result, choice, seed) + "\n");
    } else if (single_) {
      put((decoder_ ? decoder_->flush() : std::string()) + "\n");
    } else {
      std::string heading;
      if (prompts_ > 1) heading = fmt::format("prompt {}", prompt + 1);
      if (o_.n > 1) heading += fmt::format("{}choice {}", heading.empty() ? "" : ", ", choice.choice + 1);
      put(fmt::format("{}--- {} ---\n{}\n", printed_ ? "\n" : "", heading, full_text(choice)));
    }
    printed_ = true;
  }
}

}  // namespace gov::cli
