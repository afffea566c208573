#pragma once
// The handlers of all routes, by protocol. Each answers at once or hands its work to the workers.

#include "server/context.h"

namespace gov::server {

// chat.cc
void chat_completions(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);
void apply_template(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);

// completions.cc
void completions(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);

// embeddings.cc
void embeddings(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);

// responses.cc
void create_response(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);
void get_response(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);
void delete_response(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);
void cancel_response(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);
void response_input_items(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);
void response_input_tokens(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);

// messages.cc
void anthropic_messages(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);
void count_message_tokens(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);

// tokenize_routes.cc
void tokenize(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);
void detokenize(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);
void tokenizer_info(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);

// state_routes.cc
void list_models(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);
void get_model(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);
void state(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);
void slots(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);
void props(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder);
std::string metrics_text(ApiContext& context);

}  // namespace gov::server
