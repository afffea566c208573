#pragma once
// The body of POST /v1/messages, Anthropic's form.

#include "server/chat_input.h"

namespace gov::server {

struct MessagesRequest {
  ChatInput input;
  std::string model;
  bool stream = false;
  bool thinking = false;  // reasoning is shown
};

// ApiError 400 naming the field. `table` is messages or count_tokens.
MessagesRequest read_messages_request(const Json& body, const ParamTable& table, const ops::SamplingParams& defaults);

}  // namespace gov::server
