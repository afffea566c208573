#include "server/api_error.h"

#include <new>

namespace gov::server {
namespace {

constexpr const char* kInvalidRequest = "invalid_request_error";

ApiError from_error(const Error& error) {
  const std::string message = printable(error.what(), 1000);
  switch (error.code()) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kCorrupt:
    case ErrorCode::kUnsupported: return {400, kInvalidRequest, message, "", "invalid_value"};
    case ErrorCode::kContextLength: return {400, kInvalidRequest, message, "messages", "context_length_exceeded"};
    case ErrorCode::kNotFound: return {404, kInvalidRequest, message, "", "not_found"};
    case ErrorCode::kCancelled: return {499, "cancelled", "the request was cancelled", "", "cancelled"};
    case ErrorCode::kOverloaded: return {429, "rate_limit_error", message, "", "queue_full"};
    case ErrorCode::kUnavailable:
      return {503, "service_unavailable", "the server is starting or stopping", "", "unavailable"};
    case ErrorCode::kOutOfMemory:
      return {503, "service_unavailable", "not enough memory for this request", "", "out_of_memory"};
    case ErrorCode::kDevice:
      if (message.find("finite") != std::string::npos) {
        return {500, "numerical_error", "the model's output is not finite", "", "numerical_error"};
      }
      return {500, "server_error", "the device failed", "", "device_error"};
    case ErrorCode::kIo: return {500, "server_error", "an operation of the server's system failed", "", "io_error"};
  }
  return {500, "server_error", "internal error", "", "internal_error"};
}

Json text_or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

}  // namespace

ApiError to_api_error(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const ApiError& e) {
    return e;
  } catch (const Error& e) {
    return from_error(e);
  } catch (const std::bad_alloc&) {
    return {503, "service_unavailable", "not enough memory for this request", "", "out_of_memory"};
  } catch (...) {
    return {500, "server_error", "internal error", "", "internal_error"};
  }
}

Json error_object(const ApiError& error) {
  Json object;
  object.set("message", error.message);
  object.set("type", error.type);
  object.set("param", text_or_null(error.param));
  object.set("code", text_or_null(error.code));
  return object;
}

std::string error_body(const ApiError& error) {
  Json body;
  body.set("error", error_object(error));
  return body.dump();
}

namespace {

Responder::Headers retry_headers(const ApiError& error) {
  if (error.status == 429) return {{"Retry-After", "1"}};
  if (error.status == 503) return {{"Retry-After", "5"}};
  return {};
}

}  // namespace

void send_error(Responder& responder, const ApiError& error) {
  responder.json(error.status, error_body(error), retry_headers(error));
}

void end_with_error(Responder& responder, const ApiError& error) {
  if (!responder.started()) {
    send_error(responder, error);
    return;
  }
  responder.event(error_body(error));
  responder.event("[DONE]");
  responder.end();
}

std::string anthropic_error_body(const ApiError& error) {
  std::string type = "api_error";
  switch (error.status) {
    case 400:
    case 413: type = "invalid_request_error"; break;
    case 401: type = "authentication_error"; break;
    case 404: type = "not_found_error"; break;
    case 429: type = "rate_limit_error"; break;
    case 503: type = "overloaded_error"; break;
    default: break;
  }
  Json inner;
  inner.set("type", type);
  inner.set("message", error.message);
  Json body;
  body.set("type", "error");
  body.set("error", std::move(inner));
  return body.dump();
}

void send_anthropic_error(Responder& responder, const ApiError& error) {
  responder.json(error.status, anthropic_error_body(error), retry_headers(error));
}

}  // namespace gov::server
