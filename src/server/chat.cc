// POST /v1/chat/completions: the answer as one object or as chunks.

#include "server/answer_json.h"
#include "server/chat_generation.h"
#include "server/chat_request.h"
#include "server/routes.h"

namespace gov::server {
namespace {

using Kind = OutputItem::Kind;

// One answer on its way out. Used by one thread at a time: the preparing worker, then the generation's strand.
struct ChatAnswer {
  ApiContext& context;
  ResponderPtr responder;
  ChatRequest request;
  std::string id, model;
  std::int64_t created = 0;

  // Of a stream, for each choice.
  struct Choice {
    bool has_content = false;
    int calls = 0;             // shown so far
    std::vector<int> call_of;  // [items] index of a tool call, -1 if it is not shown
  };
  std::vector<Choice> choices;

  void head(JsonWriter& w, const char* object) const {
    w.begin_object().field("id", id).field("object", object).field("created", created).field("model", model);
    w.field("system_fingerprint", context.fingerprint);
  }
  bool hides(const OutputItem& item) const { return item.kind == Kind::kReasoning && !request.include_reasoning; }

  void begin_stream();
  void event(int choice, const OutputReader& reader, const OutputEvent& event);
  void end_stream(const ChatEnd& end, const std::vector<OutputReader>& readers);
  void whole(const ChatEnd& end, const std::vector<OutputReader>& readers);

 private:
  // {..., "choices":[{"index", "delta": <delta>, "logprobs", "finish_reason"}]}
  void chunk(int choice, const std::function<void(JsonWriter&)>& delta, std::span<const TokenScore> scores = {},
             const char* finish_reason = nullptr);
  void message(JsonWriter& w, const OutputReader& reader) const;
};

void ChatAnswer::chunk(int choice, const std::function<void(JsonWriter&)>& delta, std::span<const TokenScore> scores,
                       const char* finish_reason) {
  JsonWriter w;
  head(w, "chat.completion.chunk");
  w.key("choices").begin_array().begin_object().field("index", choice);
  w.key("delta").begin_object();
  delta(w);
  w.end_object();
  w.key("logprobs");
  if (scores.empty()) {
    w.null();
  } else {
    w.begin_object().key("content");
    write_scores(w, context.package.tokenizer, scores);
    w.key("refusal").null().end_object();
  }
  w.key("finish_reason");
  if (finish_reason) w.value(finish_reason);
  else w.null();
  w.end_object().end_array();
  if (request.include_usage) w.key("usage").null();
  w.end_object();
  responder->event(w.str());
}

// With the first token: what is wrong with the request itself is still answered with a status.
void ChatAnswer::begin_stream() {
  if (responder->started()) return;
  choices.resize(static_cast<std::size_t>(request.input.n));
  responder->begin_events();
  for (int i = 0; i < request.input.n; ++i) {
    chunk(i, [](JsonWriter& w) { w.field("role", "assistant").field("content", ""); });
  }
}

void ChatAnswer::event(int index, const OutputReader& reader, const OutputEvent& event) {
  if (!request.stream) return;
  begin_stream();
  Choice& choice = choices[static_cast<std::size_t>(index)];
  const OutputItem& item = reader.items()[event.item];
  choice.call_of.resize(std::max(choice.call_of.size(), event.item + 1), -1);
  int& call = choice.call_of[event.item];
  if (event.kind == OutputEvent::Kind::kBegin && item.kind == Kind::kToolCall) {
    if (choice.calls > 0 && !request.input.parallel_calls) return;
    call = choice.calls++;
    chunk(index, [&](JsonWriter& w) {
      w.key("tool_calls")
          .begin_array()
          .begin_object()
          .field("index", call)
          .field("id", item.id)
          .field("type", "function");
      w.key("function")
          .begin_object()
          .field("name", item.name)
          .field("arguments", "")
          .end_object()
          .end_object()
          .end_array();
    });
    return;
  }
  if (event.kind != OutputEvent::Kind::kText || hides(item)) return;
  switch (item.kind) {
    case Kind::kReasoning:
      chunk(index, [&](JsonWriter& w) { w.field("reasoning", event.text).field("reasoning_content", event.text); });
      break;
    case Kind::kToolCall:
      if (call < 0) break;
      chunk(index, [&](JsonWriter& w) {
        w.key("tool_calls").begin_array().begin_object().field("index", call);
        w.key("function").begin_object().field("arguments", event.text).end_object().end_object().end_array();
      });
      break;
    case Kind::kMessage: {
      // A preamble and the answer are one content, with a blank line between.
      const bool first = item.text.size() == event.text.size();
      const std::string text = (first && choice.has_content ? "\n\n" : "") + event.text;
      choice.has_content = choice.has_content || !event.text.empty();
      chunk(
          index, [&](JsonWriter& w) { w.field("content", text); }, event.scores);
    }
  }
}

void ChatAnswer::end_stream(const ChatEnd& end, const std::vector<OutputReader>& readers) {
  begin_stream();
  for (std::size_t i = 0; i < readers.size(); ++i) {
    chunk(
        static_cast<int>(i), [](JsonWriter&) {}, {}, chat_finish_reason(end.reasons[i], readers[i]));
  }
  if (request.include_usage) {
    JsonWriter w;
    head(w, "chat.completion.chunk");
    w.key("choices").begin_array().end_array().key("usage");
    write_usage(w, end.usage);
    w.end_object();
    responder->event(w.str());
  }
  responder->event("[DONE]");
  responder->end();
}

void ChatAnswer::message(JsonWriter& w, const OutputReader& reader) const {
  std::string content, reasoning;
  bool has_content = false, has_calls = false;
  for (const OutputItem& item : reader.items()) {
    has_calls = has_calls || item.kind == Kind::kToolCall;
    if (item.kind == Kind::kReasoning) reasoning += (reasoning.empty() ? "" : "\n\n") + item.text;
    if (item.kind != Kind::kMessage || item.text.empty()) continue;
    if (has_content) content += "\n\n";
    content += item.text;
    has_content = true;
  }
  // An answer that ended without a word is an empty text, not none: only a call has no content.
  const bool answered =
      has_content || (!has_calls && !reader.items().empty() && reader.items().back().kind == Kind::kMessage);
  w.begin_object().field("role", "assistant").key("content");
  if (answered) w.value(content);
  else w.null();
  w.key("refusal").null();
  if (request.include_reasoning && !reasoning.empty())
    w.field("reasoning", reasoning).field("reasoning_content", reasoning);
  if (has_calls) {
    w.key("tool_calls").begin_array();
    for (const OutputItem& item : reader.items()) {
      if (item.kind != Kind::kToolCall) continue;
      w.begin_object().field("id", item.id).field("type", "function");
      w.key("function").begin_object().field("name", item.name).field("arguments", item.text).end_object().end_object();
      if (!request.input.parallel_calls) break;
    }
    w.end_array();
  }
  w.end_object();
}

void ChatAnswer::whole(const ChatEnd& end, const std::vector<OutputReader>& readers) {
  JsonWriter w;
  head(w, "chat.completion");
  w.key("choices").begin_array();
  for (std::size_t i = 0; i < readers.size(); ++i) {
    w.begin_object().field("index", static_cast<int>(i)).key("message");
    message(w, readers[i]);
    w.key("logprobs");
    if (request.logprobs) {
      std::vector<TokenScore> scores;
      for (const OutputItem& item : readers[i].items())
        scores.insert(scores.end(), item.scores.begin(), item.scores.end());
      w.begin_object().key("content");
      write_scores(w, context.package.tokenizer, scores);
      w.key("refusal").null().end_object();
    } else {
      w.null();
    }
    w.field("finish_reason", chat_finish_reason(end.reasons[i], readers[i])).end_object();
  }
  w.end_array().key("usage");
  write_usage(w, end.usage);
  w.end_object();
  responder->json(200, w.take());
}

void start(const std::shared_ptr<ChatAnswer>& answer, const RequestPtr& http, const CountPtr& count,
           std::vector<std::vector<float>> pixels) {
  ApiContext& context = answer->context;
  const ChatInput& input = answer->request.input;
  const ChatPrompt prompt = make_prompt(context.package.tokenizer, context.prompt_rules(), input);
  ChatCalls calls;
  calls.event = [answer](int choice, const OutputReader& reader, const OutputEvent& event) {
    answer->event(choice, reader, event);
  };
  calls.done = [answer](const ChatEnd& end, const std::vector<OutputReader>& readers) {
    if (end.cancelled()) end_with_error(*answer->responder, stopping_error());
    else if (answer->request.stream) answer->end_stream(end, readers);
    else answer->whole(end, readers);
  };
  calls.failed = [answer](const ApiError& error) { end_with_error(*answer->responder, error); };
  cancel_with(*answer->responder,
              start_chat(context, input, prompt, std::move(pixels), *http, count, std::move(calls)));
}

}  // namespace

void chat_completions(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  const auto work = [&context, responder](const RequestPtr& http, const CountPtr& count, const Failed& failed) {
    auto answer =
        std::make_shared<ChatAnswer>(ChatAnswer{context, responder, {}, new_id("chatcmpl-"), "", unix_time(), {}});
    answer->request = read_chat_request(parse_body(http->body()), param_table("chat"), context.sampling);
    answer->model = check_model(context, answer->request.model);
    with_pictures(
        context, answer->request.input.images, [responder] { return responder->cancelled().load(); },
        [answer, http, count](std::vector<std::vector<float>> pixels) {
          start(answer, http, count, std::move(pixels));
        },
        failed);
  };
  run_counted(context, request, responder, work, [responder](const ApiError& error) { send_error(*responder, error); });
}

void apply_template(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  run_prepared(context, request, responder, [&context, responder](const RequestPtr& http) {
    const ChatRequest chat =
        read_chat_request(parse_body(http->body()), param_table("apply_template"), context.sampling);
    const ChatPrompt prompt = make_prompt(context.package.tokenizer, context.prompt_rules(), chat.input);
    JsonWriter w;
    w.begin_object().field("prompt", context.package.tokenizer.decode_utf8(prompt.ids)).key("tokens").begin_array();
    for (const std::int32_t id : prompt.ids) w.value(static_cast<int>(id));
    w.end_array().end_object();
    responder->json(200, w.take());
  });
}

}  // namespace gov::server
