#pragma once
// Several raw prompts of one request (completions, embeddings): how they are read, and their way through the engine, a
// few at a time, side by side.

#include "server/generation.h"

namespace gov::server {

using Prompt = std::vector<std::int32_t>;

inline constexpr std::size_t kMostPrompts = 2048;  // of one request

// A text, token ids, or a list of either. ApiError 400 naming `field`: ids without a token, empty prompts, too many.
std::vector<Prompt> read_prompts(const Json& value, std::string_view field, SpecialTokens special,
                                 const Tokenizer& tokenizer);

class PromptBatch : public std::enable_shared_from_this<PromptBatch> {
 public:
  // All on the batch's strand. What any of them throws goes to failed; after that, or all_done, nothing more comes.
  struct Calls {
    std::function<Request(std::size_t prompt)> request;               // tenant and priority are the batch's to set
    std::function<void(std::size_t prompt, TokenPiece piece)> token;  // may be empty
    std::function<void(std::size_t prompt, RequestResult result)> done;
    std::function<void()> all_done;
    std::function<void(const ApiError& error)> failed;
  };

  PromptBatch(ApiContext& context, ResponderPtr responder, CountPtr count, const HttpRequest& http,
              std::size_t prompts);
  void start(Calls calls);

 private:
  void submit_more();
  bool submit(std::size_t prompt);
  void done(std::size_t prompt, RequestResult result);
  void failed(const ApiError& error);

  ApiContext& context_;
  ResponderPtr responder_;
  CountPtr count_;
  const std::string tenant_, request_id_;
  const std::size_t prompts_;
  std::shared_ptr<Strand> strand_;
  Calls calls_;
  std::size_t next_ = 0, finished_ = 0;  // prompts submitted, and done
  std::vector<std::weak_ptr<Generation>> running_;
  Timer waiting_;  // since the engine had room for the last one
  bool ended_ = false;
};

}  // namespace gov::server
