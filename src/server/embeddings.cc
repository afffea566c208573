// POST /v1/embeddings: the mean of the final hidden states, of length 1.

#include <bit>
#include <cmath>
#include <cstring>

#include "base/base64.h"
#include "server/prompt_batch.h"
#include "server/routes.h"

namespace gov::server {
namespace {

struct EmbeddingRequest {
  std::vector<Prompt> inputs;
  std::string model;
  bool base64 = false;
  std::size_t dimensions = 0;  // 0: all
};

EmbeddingRequest read_request(const Json& body, const ApiContext& context) {
  const Fields fields(param_table("embeddings"), body);
  const Config& config = context.package.model.config;
  EmbeddingRequest request;
  request.model = fields.text("model");
  request.base64 = fields.text("encoding_format") == "base64";
  request.dimensions = static_cast<std::size_t>(fields.integer("dimensions"));
  if (fields.has("dimensions") && fields.integer("dimensions") > config.hidden_size) {
    bad_field("dimensions", "must be at most {}", config.hidden_size);
  }
  request.inputs = read_prompts(*fields.get("input"), "input", SpecialTokens::kOrdinary, context.package.tokenizer);
  return request;
}

// The first of the values, of length 1.
std::vector<float> normalised(std::vector<float> values, std::size_t dimensions) {
  if (dimensions > 0) values.resize(dimensions);
  double sum = 0;
  for (const float v : values) sum += static_cast<double>(v) * static_cast<double>(v);
  const double scale = sum > 0 ? 1.0 / std::sqrt(sum) : 0.0;
  for (float& v : values) v = static_cast<float>(static_cast<double>(v) * scale);
  return values;
}

void write_vector(JsonWriter& w, const std::vector<float>& values, bool base64) {
  static_assert(std::endian::native == std::endian::little);
  if (base64) {
    std::string bytes(values.size() * sizeof(float), '\0');
    std::memcpy(bytes.data(), values.data(), bytes.size());
    w.value(base64_encode(bytes));
    return;
  }
  w.begin_array();
  for (const float v : values) w.value(static_cast<double>(v));
  w.end_array();
}

class EmbeddingAnswer : public std::enable_shared_from_this<EmbeddingAnswer> {
 public:
  EmbeddingAnswer(ApiContext& context, ResponderPtr responder, EmbeddingRequest request)
      : context_(context),
        responder_(std::move(responder)),
        request_(std::move(request)),
        model_(check_model(context, request_.model)),
        vectors_(request_.inputs.size()) {}

  void start(const HttpRequest& http, const CountPtr& count) {
    const auto self = shared_from_this();
    PromptBatch::Calls calls;
    calls.request = [self, tenant = http.tenant](std::size_t index) {
      Request request;
      request.prompt = self->request_.inputs[index];
      request.embed = true;
      request.options.max_new_tokens = 0;
      request.cache_salt = tenant;
      return request;
    };
    calls.done = [self](std::size_t index, RequestResult result) {
      self->tokens_ += result.prompt_tokens;
      self->vectors_[index] = normalised(std::move(result.embedding), self->request_.dimensions);
    };
    calls.all_done = [self] { self->finish(); };
    calls.failed = [self](const ApiError& error) { send_error(*self->responder_, error); };
    std::make_shared<PromptBatch>(context_, responder_, count, http, vectors_.size())->start(std::move(calls));
  }

 private:
  void finish() {
    JsonWriter w;
    w.begin_object().field("object", "list").key("data").begin_array();
    for (std::size_t i = 0; i < vectors_.size(); ++i) {
      w.begin_object().field("object", "embedding").field("index", static_cast<std::int64_t>(i)).key("embedding");
      write_vector(w, vectors_[i], request_.base64);
      w.end_object();
    }
    w.end_array().field("model", model_).key("usage").begin_object();
    w.field("prompt_tokens", tokens_).field("total_tokens", tokens_).end_object().end_object();
    responder_->json(200, w.take());
  }

  ApiContext& context_;
  ResponderPtr responder_;
  EmbeddingRequest request_;
  std::string model_;
  std::vector<std::vector<float>> vectors_;  // [inputs]
  std::int64_t tokens_ = 0;
};

}  // namespace

void embeddings(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  run_counted(
      context, request, responder,
      [&context, responder](const RequestPtr& http, const CountPtr& count, const Failed&) {
        EmbeddingRequest embedding = read_request(parse_body(http->body()), context);
        std::make_shared<EmbeddingAnswer>(context, responder, std::move(embedding))->start(*http, count);
      },
      [responder](const ApiError& error) { send_error(*responder, error); });
}

}  // namespace gov::server
