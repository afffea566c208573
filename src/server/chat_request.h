#pragma once
// The body of POST /v1/chat/completions.

#include "server/chat_input.h"

namespace gov::server {

struct ChatRequest {
  ChatInput input;
  std::string model;
  bool stream = false, include_usage = false;
  bool include_reasoning = true;
  bool logprobs = false;
};

// ApiError 400 naming the field.
ChatRequest read_chat_request(const Json& body, const ParamTable& table, const ops::SamplingParams& defaults);

}  // namespace gov::server
