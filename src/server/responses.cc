// The routes below /v1/responses.

#include "server/request_parts.h"
#include "server/response_answer.h"
#include "server/routes.h"

namespace gov::server {
namespace {

StoredPtr stored_response(ApiContext& context, const HttpRequest& request) {
  const std::string& id = request.params.at("id");
  StoredPtr response = context.responses->find(request.tenant, id);
  if (!response) {
    throw ApiError(404, "invalid_request_error", fmt::format("there is no response \"{}\"", printable(id, 64)),
                   "response_id", "not_found");
  }
  return response;
}

}  // namespace

void create_response(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  run_counted(
      context, request, responder,
      [&context, responder](const RequestPtr& http, const CountPtr& count, const Failed&) {
        ResponseRequest response =
            read_response_request(parse_body(http->body()), param_table("responses"), context.sampling,
                                  context.options.ignore_unknown_tools, *context.responses, http->tenant);
        std::make_shared<ResponseAnswer>(context, responder, std::move(response), *http, count)->start();
      },
      [responder](const ApiError& error) { send_error(*responder, error); });
}

void get_response(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  answer_now(responder, [&] {
    const auto stream = request.query.find("stream");
    if (stream != request.query.end() && stream->second == "true")
      bad_field("stream", "a stored response is not streamed again");
    return stored_response(context, request)->body;
  });
}

void delete_response(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  answer_now(responder, [&] {
    const StoredPtr response = stored_response(context, request);
    if (response->cancel) response->cancel->cancel();
    context.responses->erase(request.tenant, response->id);
    JsonWriter w;
    w.begin_object().field("id", response->id).field("object", "response").field("deleted", true).end_object();
    return w.take();
  });
}

void cancel_response(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  answer_now(responder, [&] {
    const StoredPtr response = stored_response(context, request);
    Json body = Json::parse(response->body);
    const Json* background = body.find("background");
    if (!background || *background != Json(true))
      bad_field("response_id", "only a background response can be cancelled");
    if (response->running) {
      if (response->cancel) response->cancel->cancel();
      body.set("status", "cancelled");
    }
    return body.dump();
  });
}

void response_input_items(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  answer_now(responder, [&] {
    const StoredPtr response = stored_response(context, request);
    const Json items = Json::parse(response->input_items);
    const auto id_of = [&](const Json& item) { return text_member(item, "id", "input"); };
    JsonWriter w;
    w.begin_object().field("object", "list").key("data").raw(response->input_items);
    w.field("first_id", items.array().empty() ? "" : id_of(items.array().front()));
    w.field("last_id", items.array().empty() ? "" : id_of(items.array().back()));
    w.field("has_more", false).end_object();
    return w.take();
  });
}

void response_input_tokens(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  run_prepared(context, request, responder, [&context, responder](const RequestPtr& http) {
    const ResponseRequest response =
        read_response_request(parse_body(http->body()), param_table("input_tokens"), context.sampling,
                              context.options.ignore_unknown_tools, *context.responses, http->tenant);
    JsonWriter w;
    w.begin_object()
        .field("object", "response.input_tokens")
        .field("input_tokens", count_tokens(context, response.input))
        .end_object();
    responder->json(200, w.take());
  });
}

}  // namespace gov::server
