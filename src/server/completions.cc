// POST /v1/completions: raw prompts as texts or token ids, several at once, with echo and log-probabilities of the
// prompt as evaluation harnesses need them.

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/utf8.h"
#include "server/answer_json.h"
#include "server/prompt_batch.h"
#include "server/request_parts.h"
#include "server/routes.h"

namespace gov::server {
namespace {

struct CompletionRequest {
  std::vector<Prompt> prompts;
  GenerationOptions options;  // the engine seeks the stop strings: in all the text
  std::string model, cache_salt;
  int n = 1, priority = 0;
  bool echo = false, stream = false, include_usage = false;
};

CompletionRequest read_request(const Json& body, const ApiContext& context) {
  const Fields fields(param_table("completions"), body);
  CompletionRequest request;
  request.options = read_sampling(fields, context.sampling);
  request.options.max_new_tokens = fields.integer("max_tokens");
  if (request.options.min_new_tokens > request.options.max_new_tokens)
    bad_field("min_tokens", "must be at most max_tokens");
  request.echo = fields.flag("echo");
  if (request.options.max_new_tokens == 0 && !request.echo) bad_field("max_tokens", "0 only with echo");
  if (fields.has("logprobs")) {
    request.options.logprobs = static_cast<int>(fields.integer("logprobs"));
    if (request.echo) request.options.prompt_logprobs = request.options.logprobs;
  }
  request.model = fields.text("model");
  request.cache_salt = fields.text("cache_salt");
  request.priority = read_priority(fields);
  request.n = static_cast<int>(fields.integer("n"));
  request.stream = fields.flag("stream");
  request.include_usage = read_include_usage(fields);
  if (request.stream && request.options.prompt_logprobs >= 0) bad_field("echo", "with logprobs not in a stream");
  // The token after a scored prompt has its log-probability too when it is an end token.
  if (request.options.prompt_logprobs >= 0 && request.options.max_new_tokens == 1) request.options.ignore_eos = true;
  const SpecialTokens special = fields.flag("parse_special") ? SpecialTokens::kAllow : SpecialTokens::kOrdinary;
  request.prompts = read_prompts(*fields.get("prompt"), "prompt", special, context.package.tokenizer);
  if (request.prompts.size() * static_cast<std::size_t>(request.n) > kMostPrompts) {
    bad_field("n", "at most {} completions in one request", kMostPrompts);
  }
  return request;
}

// How a token is named in `tokens` and `top_logprobs`: its text, or "bytes:\xNN..." if it is not UTF-8.
std::string token_name(const Tokenizer& tokenizer, std::int32_t token) {
  if (!tokenizer.has_token(token)) return fmt::format("token:{}", token);
  const std::string_view bytes = tokenizer.token_bytes(token);
  if (utf8_valid(bytes)) return std::string(bytes);
  std::string name = "bytes:";
  for (const char byte : bytes)
    name += fmt::format("\\x{:02x}", static_cast<unsigned>(static_cast<unsigned char>(byte)));
  return name;
}

std::size_t characters(std::string_view text) {
  std::size_t count = 0;
  for (; !text.empty(); ++count) text.remove_prefix(utf8_next(text).length);
  return count;
}

// The four lists of OpenAI's legacy log-probabilities.
class LogprobLists {
 public:
  explicit LogprobLists(const Tokenizer& tokenizer) : tokenizer_(&tokenizer), decoder_(tokenizer, false) {}

  // NaN: the first token of a prompt, which nothing predicts.
  void add(std::int32_t token, float logprob, std::span<const TokenLogprob> top) {
    rows_.push_back({token, logprob, {top.begin(), top.end()}, offset_});
    offset_ += tokenizer_->has_token(token) ? characters(decoder_.append(token)) : 0;
  }

  void clear() { rows_.clear(); }  // the next token's offset stays

  void write(JsonWriter& w) const {
    w.begin_object();
    w.key("tokens").begin_array();
    for (const Row& row : rows_) w.value(token_name(*tokenizer_, row.token));
    w.end_array().key("token_logprobs").begin_array();
    for (const Row& row : rows_) w.value(finite(row.logprob));
    w.end_array().key("top_logprobs").begin_array();
    for (const Row& row : rows_) write_top(w, row);
    w.end_array().key("text_offset").begin_array();
    for (const Row& row : rows_) w.value(static_cast<std::int64_t>(row.offset));
    w.end_array().end_object();
  }

 private:
  struct Row {
    std::int32_t token;
    float logprob;
    std::vector<TokenLogprob> top;
    std::size_t offset;
  };

  // null for NaN; JSON has no infinity.
  static double finite(float x) { return std::isinf(x) ? -9999.0 : static_cast<double>(x); }

  // The likeliest and always the token itself; of two with one name the likelier stays.
  void write_top(JsonWriter& w, const Row& row) const {
    if (std::isnan(row.logprob)) {
      w.null();
      return;
    }
    std::vector<std::pair<std::string, float>> names;
    const auto put = [&](std::int32_t token, float logprob) {
      std::string name = token_name(*tokenizer_, token);
      const auto it = std::find_if(names.begin(), names.end(), [&](const auto& n) { return n.first == name; });
      if (it == names.end()) names.emplace_back(std::move(name), logprob);
      else it->second = std::max(it->second, logprob);
    };
    for (const TokenLogprob& top : row.top) put(top.token, top.logprob);
    put(row.token, row.logprob);
    w.begin_object();
    for (const auto& [name, logprob] : names) w.field(name, finite(logprob));
    w.end_object();
  }

  const Tokenizer* tokenizer_;
  StreamDecoder decoder_;
  std::size_t offset_ = 0;  // characters before the next token
  std::vector<Row> rows_;
};

// Everything but the beginning runs on the batch's strand.
class CompletionAnswer : public std::enable_shared_from_this<CompletionAnswer> {
 public:
  CompletionAnswer(ApiContext& context, ResponderPtr responder, CompletionRequest request)
      : context_(context),
        responder_(std::move(responder)),
        request_(std::move(request)),
        id_(new_id("cmpl-")),
        model_(check_model(context, request_.model)),
        results_(request_.prompts.size()) {}

  void start(const HttpRequest& http, const CountPtr& count);

 private:
  const Tokenizer& tokenizer() const { return context_.package.tokenizer; }
  Request engine_request(std::size_t prompt) const;
  void token(std::size_t prompt, TokenPiece piece);
  void begin_choice(int index, std::size_t prompt);
  void done(std::size_t prompt, RequestResult result);
  void finish();
  std::string chunk(int index, std::string_view text, const LogprobLists* lists, const char* reason) const;
  void write_choice(JsonWriter& w, int index, std::size_t prompt, const Completion& choice) const;
  Usage usage() const;
  void head(JsonWriter& w) const {
    w.begin_object()
        .field("id", id_)
        .field("object", "text_completion")
        .field("created", created_)
        .field("model", model_);
    w.field("system_fingerprint", context_.fingerprint);
  }

  ApiContext& context_;
  ResponderPtr responder_;
  CompletionRequest request_;
  std::string id_, model_;
  std::int64_t created_ = unix_time();
  std::vector<RequestResult> results_;  // [prompts]
  std::vector<LogprobLists> lists_;     // of a stream: [prompts * n], to count the offsets
  std::set<int> begun_;                 // choices of a stream
};

void CompletionAnswer::start(const HttpRequest& http, const CountPtr& count) {
  if (request_.stream)
    lists_.resize(request_.prompts.size() * static_cast<std::size_t>(request_.n), LogprobLists(tokenizer()));
  const auto self = shared_from_this();
  PromptBatch::Calls calls;
  calls.request = [self, tenant = http.tenant](std::size_t prompt) {
    Request request = self->engine_request(prompt);
    request.cache_salt = tenant + '\n' + self->request_.cache_salt;
    return request;
  };
  if (request_.stream) {
    calls.token = [self](std::size_t prompt, TokenPiece piece) { self->token(prompt, std::move(piece)); };
  }
  calls.done = [self](std::size_t prompt, RequestResult result) { self->done(prompt, std::move(result)); };
  calls.all_done = [self] { self->finish(); };
  calls.failed = [self](const ApiError& error) { end_with_error(*self->responder_, error); };
  std::make_shared<PromptBatch>(context_, responder_, count, http, request_.prompts.size())->start(std::move(calls));
}

Request CompletionAnswer::engine_request(std::size_t prompt) const {
  Request request;
  request.prompt = request_.prompts[prompt];
  request.options = request_.options;
  request.n = request_.n;
  request.priority = request_.priority;
  return request;
}

std::string CompletionAnswer::chunk(int index, std::string_view text, const LogprobLists* lists,
                                    const char* reason) const {
  JsonWriter w;
  head(w);
  w.key("choices").begin_array().begin_object().field("index", index).field("text", text).key("logprobs");
  if (lists) lists->write(w);
  else w.null();
  w.key("finish_reason");
  if (reason) w.value(reason);
  else w.null();
  w.end_object().end_array();
  if (request_.include_usage) w.key("usage").null();
  w.end_object();
  return w.take();
}

void CompletionAnswer::token(std::size_t prompt, TokenPiece piece) {
  const int index = static_cast<int>(prompt) * request_.n + piece.choice;
  begin_choice(index, prompt);
  LogprobLists& lists = lists_[static_cast<std::size_t>(index)];
  const bool scored = request_.options.logprobs >= 0 && piece.score.token >= 0;
  if (scored) lists.add(piece.score.token, piece.score.logprob, piece.score.top);
  if (!piece.text.empty() || scored) responder_->event(chunk(index, piece.text, scored ? &lists : nullptr, nullptr));
  lists.clear();
}

// A stream begins with the first token, so that what is wrong with the request is still answered with a status.
void CompletionAnswer::begin_choice(int index, std::size_t prompt) {
  if (!responder_->started()) responder_->begin_events();
  if (!begun_.insert(index).second || !request_.echo) return;
  responder_->event(chunk(index, tokenizer().decode_utf8(request_.prompts[prompt]), nullptr, nullptr));
}

void CompletionAnswer::done(std::size_t prompt, RequestResult result) {
  for (const Completion& choice : result.choices) {
    if (!request_.stream) break;
    const int index = static_cast<int>(prompt) * request_.n + choice.choice;
    begin_choice(index, prompt);
    responder_->event(chunk(index, "", nullptr, finish_reason_name(choice.finish_reason)));
  }
  results_[prompt] = std::move(result);
}

Usage CompletionAnswer::usage() const {
  Usage usage;
  for (const RequestResult& result : results_) {
    usage.prompt += result.prompt_tokens;
    usage.cached += result.cached_tokens;
    for (const Completion& choice : result.choices) {
      usage.completion += static_cast<std::int64_t>(choice.tokens.size()) + (choice.stop_token >= 0 ? 1 : 0);
    }
  }
  return usage;
}

void CompletionAnswer::write_choice(JsonWriter& w, int index, std::size_t prompt, const Completion& choice) const {
  const std::vector<std::int32_t>& ids = request_.prompts[prompt];
  const RequestResult& result = results_[prompt];
  w.begin_object().field("index", index);
  w.field("text", request_.echo ? tokenizer().decode_utf8(ids) + choice.text : choice.text).key("logprobs");
  if (request_.options.logprobs >= 0) {
    LogprobLists lists(tokenizer());
    for (std::size_t i = 0; request_.echo && i < ids.size(); ++i) {
      lists.add(ids[i], i == 0 ? std::nanf("") : result.prompt_logprobs[i], result.prompt_top_logprobs[i]);
    }
    for (std::size_t i = 0; i < choice.tokens.size(); ++i)
      lists.add(choice.tokens[i], choice.logprobs[i], choice.top_logprobs[i]);
    lists.write(w);
  } else {
    w.null();
  }
  w.field("finish_reason", finish_reason_name(choice.finish_reason)).end_object();
}

void CompletionAnswer::finish() {
  const Usage total = usage();
  count_usage(context_, total);
  JsonWriter w;
  head(w);
  w.key("choices").begin_array();
  if (request_.stream) {
    if (request_.include_usage) {
      w.end_array().key("usage");
      write_usage(w, total);
      responder_->event(w.end_object().str());
    }
    responder_->event("[DONE]");
    responder_->end();
    return;
  }
  for (std::size_t i = 0; i < results_.size(); ++i) {
    for (const Completion& choice : results_[i].choices) {
      write_choice(w, static_cast<int>(i) * request_.n + choice.choice, i, choice);
    }
  }
  w.end_array().key("usage");
  write_usage(w, total);
  responder_->json(200, w.end_object().take());
}

}  // namespace

void completions(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  run_counted(
      context, request, responder,
      [&context, responder](const RequestPtr& http, const CountPtr& count, const Failed&) {
        CompletionRequest completion = read_request(parse_body(http->body()), context);
        std::make_shared<CompletionAnswer>(context, responder, std::move(completion))->start(*http, count);
      },
      [responder](const ApiError& error) { send_error(*responder, error); });
}

}  // namespace gov::server
