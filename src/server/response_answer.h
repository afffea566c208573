#pragma once
// The answer of POST /v1/responses: the response object, its items and, in a stream, its events.

#include <mutex>

#include "server/chat_generation.h"
#include "server/response_request.h"

namespace gov::server {

class ResponseAnswer : public std::enable_shared_from_this<ResponseAnswer> {
 public:
  ResponseAnswer(ApiContext& context, ResponderPtr responder, ResponseRequest request, const HttpRequest& http,
                 CountPtr count);

  // Loads the pictures, then generates; a background answer is stored and told to the client first.
  void start();

 private:
  enum class Status { kQueued, kInProgress, kCompleted, kIncomplete, kFailed, kCancelled };
  // Items as they are shown: reasoning, messages and calls, without calls that were not asked for.
  struct Shown {
    std::string id;
    int index = -1;  // among the shown; -1: not shown
  };

  void generate(std::vector<std::vector<float>> pixels);
  void event(const OutputReader& reader, const OutputEvent& event);
  void begin_item(const OutputItem& item, const Shown& shown);
  void item_text(const OutputItem& item, const Shown& shown, const OutputEvent& event);
  void end_item(const OutputItem& item, const Shown& shown);
  void done(const ChatEnd& end, const OutputReader& reader);
  void failed(const ApiError& error);
  void finish(Status status, const OutputReader* reader, const Usage* usage, const ApiError* error);

  void begin_stream();
  // An event with its type and number; `members` writes the rest.
  void send(const char* type, const std::function<void(JsonWriter&)>& members);
  void write_item(JsonWriter& w, const OutputItem& item, const Shown& shown, bool whole, const char* status) const;
  void write_part(JsonWriter& w, const OutputItem& item, bool whole) const;
  std::string body(Status status, const OutputReader* reader, const Usage* usage, const ApiError* error) const;
  StoredResponse stored(std::string body, bool running) const;
  bool watched() const;  // somebody reads the stream

  ApiContext& context_;
  ResponderPtr responder_;
  CountPtr count_;
  ResponseRequest request_;
  std::string tenant_, id_, model_;
  HttpRequest http_;  // without its body
  std::int64_t created_ = unix_time();
  std::atomic<bool> ended_ = false;
  bool harmony_ = false;
  std::vector<Shown> shown_;  // [items]
  int next_index_ = 0, calls_ = 0;
  std::int64_t sequence_ = 0;
  std::shared_ptr<CancelHandle> cancel_ = std::make_shared<CancelHandle>();
  std::vector<HarmonyMessage> answer_;  // what the next turn's prompt has of it
};

}  // namespace gov::server
