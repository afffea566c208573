#include "server/api.h"

#include "server/context.h"
#include "server/openapi.h"
#include "server/routes.h"

namespace gov::server {

struct Api::Impl {
  Impl(const ModelPackage& package, EngineLoop& loop, ApiOptions options)
      : context(package, loop, std::move(options)) {}
  ApiContext context;
};

Api::Api(const ModelPackage& package, EngineLoop& loop, ApiOptions options)
    : impl_(std::make_unique<Impl>(package, loop, std::move(options))) {}
Api::~Api() = default;

std::vector<Route> Api::routes() {
  using Call = void (*)(ApiContext&, const HttpRequest&, const ResponderPtr&);
  std::vector<Route> routes;
  const auto add = [&](const char* method, const char* pattern, Call call) {
    routes.push_back(
        {method, pattern, [context = &impl_->context, call](const HttpRequest& request, const ResponderPtr& responder) {
           call(*context, request, responder);
         }});
  };
  add("POST", "/v1/chat/completions", chat_completions);
  add("POST", "/v1/responses", create_response);
  add("POST", "/v1/responses/input_tokens", response_input_tokens);
  add("GET", "/v1/responses/{id}", get_response);
  add("DELETE", "/v1/responses/{id}", delete_response);
  add("POST", "/v1/responses/{id}/cancel", cancel_response);
  add("GET", "/v1/responses/{id}/input_items", response_input_items);
  add("POST", "/v1/completions", completions);
  add("POST", "/v1/embeddings", embeddings);
  add("GET", "/v1/models", list_models);
  add("GET", "/v1/models/{id}", get_model);
  add("POST", "/v1/messages", anthropic_messages);
  add("POST", "/v1/messages/count_tokens", count_message_tokens);
  add("POST", "/tokenize", tokenize);
  add("POST", "/detokenize", detokenize);
  add("GET", "/tokenizer_info", tokenizer_info);
  add("POST", "/apply-template", apply_template);
  add("GET", "/state", state);
  add("GET", "/slots", slots);
  add("GET", "/props", props);
  routes.push_back(
      {"GET", "/openapi.json", [text = openapi_document(routes)](const HttpRequest&, const ResponderPtr& responder) {
         responder->json(200, text);
       }});
  return routes;
}

std::string Api::metrics() const { return metrics_text(impl_->context); }

}  // namespace gov::server
