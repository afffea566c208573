#include "server/prompt_batch.h"

#include <algorithm>
#include <thread>

namespace gov::server {
namespace {

constexpr std::size_t kSideBySide = 64;
constexpr double kPatience = 0.2;  // seconds for the engine to let go of the prompt before

Prompt read_ids(const Json::Array& items, std::string_view field, const Tokenizer& tokenizer) {
  Prompt ids;
  ids.reserve(items.size());
  for (const Json& item : items) {
    // Ids that the tokenizer has no token for have rows in the model, but no text.
    const bool known = item.is_integer() && item.integer() >= 0 && item.integer() < tokenizer.vocab_size() &&
                       tokenizer.has_token(static_cast<std::int32_t>(item.integer()));
    if (!known) bad_field(field, "{} is not a token id", printable(item.dump(), 40));
    ids.push_back(static_cast<std::int32_t>(item.integer()));
  }
  return ids;
}

}  // namespace

std::vector<Prompt> read_prompts(const Json& value, std::string_view field, SpecialTokens special,
                                 const Tokenizer& tokenizer) {
  std::vector<Prompt> prompts;
  if (value.is_string()) {
    prompts.push_back(tokenizer.encode(value.string(), special));
  } else if (!value.array().empty() && value.array().front().is_number()) {
    prompts.push_back(read_ids(value.array(), field, tokenizer));
  } else {
    if (value.array().size() > kMostPrompts) bad_field(field, "at most {} texts in one request", kMostPrompts);
    for (const Json& item : value.array()) {
      if (item.is_string()) prompts.push_back(tokenizer.encode(item.string(), special));
      else if (item.is_array()) prompts.push_back(read_ids(item.array(), field, tokenizer));
      else bad_field(field, "expected texts or lists of token ids, but got {}", item.kind_name());
    }
  }
  const bool empty = std::any_of(prompts.begin(), prompts.end(), [](const Prompt& ids) { return ids.empty(); });
  if (prompts.empty() || empty) bad_field(field, "{}", prompts.empty() ? "is empty" : "has an empty text");
  return prompts;
}

PromptBatch::PromptBatch(ApiContext& context, ResponderPtr responder, CountPtr count, const HttpRequest& http,
                         std::size_t prompts)
    : context_(context),
      responder_(std::move(responder)),
      count_(std::move(count)),
      tenant_(http.tenant),
      request_id_(http.request_id),
      prompts_(prompts),
      strand_(std::make_shared<Strand>(*context.deliver)) {}

void PromptBatch::start(Calls calls) {
  calls_ = std::move(calls);
  strand_->post([self = shared_from_this()] { self->submit_more(); });
}

void PromptBatch::submit_more() {
  try {
    while (!ended_ && next_ < prompts_ && next_ - finished_ < kSideBySide && submit(next_)) ++next_;
  } catch (...) {
    failed(to_api_error(std::current_exception()));
  }
}

// False: the engine's queue is full, but of this request's prompts, or of one that ends just now: later. A request that
// gets no prompt in at all is refused as any other.
bool PromptBatch::submit(std::size_t prompt) {
  Request request = calls_.request(prompt);
  request.tenant = tenant_;
  GenerationCalls calls;
  const auto self = shared_from_this();
  if (calls_.token) {
    calls.token = [self, prompt](TokenPiece piece) {
      if (!self->ended_) self->calls_.token(prompt, std::move(piece));
    };
  }
  calls.done = [self, prompt](RequestResult result) { self->done(prompt, std::move(result)); };
  calls.failed = [self](const ApiError& error) { self->failed(error); };
  const auto generation = std::make_shared<Generation>(tenant_, request_id_);
  try {
    generation->submit(context_, std::move(request), strand_, std::move(calls));
  } catch (const Error& error) {
    const bool others_run = next_ > finished_;
    if (error.code() != ErrorCode::kOverloaded || next_ == 0 || (!others_run && waiting_.seconds() > kPatience)) throw;
    if (!others_run) {
      std::this_thread::yield();
      strand_->post([self] { self->submit_more(); });
    }
    return false;
  }
  running_.push_back(generation);
  cancel_with(*responder_, generation);
  return true;
}

void PromptBatch::done(std::size_t prompt, RequestResult result) {
  if (ended_) return;
  const auto cancelled = [](const Completion& c) { return c.finish_reason == FinishReason::kCancelled; };
  const bool embedded = !result.embedding.empty();
  if (std::any_of(result.choices.begin(), result.choices.end(), cancelled) || (result.choices.empty() && !embedded)) {
    failed(stopping_error());
    return;
  }
  calls_.done(prompt, std::move(result));
  ++finished_;
  waiting_ = {};
  if (finished_ < prompts_) {
    submit_more();
    return;
  }
  count_->succeeded();
  calls_.all_done();
  ended_ = true;
  calls_ = {};  // what they hold may hold this batch
}

void PromptBatch::failed(const ApiError& error) {
  if (ended_) return;
  ended_ = true;
  if (responder_->cancelled()) count_->cancelled();
  else count_->failed(error);
  for (const auto& weak : running_) {
    if (const auto generation = weak.lock()) generation->end();
  }
  const Calls last = std::exchange(calls_, {});
  last.failed(error);
}

}  // namespace gov::server
