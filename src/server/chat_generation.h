#pragma once
// The answer to a conversation: a generation whose tokens are read into items (output.h).

#include <algorithm>

#include "server/generation.h"

namespace gov::server {

struct ChatEnd {
  std::vector<FinishReason> reasons;      // [n]
  std::vector<std::string> stop_matches;  // [n], "" if it ended by something else
  Usage usage;
  // By the client or the server, before it was complete.
  bool cancelled() const {
    return std::find(reasons.begin(), reasons.end(), FinishReason::kCancelled) != reasons.end();
  }
};

// As GenerationCalls.
struct ChatCalls {
  std::function<void(int choice, const OutputReader& reader, const OutputEvent& event)> event;  // may be empty
  std::function<void(const ChatEnd& end, const std::vector<OutputReader>& readers)> done;
  std::function<void(const ApiError& error)> failed;
};

// Starts the answer, its pictures loaded: what is enforced becomes the request's constraint.
std::shared_ptr<Generation> start_chat(ApiContext& context, const ChatInput& input, const ChatPrompt& prompt,
                                       std::vector<std::vector<float>> pixels, const HttpRequest& http,
                                       const CountPtr& count, ChatCalls calls);

// Tokens of a prompt, rows of pictures included.
std::int64_t prompt_rows(const ApiContext& context, const ChatPrompt& prompt, std::size_t images);
std::int64_t count_tokens(ApiContext& context, const ChatInput& input);

}  // namespace gov::server
