// POST /v1/embeddings: the mean of the final hidden states, of length 1.

#include <bit>
#include <cmath>
#include <cstring>

#include "base/base64.h"
#include "server/answer_json.h"
#include "server/request_parts.h"
#include "server/routes.h"

namespace gov::server {
namespace {

constexpr std::size_t kMostInputs = 2048;
constexpr std::size_t kSideBySide = 64;

struct EmbeddingRequest {
  std::vector<std::vector<std::int32_t>> inputs;
  std::string model;
  bool base64 = false;
  std::size_t dimensions = 0;  // 0: all
};

std::vector<std::int32_t> read_ids(const Json::Array& items, std::int64_t vocabulary) {
  std::vector<std::int32_t> ids;
  for (const Json& item : items) {
    if (!item.is_integer() || item.integer() < 0 || item.integer() >= vocabulary) {
      bad_field("input", "token ids are integers of 0 to {}", vocabulary - 1);
    }
    ids.push_back(static_cast<std::int32_t>(item.integer()));
  }
  return ids;
}

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
  const auto encode = [&](const std::string& text) { return context.package.tokenizer.encode(text); };
  const Json& input = *fields.get("input");
  if (input.is_string()) {
    request.inputs.push_back(encode(input.string()));
  } else if (!input.array().empty() && input.array().front().is_number()) {
    request.inputs.push_back(read_ids(input.array(), config.vocab_size));
  } else {
    if (input.array().size() > kMostInputs) bad_field("input", "at most {} inputs in one request", kMostInputs);
    for (const Json& item : input.array()) {
      if (item.is_string()) request.inputs.push_back(encode(item.string()));
      else if (item.is_array()) request.inputs.push_back(read_ids(item.array(), config.vocab_size));
      else bad_field("input", "expected texts or lists of token ids, but got {}", item.kind_name());
    }
  }
  if (request.inputs.empty()) bad_field("input", "is empty");
  for (const auto& ids : request.inputs) {
    if (ids.empty()) bad_field("input", "has an empty text");
  }
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
  EmbeddingAnswer(ApiContext& context, ResponderPtr responder, EmbeddingRequest request, const HttpRequest& http)
      : context_(context),
        responder_(std::move(responder)),
        request_(std::move(request)),
        tenant_(http.tenant),
        request_id_(http.request_id),
        model_(check_model(context, request_.model)),
        strand_(std::make_shared<Strand>(*context.deliver)),
        vectors_(request_.inputs.size()) {}

  void start() {
    ++context_.counters.requests;
    strand_->post([self = shared_from_this()] { self->submit_more(); });
  }

 private:
  void submit_more() {
    while (!ended_ && next_ < request_.inputs.size() && next_ - finished_ < kSideBySide) {
      try {
        submit(next_++);
      } catch (...) {
        failed(to_api_error(std::current_exception()));
      }
    }
  }

  void submit(std::size_t index) {
    Request request;
    request.prompt = request_.inputs[index];
    request.embed = true;
    request.options.max_new_tokens = 0;
    request.tenant = request.cache_salt = tenant_;
    GenerationCalls calls;
    const auto self = shared_from_this();
    calls.done = [self, index](RequestResult result) { self->done(index, std::move(result)); };
    calls.failed = [self](const ApiError& error) { self->failed(error); };
    const auto generation = std::make_shared<Generation>(request_id_);
    running_.push_back(generation);
    cancel_with(*responder_, generation);
    generation->submit(context_, std::move(request), strand_, std::move(calls));
  }

  void done(std::size_t index, RequestResult result) {
    if (ended_) return;
    if (result.embedding.empty()) {
      failed(stopping_error());
      return;
    }
    usage_.prompt += result.prompt_tokens;
    vectors_[index] = normalised(std::move(result.embedding), request_.dimensions);
    ++finished_;
    if (finished_ == vectors_.size()) finish();
    else submit_more();
  }

  void failed(const ApiError& error) {
    if (ended_) return;
    ended_ = true;
    ++(error.status == 429       ? context_.counters.rejected
       : responder_->cancelled() ? context_.counters.cancelled
                                 : context_.counters.failed);
    for (const auto& weak : running_) {
      if (const auto generation = weak.lock()) generation->cancel();
    }
    send_error(*responder_, error);
  }

  void finish() {
    ended_ = true;
    ++context_.counters.succeeded;
    context_.counters.prompt_tokens += usage_.prompt;
    JsonWriter w;
    w.begin_object().field("object", "list").key("data").begin_array();
    for (std::size_t i = 0; i < vectors_.size(); ++i) {
      w.begin_object().field("object", "embedding").field("index", static_cast<std::int64_t>(i)).key("embedding");
      write_vector(w, vectors_[i], request_.base64);
      w.end_object();
    }
    w.end_array().field("model", model_).key("usage").begin_object();
    w.field("prompt_tokens", usage_.prompt).field("total_tokens", usage_.prompt).end_object().end_object();
    responder_->json(200, w.take());
  }

  ApiContext& context_;
  ResponderPtr responder_;
  EmbeddingRequest request_;
  std::string tenant_, request_id_, model_;
  std::shared_ptr<Strand> strand_;
  std::vector<std::vector<float>> vectors_;  // [inputs]
  std::vector<std::weak_ptr<Generation>> running_;
  std::size_t next_ = 0, finished_ = 0;
  Usage usage_;
  bool ended_ = false;
};

}  // namespace

void embeddings(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  run_prepared(context, request, responder, [&context, responder](const RequestPtr& http) {
    EmbeddingRequest embedding = read_request(parse_body(http->body()), context);
    std::make_shared<EmbeddingAnswer>(context, responder, std::move(embedding), *http)->start();
  });
}

}  // namespace gov::server
