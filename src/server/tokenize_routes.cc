// /tokenize, /detokenize and /tokenizer_info, in the forms of llama.cpp and vLLM that evaluation harnesses use.

#include "server/api_error.h"
#include "server/request_parts.h"
#include "server/routes.h"

namespace gov::server {
namespace {

std::string special_text(const Tokenizer& tokenizer, std::int64_t id) {
  const std::int32_t small = static_cast<std::int32_t>(id);
  return id >= 0 && id < tokenizer.vocab_size() && tokenizer.has_token(small)
             ? std::string(tokenizer.token_bytes(small))
             : "";
}

}  // namespace

void tokenize(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  run_prepared(context, request, responder, [&context, responder](const RequestPtr& http) {
    const Json body = parse_body(http->body());
    const Fields fields(param_table("tokenize"), body);
    if (fields.has("prompt") == fields.has("content")) bad_field("prompt", "give either prompt or content");
    const std::string text = fields.text(fields.has("prompt") ? "prompt" : "content");
    const SpecialTokens special = fields.flag("parse_special") ? SpecialTokens::kAllow : SpecialTokens::kOrdinary;
    const std::vector<std::int32_t> ids = context.package.tokenizer.encode(text, special, &responder->cancelled());
    JsonWriter w;
    w.begin_object().key("tokens").begin_array();
    for (const std::int32_t id : ids) w.value(static_cast<int>(id));
    w.end_array().field("count", static_cast<std::int64_t>(ids.size()));
    w.field("max_model_len", context.package.model.config.max_position_embeddings);
    if (fields.flag("return_token_strs")) {
      w.key("token_strs").begin_array();
      for (const std::int32_t id : ids) w.value(context.package.tokenizer.token_bytes(id));
      w.end_array();
    }
    w.end_object();
    responder->json(200, w.take());
  });
}

void detokenize(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  run_prepared(context, request, responder, [&context, responder](const RequestPtr& http) {
    const Json body = parse_body(http->body());
    const Fields fields(param_table("detokenize"), body);
    std::vector<std::int32_t> ids;
    for (const Json& item : fields.get("tokens")->array()) {
      const bool known = item.is_integer() && item.integer() >= 0 &&
                         item.integer() < context.package.tokenizer.vocab_size() &&
                         context.package.tokenizer.has_token(static_cast<std::int32_t>(item.integer()));
      if (!known) bad_field("tokens", "{} is not a token", printable(item.dump(), 40));
      ids.push_back(static_cast<std::int32_t>(item.integer()));
    }
    const std::string text = context.package.tokenizer.decode_utf8(ids, fields.flag("skip_special_tokens"));
    JsonWriter w;
    w.begin_object().field("prompt", text).field("content", text).end_object();
    responder->json(200, w.take());
  });
}

void tokenizer_info(ApiContext& context, const HttpRequest&, const ResponderPtr& responder) {
  const Config& config = context.package.model.config;
  const Tokenizer& tokenizer = context.package.tokenizer;
  JsonWriter w;
  w.begin_object();
  const auto token = [&](std::string_view name, std::int64_t id) {
    const std::string text = special_text(tokenizer, id);
    w.key(name);
    if (text.empty()) w.null();
    else w.value(text);
  };
  token("eos_token", config.eos_token_ids.empty() ? -1 : config.eos_token_ids.front());
  token("bos_token", config.bos_token_id);
  token("pad_token", config.pad_token_id);
  w.field("vocab_size", static_cast<int>(tokenizer.vocab_size()));
  w.field("model_max_length", config.max_position_embeddings);
  w.key("chat_template");
  if (context.package.chat_template) w.value(*context.package.chat_template);
  else w.null();
  w.end_object();
  responder->json(200, w.take());
}

}  // namespace gov::server
