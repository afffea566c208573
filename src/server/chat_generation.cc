#include "server/chat_generation.h"

namespace gov::server {
namespace {

class ChatReading {
 public:
  ChatReading(ApiContext& context, const OutputReader::Options& options, int n, CountPtr count, ChatCalls calls)
      : context_(context), count_(std::move(count)), calls_(std::move(calls)) {
    for (int i = 0; i < n; ++i) readers_.emplace_back(options);
  }

  void set_generation(const std::shared_ptr<Generation>& generation) { generation_ = generation; }

  void take(TokenPiece piece) {
    OutputReader& reader = readers_[static_cast<std::size_t>(piece.choice)];
    // A piece without token is text that the engine held back; the readers decode the tokens themselves.
    if (piece.score.token < 0 || reader.stopped() || ended_by_stops_) return;
    events_.clear();
    reader.append(std::move(piece.score), events_);
    deliver(piece.choice);
    if (!reader.stopped()) return;
    ended_by_stops_ = std::all_of(readers_.begin(), readers_.end(), [](const OutputReader& r) { return r.stopped(); });
    if (const auto generation = generation_.lock(); ended_by_stops_ && generation) generation->end();
  }

  void done(RequestResult result) {
    ChatEnd end;
    end.usage = {result.prompt_tokens, result.cached_tokens, result.image_tokens, 0, 0};
    Completion none;  // of a request that was cancelled before it began
    none.finish_reason = FinishReason::kCancelled;
    result.choices.resize(readers_.size(), none);
    for (std::size_t i = 0; i < readers_.size(); ++i) {
      OutputReader& reader = readers_[i];
      const Completion& completion = result.choices[i];
      const bool by_text = reader.stopped();
      events_.clear();
      reader.finish(completion.stop_token, events_);
      deliver(static_cast<int>(i));
      end.reasons.push_back(reader.stopped() ? FinishReason::kStop : completion.finish_reason);
      end.stop_matches.push_back(reader.stop_match());
      end.usage.completion += reader.tokens() + (completion.stop_token >= 0 && !by_text ? 1 : 0);
      end.usage.reasoning += reader.reasoning_tokens();
      const std::span<const std::int32_t> repairs = reader.repairs();
      for (std::size_t k = 0; k < repairs.size(); ++k) context_.counters.repairs[k] += repairs[k];
    }
    if (end.cancelled()) count_->cancelled();
    else count_->succeeded();
    count_usage(context_, end.usage);
    calls_.done(end, readers_);
  }

  void failed(const ApiError& error) {
    count_->failed(error);
    calls_.failed(error);
  }

 private:
  void deliver(int choice) {
    if (!calls_.event) return;
    for (const OutputEvent& event : events_) calls_.event(choice, readers_[static_cast<std::size_t>(choice)], event);
  }

  ApiContext& context_;
  CountPtr count_;
  ChatCalls calls_;
  std::vector<OutputReader> readers_;  // [n]
  std::vector<OutputEvent> events_;
  std::weak_ptr<Generation> generation_;
  bool ended_by_stops_ = false;
};

OutputReader::Options reader_options(const ApiContext& context, const ChatInput& input, const ChatPrompt& prompt) {
  OutputReader::Options options;
  options.tokenizer = &context.package.tokenizer;
  if (prompt.harmony) options.harmony = context.rules.tokens;
  options.tools = prompt.tool_names;
  options.stop = input.generation.stop;
  options.scores = input.generation.logprobs >= 0;
  return options;
}

}  // namespace

std::shared_ptr<Generation> start_chat(ApiContext& context, const ChatInput& input, const ChatPrompt& prompt,
                                       std::vector<std::vector<float>> pixels, const HttpRequest& http,
                                       const CountPtr& count, ChatCalls calls) {
  Request request;
  request.prompt = prompt.ids;
  request.images = std::move(pixels);
  request.options = input.generation;
  request.options.stop.clear();  // they act on the answer's text, which only the reader knows
  if (!input.generation.ignore_eos) {
    std::vector<std::int32_t>& stops = request.options.stop_tokens;
    stops.insert(stops.end(), prompt.stop_tokens.begin(), prompt.stop_tokens.end());
  }
  request.n = input.n;
  request.tenant = http.tenant;
  request.cache_salt = http.tenant + '\n' + input.cache_salt;
  request.priority = input.priority;
  if (prompt.rules) {
    request.constraint.emplace(context.package.tokenizer, context.rules.tokens, context.rules.end_ids, *prompt.rules);
  }
  const auto reading =
      std::make_shared<ChatReading>(context, reader_options(context, input, prompt), input.n, count, std::move(calls));
  const auto strand = std::make_shared<Strand>(*context.deliver);
  GenerationCalls raw;
  raw.token = [reading](TokenPiece piece) { reading->take(std::move(piece)); };
  raw.done = [reading](RequestResult result) { reading->done(std::move(result)); };
  raw.failed = [reading](const ApiError& error) { reading->failed(error); };
  const auto generation = std::make_shared<Generation>(http.tenant, http.request_id);
  reading->set_generation(generation);
  generation->submit(context, std::move(request), strand, std::move(raw));
  return generation;
}

std::int64_t prompt_rows(const ApiContext& context, const ChatPrompt& prompt, std::size_t images) {
  const Config& config = context.package.model.config;
  const std::int64_t places =
      std::count(prompt.ids.begin(), prompt.ids.end(), static_cast<std::int32_t>(config.image_token_id));
  const std::int64_t rows = images > 0 ? static_cast<std::int64_t>(images) * config.vision.tokens() : 0;
  return static_cast<std::int64_t>(prompt.ids.size()) - places + rows;
}

std::int64_t count_tokens(ApiContext& context, const ChatInput& input) {
  return prompt_rows(context, make_prompt(context.package.tokenizer, context.prompt_rules(), input),
                     input.images.size());
}

}  // namespace gov::server
