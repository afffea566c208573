#pragma once
// A failed request as OpenAI's protocol says it: a status and {"error":{"message","type","param","code"}}.

#include <exception>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "server/http.h"

namespace gov::server {

struct ApiError : std::exception {
  ApiError(int status, std::string type, std::string message, std::string param = {}, std::string code = {})
      : status(status),
        type(std::move(type)),
        message(std::move(message)),
        param(std::move(param)),
        code(std::move(code)) {}
  const char* what() const noexcept override { return message.c_str(); }

  int status;
  std::string type, message;
  std::string param, code;  // null in the answer when empty
};

// 400 invalid_request_error about one field; the message begins with its name.
template <class... Args>
[[noreturn]] void bad_field(std::string_view field, fmt::format_string<Args...> rule, Args&&... args) {
  throw ApiError(400, "invalid_request_error",
                 fmt::format("{}: {}", field, fmt::format(rule, std::forward<Args>(args)...)), std::string(field),
                 "invalid_value");
}

// Whatever was thrown while a request was handled. The one place where error codes become HTTP statuses: what the
// client caused is told as it is; what it did not cause, and could hold a path or an address, is told by a fixed
// sentence.
ApiError to_api_error(std::exception_ptr error);

Json error_object(const ApiError& error);       // the value of "error"
std::string error_body(const ApiError& error);  // {"error": ...}
// As the whole answer, with Retry-After where trying again can help.
void send_error(Responder& responder, const ApiError& error);
// The same once a stream may have begun: there the error is an event, and [DONE] follows.
void end_with_error(Responder& responder, const ApiError& error);

// In Anthropic's form: {"type":"error","error":{"type","message"}}.
std::string anthropic_error_body(const ApiError& error);
void send_anthropic_error(Responder& responder, const ApiError& error);

}  // namespace gov::server
