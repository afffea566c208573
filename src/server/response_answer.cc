#include "server/response_answer.h"

#include "server/answer_json.h"

namespace gov::server {
namespace {

using Kind = OutputItem::Kind;

const char* prefix_of(Kind kind) { return kind == Kind::kReasoning ? "rs_" : kind == Kind::kMessage ? "msg_" : "fc_"; }

void write_response_usage(JsonWriter& w, const Usage& usage) {
  w.begin_object().field("input_tokens", usage.prompt);
  w.key("input_tokens_details").begin_object().field("cached_tokens", usage.cached).field("cache_write_tokens", 0);
  w.field("image_tokens", usage.image).end_object();
  w.field("output_tokens", usage.completion);
  w.key("output_tokens_details").begin_object().field("reasoning_tokens", usage.reasoning).end_object();
  w.field("total_tokens", usage.prompt + usage.completion).end_object();
}

}  // namespace

ResponseAnswer::ResponseAnswer(ApiContext& context, ResponderPtr responder, ResponseRequest request,
                               const HttpRequest& http, CountPtr count)
    : context_(context),
      responder_(std::move(responder)),
      count_(std::move(count)),
      request_(std::move(request)),
      tenant_(http.tenant),
      id_(new_id("resp_")),
      model_(check_model(context, request_.model)) {
  http_.tenant = http.tenant;
  http_.request_id = http.request_id;
}

bool ResponseAnswer::watched() const { return request_.stream && !responder_->cancelled(); }

void ResponseAnswer::start() {
  const auto self = shared_from_this();
  if (request_.background) {
    std::string text = body(Status::kQueued, nullptr, nullptr, nullptr);
    context_.responses->put(stored(text, true));
    if (!request_.stream) responder_->json(200, std::move(text));
  }
  const auto cancelled = [self] {
    return self->request_.background ? self->cancel_->wanted() : self->responder_->cancelled().load();
  };
  const auto guarded = [self](std::vector<std::vector<float>> pixels) {
    try {
      self->generate(std::move(pixels));
    } catch (...) {
      self->failed(to_api_error(std::current_exception()));
    }
  };
  try {
    with_pictures(context_, request_.input.images, cancelled, guarded,
                  [self](const ApiError& error) { self->failed(error); });
  } catch (...) {
    failed(to_api_error(std::current_exception()));
  }
}

void ResponseAnswer::generate(std::vector<std::vector<float>> pixels) {
  const ChatPrompt prompt = make_prompt(context_.package.tokenizer, context_.prompt_rules(), request_.input);
  harmony_ = prompt.harmony;
  // Before the generation begins: where there is no room for it, nothing runs on.
  if (request_.background) {
    context_.responses->start(stored(body(Status::kInProgress, nullptr, nullptr, nullptr), true));
  }
  const auto self = shared_from_this();
  ChatCalls calls;
  calls.event = [self](int, const OutputReader& reader, const OutputEvent& event) { self->event(reader, event); };
  calls.done = [self](const ChatEnd& end, const std::vector<OutputReader>& readers) {
    self->done(end, readers.front());
  };
  calls.failed = [self](const ApiError& error) { self->failed(error); };
  const auto generation =
      start_chat(context_, request_.input, prompt, std::move(pixels), http_, count_, std::move(calls));
  if (request_.background) cancel_->set(generation);
  else cancel_with(*responder_, generation);
}

void ResponseAnswer::send(const char* type, const std::function<void(JsonWriter&)>& members) {
  JsonWriter w;
  w.begin_object().field("type", type).field("sequence_number", sequence_++);
  members(w);
  w.end_object();
  responder_->event(w.str(), type);
}

// With the first token: what is wrong with the request itself is still answered with a status.
void ResponseAnswer::begin_stream() {
  if (responder_->started()) return;
  responder_->begin_events();
  const std::string text = body(Status::kInProgress, nullptr, nullptr, nullptr);
  send("response.created", [&](JsonWriter& w) { w.key("response").raw(text); });
  send("response.in_progress", [&](JsonWriter& w) { w.key("response").raw(text); });
}

void ResponseAnswer::event(const OutputReader& reader, const OutputEvent& event) {
  const OutputItem& item = reader.items()[event.item];
  if (event.kind == OutputEvent::Kind::kBegin) {
    Shown shown{new_id(prefix_of(item.kind)), -1};
    const bool one_call_too_many = item.kind == Kind::kToolCall && calls_ > 0 && !request_.input.parallel_calls;
    if (!one_call_too_many) shown.index = next_index_++;
    calls_ += item.kind == Kind::kToolCall;
    shown_.push_back(std::move(shown));
  }
  const Shown& shown = shown_[event.item];
  if (!watched() || shown.index < 0) return;
  begin_stream();
  switch (event.kind) {
    case OutputEvent::Kind::kBegin: begin_item(item, shown); break;
    case OutputEvent::Kind::kText: item_text(item, shown, event); break;
    case OutputEvent::Kind::kEnd: end_item(item, shown); break;
  }
}

void ResponseAnswer::begin_item(const OutputItem& item, const Shown& shown) {
  send("response.output_item.added", [&](JsonWriter& w) {
    w.field("output_index", shown.index).key("item");
    write_item(w, item, shown, false, "in_progress");
  });
  if (item.kind == Kind::kToolCall) return;
  send("response.content_part.added", [&](JsonWriter& w) {
    w.field("item_id", shown.id).field("output_index", shown.index).field("content_index", 0).key("part");
    write_part(w, item, false);
  });
}

void ResponseAnswer::item_text(const OutputItem& item, const Shown& shown, const OutputEvent& event) {
  static constexpr const char* kTypes[] = {"response.reasoning_text.delta", "response.output_text.delta",
                                           "response.function_call_arguments.delta"};
  send(kTypes[static_cast<int>(item.kind)], [&](JsonWriter& w) {
    w.field("item_id", shown.id).field("output_index", shown.index);
    if (item.kind != Kind::kToolCall) w.field("content_index", 0);
    w.field("delta", event.text);
    if (item.kind != Kind::kMessage) return;
    w.key("logprobs");
    write_scores(w, context_.package.tokenizer, event.scores);
  });
}

void ResponseAnswer::end_item(const OutputItem& item, const Shown& shown) {
  if (item.kind == Kind::kToolCall) {
    send("response.function_call_arguments.done", [&](JsonWriter& w) {
      w.field("item_id", shown.id)
          .field("output_index", shown.index)
          .field("name", item.name)
          .field("arguments", item.text);
    });
  } else {
    send(item.kind == Kind::kReasoning ? "response.reasoning_text.done" : "response.output_text.done",
         [&](JsonWriter& w) {
           w.field("item_id", shown.id)
               .field("output_index", shown.index)
               .field("content_index", 0)
               .field("text", item.text);
           if (item.kind != Kind::kMessage) return;
           w.key("logprobs");
           write_scores(w, context_.package.tokenizer, item.scores);
         });
    send("response.content_part.done", [&](JsonWriter& w) {
      w.field("item_id", shown.id).field("output_index", shown.index).field("content_index", 0).key("part");
      write_part(w, item, true);
    });
  }
  send("response.output_item.done", [&](JsonWriter& w) {
    w.field("output_index", shown.index).key("item");
    write_item(w, item, shown, true, item.complete ? "completed" : "incomplete");
  });
}

void ResponseAnswer::write_part(JsonWriter& w, const OutputItem& item, bool whole) const {
  w.begin_object();
  if (item.kind == Kind::kReasoning) {
    w.field("type", "reasoning_text").field("text", whole ? item.text : "");
  } else {
    w.field("type", "output_text").field("text", whole ? item.text : "").key("annotations").begin_array().end_array();
    w.key("logprobs");
    write_scores(w, context_.package.tokenizer, whole ? item.scores : std::vector<TokenScore>());
  }
  w.end_object();
}

void ResponseAnswer::write_item(JsonWriter& w, const OutputItem& item, const Shown& shown, bool whole,
                                const char* status) const {
  w.begin_object().field("id", shown.id);
  switch (item.kind) {
    case Kind::kReasoning: w.field("type", "reasoning").key("summary").begin_array().end_array(); break;
    case Kind::kMessage:
      w.field("type", "message").field("role", "assistant");
      if (harmony_) w.field("phase", item.preamble ? "commentary" : "final_answer");
      break;
    case Kind::kToolCall:
      w.field("type", "function_call").field("call_id", item.id).field("name", item.name);
      w.field("arguments", whole ? item.text : "");
      break;
  }
  w.field("status", status);
  if (item.kind != Kind::kToolCall) {
    w.key("content").begin_array();
    if (whole) write_part(w, item, true);
    w.end_array();
  }
  w.end_object();
}

std::string ResponseAnswer::body(Status status, const OutputReader* reader, const Usage* usage,
                                 const ApiError* error) const {
  static constexpr const char* kNames[] = {"queued", "in_progress", "completed", "incomplete", "failed", "cancelled"};
  JsonWriter w;
  w.begin_object().field("id", id_).field("object", "response").field("created_at", created_);
  w.field("status", kNames[static_cast<int>(status)]).field("model", model_);
  w.key("completed_at");
  if (status == Status::kCompleted) w.value(unix_time());
  else w.null();
  w.key("error");
  if (error) {
    w.begin_object().field("code", error->status == 429  ? "rate_limit_exceeded"
                                   : error->status < 500 ? "invalid_prompt"
                                                         : "server_error");
    w.field("message", error->message).end_object();
  } else {
    w.null();
  }
  w.key("incomplete_details");
  if (status == Status::kIncomplete) w.begin_object().field("reason", "max_output_tokens").end_object();
  else w.null();
  w.key("output").begin_array();
  for (std::size_t i = 0; reader && i < shown_.size(); ++i) {
    const OutputItem& item = reader->items()[i];
    if (shown_[i].index >= 0) write_item(w, item, shown_[i], true, item.complete ? "completed" : "incomplete");
  }
  w.end_array();
  for (const auto& [name, value] : request_.echo.object()) {
    w.key(name);
    value.write(w);
  }
  w.key("usage");
  if (usage) write_response_usage(w, *usage);
  else w.null();
  return w.end_object().take();
}

StoredResponse ResponseAnswer::stored(std::string text, bool running) const {
  StoredResponse response;
  response.id = id_;
  response.tenant = tenant_;
  response.body = std::move(text);
  response.input_items = request_.input_items;
  response.running = running;
  if (running) {
    response.cancel = cancel_;
    return response;
  }
  const std::vector<HarmonyMessage>& messages = request_.input.messages;
  response.messages.assign(messages.begin() + static_cast<std::ptrdiff_t>(request_.instruction_messages),
                           messages.end());
  response.messages.insert(response.messages.end(), answer_.begin(), answer_.end());
  response.images = request_.input.images;
  response.calls = request_.calls;
  return response;
}

void ResponseAnswer::done(const ChatEnd& end, const OutputReader& reader) {
  for (std::size_t i = 0; i < shown_.size(); ++i) {
    const OutputItem& item = reader.items()[i];
    if (shown_[i].index < 0) continue;
    if (item.kind == Kind::kToolCall) request_.calls.add(item.id, item.name);
    answer_.push_back(item.message);
  }
  Status status = Status::kCompleted;
  if (end.cancelled()) status = Status::kCancelled;
  else if (end.reasons.front() == FinishReason::kLength) status = Status::kIncomplete;
  if (status == Status::kCancelled && !request_.background) {
    failed(stopping_error());
    return;
  }
  finish(status, &reader, &end.usage, nullptr);
}

void ResponseAnswer::failed(const ApiError& error) {
  count_->failed(error);
  if (request_.background && cancel_->wanted()) finish(Status::kCancelled, nullptr, nullptr, nullptr);
  else if (request_.background || responder_->started()) finish(Status::kFailed, nullptr, nullptr, &error);
  else send_error(*responder_, error);
}

void ResponseAnswer::finish(Status status, const OutputReader* reader, const Usage* usage, const ApiError* error) {
  if (ended_.exchange(true)) return;  // an answer that failed as its generation began may get the end of that, too
  std::string text = body(status, reader, usage, error);
  if (request_.store) {
    try {
      if (request_.background) context_.responses->update(stored(text, false));
      else context_.responses->put(stored(text, false));
    } catch (...) {
      // Too large to be kept: the answer itself is still good, a later GET says that it is not there.
    }
  }
  if (!request_.stream) {
    if (!request_.background) responder_->json(200, std::move(text));
    return;
  }
  if (!watched()) return;
  begin_stream();
  static constexpr const char* kTypes[] = {
      "", "", "response.completed", "response.incomplete", "response.failed", "response.failed"};
  send(kTypes[static_cast<int>(status)], [&](JsonWriter& w) { w.key("response").raw(text); });
  responder_->end();
}

}  // namespace gov::server
