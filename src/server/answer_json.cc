#include "server/answer_json.h"

#include <algorithm>

namespace gov::server {
namespace {

void write_token(JsonWriter& w, const Tokenizer& tokenizer, std::int32_t token, float logprob) {
  const bool known = tokenizer.has_token(token);
  const std::string_view bytes = known ? tokenizer.token_bytes(token) : std::string_view();
  w.field("token", bytes);  // the writer replaces what is not UTF-8
  w.key("bytes").begin_array();
  for (const char byte : bytes) w.value(static_cast<int>(static_cast<unsigned char>(byte)));
  w.end_array();
  w.field("logprob", std::max(-9999.0, static_cast<double>(logprob)));  // JSON has no infinity
}

}  // namespace

void write_scores(JsonWriter& w, const Tokenizer& tokenizer, std::span<const TokenScore> scores) {
  w.begin_array();
  for (const TokenScore& score : scores) {
    w.begin_object();
    write_token(w, tokenizer, score.token, score.logprob);
    w.key("top_logprobs").begin_array();
    for (const TokenLogprob& top : score.top) {
      w.begin_object();
      write_token(w, tokenizer, top.token, top.logprob);
      w.end_object();
    }
    w.end_array().end_object();
  }
  w.end_array();
}

void write_usage(JsonWriter& w, const Usage& usage) {
  w.begin_object();
  w.field("prompt_tokens", usage.prompt).field("completion_tokens", usage.completion);
  w.field("total_tokens", usage.prompt + usage.completion);
  w.key("prompt_tokens_details").begin_object();
  w.field("cached_tokens", usage.cached).field("image_tokens", usage.image).end_object();
  w.key("completion_tokens_details").begin_object();
  w.field("reasoning_tokens", usage.reasoning).end_object();
  w.end_object();
}

const char* chat_finish_reason(FinishReason reason, const OutputReader& reader) {
  if (reason == FinishReason::kLength) return "length";
  const std::vector<OutputItem>& items = reader.items();
  const bool calls = std::any_of(items.begin(), items.end(), [](const OutputItem& i) {
    return i.kind == OutputItem::Kind::kToolCall && i.complete;
  });
  return calls ? "tool_calls" : "stop";
}

}  // namespace gov::server
