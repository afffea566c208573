#pragma once
// The body of POST /v1/responses.

#include "server/chat_input.h"
#include "server/response_store.h"

namespace gov::server {

struct ResponseRequest {
  ChatInput input;                       // its messages with the stored conversation before them
  std::size_t instruction_messages = 0;  // in front of input.messages; they are not part of what is stored
  CallNames calls;
  std::string model, previous_response_id;
  bool store = false, background = false, stream = false;
  bool logprobs = false;    // message.output_text.logprobs
  Json echo;                // the members that a response repeats, in order
  std::string input_items;  // an array as JSON
};

// ApiError 400 naming the field; 404 for an unknown previous response. `table` is responses or input_tokens.
ResponseRequest read_response_request(const Json& body, const ParamTable& table, const ops::SamplingParams& defaults,
                                      bool ignore_unknown_tools, ResponseStore& store, const std::string& tenant);

}  // namespace gov::server
