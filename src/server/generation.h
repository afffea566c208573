#pragma once
// One request to the engine and the way of its tokens: the engine's thread hands them to a strand of the delivery
// workers, where the writers of answers are called.

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/api_error.h"
#include "server/context.h"
#include "server/output.h"
#include "server/workers.h"

namespace gov::server {

struct Usage {
  std::int64_t prompt = 0, cached = 0, image = 0;
  std::int64_t completion = 0, reasoning = 0;
};

// A token on its way.
struct TokenPiece {
  int choice = 0;
  std::string text;  // as the engine decodes it
  TokenScore score;  // with its id; the rest with logprobs
};

// Called on the strand, one call at a time; after done or failed nothing more comes. What token or done throws ends the
// generation and goes to failed.
struct GenerationCalls {
  std::function<void(TokenPiece piece)> token;  // may be empty
  std::function<void(RequestResult result)> done;
  std::function<void(const ApiError& error)> failed;
};

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  Generation(std::string tenant, std::string request_id)
      : tenant_(std::move(tenant)), request_id_(std::move(request_id)) {}

  // Once; throws what the loop throws, kUnavailable once the server stops. `request` comes without callbacks and cancel
  // word. strand: of this request's answer.
  void submit(ApiContext& context, Request request, const std::shared_ptr<Strand>& strand, GenerationCalls calls);

  // Any thread; the engine ends it within one step.
  void cancel();                  // its client has gone or asks for it: how long that takes is counted
  void end() { cancel_ = true; }  // the answer needs no more of it

  // For /slots.
  const std::string& tenant() const { return tenant_; }
  const std::string& request_id() const { return request_id_; }
  std::int64_t prompt_tokens() const { return prompt_tokens_; }
  std::int64_t generated() const { return generated_; }
  double seconds() const { return timer_.seconds(); }

 private:
  // On the strand: makes one of the calls, and the last one if that throws.
  void call(GenerationCalls& calls, const std::function<void()>& one);

  std::string tenant_, request_id_;
  std::atomic<bool> cancel_ = false;
  std::atomic<double> cancelled_at_ = -1;  // seconds of timer_
  std::atomic<std::int64_t> generated_ = 0;
  std::int64_t prompt_tokens_ = 0;
  Timer timer_;
};

// Adds the tokens of a finished request to the counters.
void count_usage(ApiContext& context, const Usage& usage);

// The generation ends when the client goes.
void cancel_with(Responder& responder, const std::shared_ptr<Generation>& generation);
// To a client that is still there when its generation was cancelled.
ApiError stopping_error();

}  // namespace gov::server
