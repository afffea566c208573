// POST /v1/messages and /v1/messages/count_tokens: Anthropic's form.

#include "server/answer_json.h"
#include "server/chat_generation.h"
#include "server/messages_request.h"
#include "server/request_parts.h"
#include "server/routes.h"

namespace gov::server {
namespace {

using Kind = OutputItem::Kind;

struct MessagesAnswer {
  ApiContext& context;
  ResponderPtr responder;
  MessagesRequest request;
  std::string id, model;
  std::int64_t prompt_tokens = 0;  // as counted before; a stream tells it first

  std::vector<int> blocks;  // [items] index of the block that shows it, -1: not shown
  int next_block = 0, calls = 0;

  void event(const OutputReader& reader, const OutputEvent& event);
  void done(const ChatEnd& end, const OutputReader& reader);
  void fail(const ApiError& error);

 private:
  void begin_stream();
  void send(const char* type, const std::function<void(JsonWriter&)>& members);
  void begin_block(const OutputItem& item, int block);
  int show(const OutputItem& item);
  static const char* stop_reason(const ChatEnd& end, const OutputReader& reader);
  static void write_stop(JsonWriter& w, const ChatEnd& end, const OutputReader& reader);
};

void MessagesAnswer::send(const char* type, const std::function<void(JsonWriter&)>& members) {
  JsonWriter w;
  w.begin_object().field("type", type);
  members(w);
  w.end_object();
  responder->event(w.str(), type);
}

void MessagesAnswer::begin_stream() {
  if (responder->started()) return;
  responder->begin_events();
  send("message_start", [&](JsonWriter& w) {
    w.key("message")
        .begin_object()
        .field("id", id)
        .field("type", "message")
        .field("role", "assistant")
        .field("model", model);
    w.key("content").begin_array().end_array().key("stop_reason").null().key("stop_sequence").null();
    w.key("usage")
        .begin_object()
        .field("input_tokens", prompt_tokens)
        .field("output_tokens", 0)
        .end_object()
        .end_object();
  });
}

int MessagesAnswer::show(const OutputItem& item) {
  if (item.kind == Kind::kReasoning && !request.thinking) return -1;
  if (item.kind == Kind::kToolCall && calls++ > 0 && !request.input.parallel_calls) return -1;
  return next_block++;
}

void MessagesAnswer::begin_block(const OutputItem& item, int block) {
  send("content_block_start", [&](JsonWriter& w) {
    w.field("index", block).key("content_block").begin_object();
    switch (item.kind) {
      case Kind::kReasoning: w.field("type", "thinking").field("thinking", "").field("signature", ""); break;
      case Kind::kMessage: w.field("type", "text").field("text", ""); break;
      case Kind::kToolCall:
        w.field("type", "tool_use")
            .field("id", item.id)
            .field("name", item.name)
            .key("input")
            .begin_object()
            .end_object();
        break;
    }
    w.end_object();
  });
}

void MessagesAnswer::event(const OutputReader& reader, const OutputEvent& event) {
  const OutputItem& item = reader.items()[event.item];
  if (event.kind == OutputEvent::Kind::kBegin) blocks.push_back(show(item));
  const int block = blocks[event.item];
  if (!request.stream || block < 0) return;
  begin_stream();
  if (event.kind == OutputEvent::Kind::kBegin) {
    begin_block(item, block);
  } else if (event.kind == OutputEvent::Kind::kEnd) {
    send("content_block_stop", [&](JsonWriter& w) { w.field("index", block); });
  } else if (!event.text.empty()) {
    static constexpr const char* kDeltas[] = {"thinking_delta", "text_delta", "input_json_delta"};
    static constexpr const char* kMembers[] = {"thinking", "text", "partial_json"};
    const int kind = static_cast<int>(item.kind);
    send("content_block_delta", [&](JsonWriter& w) {
      w.field("index", block)
          .key("delta")
          .begin_object()
          .field("type", kDeltas[kind])
          .field(kMembers[kind], event.text)
          .end_object();
    });
  }
}

const char* MessagesAnswer::stop_reason(const ChatEnd& end, const OutputReader& reader) {
  const std::string_view reason = chat_finish_reason(end.reasons.front(), reader);
  if (reason == "length") return "max_tokens";
  if (reason == "tool_calls") return "tool_use";
  return end.stop_matches.front().empty() ? "end_turn" : "stop_sequence";
}

void MessagesAnswer::write_stop(JsonWriter& w, const ChatEnd& end, const OutputReader& reader) {
  w.field("stop_reason", stop_reason(end, reader)).key("stop_sequence");
  if (end.stop_matches.front().empty()) w.null();
  else w.value(end.stop_matches.front());
}

void write_message_usage(JsonWriter& w, const Usage& usage) {
  w.begin_object().field("input_tokens", usage.prompt - usage.cached).field("cache_read_input_tokens", usage.cached);
  w.field("cache_creation_input_tokens", 0).field("output_tokens", usage.completion).end_object();
}

// The input of a call is an object here; arguments cut short have none.
void write_block(JsonWriter& w, const OutputItem& item) {
  w.begin_object();
  switch (item.kind) {
    case Kind::kReasoning: w.field("type", "thinking").field("thinking", item.text).field("signature", ""); break;
    case Kind::kMessage: w.field("type", "text").field("text", item.text); break;
    case Kind::kToolCall: {
      w.field("type", "tool_use").field("id", item.id).field("name", item.name).key("input");
      Json input = Json(Json::Object{});
      try {
        if (Json parsed = Json::parse(item.text); parsed.is_object()) input = std::move(parsed);
      } catch (const Error&) {
      }
      input.write(w);
    }
  }
  w.end_object();
}

void MessagesAnswer::done(const ChatEnd& end, const OutputReader& reader) {
  if (end.cancelled()) {
    fail(stopping_error());
    return;
  }
  if (request.stream) {
    begin_stream();
    send("message_delta", [&](JsonWriter& w) {
      w.key("delta").begin_object();
      write_stop(w, end, reader);
      w.end_object().key("usage");
      write_message_usage(w, end.usage);
    });
    send("message_stop", [](JsonWriter&) {});
    responder->end();
    return;
  }
  JsonWriter w;
  w.begin_object().field("id", id).field("type", "message").field("role", "assistant").field("model", model);
  w.key("content").begin_array();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i] >= 0) write_block(w, reader.items()[i]);
  }
  w.end_array();
  write_stop(w, end, reader);
  w.key("usage");
  write_message_usage(w, end.usage);
  w.end_object();
  responder->json(200, w.take());
}

void MessagesAnswer::fail(const ApiError& error) {
  if (!responder->started()) {
    send_anthropic_error(*responder, error);
    return;
  }
  responder->event(anthropic_error_body(error), "error");
  responder->end();
}

void start(const std::shared_ptr<MessagesAnswer>& answer, const RequestPtr& http, const CountPtr& count,
           std::vector<std::vector<float>> pixels) {
  ApiContext& context = answer->context;
  const ChatInput& input = answer->request.input;
  const ChatPrompt prompt = make_prompt(context.package.tokenizer, context.prompt_rules(), input);
  answer->prompt_tokens = prompt_rows(context, prompt, input.images.size());
  ChatCalls calls;
  calls.event = [answer](int, const OutputReader& reader, const OutputEvent& event) { answer->event(reader, event); };
  calls.done = [answer](const ChatEnd& end, const std::vector<OutputReader>& readers) {
    answer->done(end, readers.front());
  };
  calls.failed = [answer](const ApiError& error) { answer->fail(error); };
  cancel_with(*answer->responder,
              start_chat(context, input, prompt, std::move(pixels), *http, count, std::move(calls)));
}

}  // namespace

void anthropic_messages(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  run_counted(
      context, request, responder,
      [&context, responder](const RequestPtr& http, const CountPtr& count, const Failed& failed) {
        auto answer =
            std::make_shared<MessagesAnswer>(MessagesAnswer{context, responder, {}, new_id("msg_"), "", 0, {}, 0, 0});
        answer->request = read_messages_request(parse_body(http->body()), param_table("messages"), context.sampling);
        answer->model = check_model(context, answer->request.model);
        with_pictures(
            context, answer->request.input.images, [responder] { return responder->cancelled().load(); },
            [answer, http, count](std::vector<std::vector<float>> pixels) {
              start(answer, http, count, std::move(pixels));
            },
            failed);
      },
      [responder](const ApiError& error) { send_anthropic_error(*responder, error); });
}

void count_message_tokens(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  run_prepared(
      context, request, responder,
      [&context, responder](const RequestPtr& http) {
        const MessagesRequest messages =
            read_messages_request(parse_body(http->body()), param_table("count_tokens"), context.sampling);
        JsonWriter w;
        w.begin_object().field("input_tokens", count_tokens(context, messages.input)).end_object();
        responder->json(200, w.take());
      },
      [responder](const ApiError& error) { send_anthropic_error(*responder, error); });
}

}  // namespace gov::server
