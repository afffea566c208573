#pragma once
// Errors caused from outside (a file, a config, a prompt, a picture, a request, memory, a device) are gov::Error.
// The library never exits, aborts or prints; each client maps Error once (exit status, HTTP status, exception, C
// status).

#include <fmt/format.h>

#include <cassert>
#include <stdexcept>
#include <string>
#include <utility>

namespace gov {

enum class ErrorCode {
  kInvalidArgument,  // an option or request field is out of its range
  kNotFound,         // a file, tensor or name does not exist
  kCorrupt,          // bytes from outside break their format's rules
  kUnsupported,      // valid, but this build or machine cannot do it
  kContextLength,    // more tokens than the model's context or the planned cache
  kOutOfMemory,      // the plan or an allocation does not fit
  kIo,               // the operating system refused a read, write or map
  kCancelled,        // the caller's cancel word was set
  kDevice,           // the accelerator failed
  kOverloaded,       // a queue is full; the same request may work later
  kUnavailable,      // shutting down or not ready yet
};

// "corrupt", "not_found", ...: stable, for machine output.
const char* error_code_name(ErrorCode code);

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

// throw Error(code, fmt::format(...)) in one call. Messages are one line, name the thing and say what was expected.
template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

// Text from outside, made safe for a one-line message: control bytes and invalid UTF-8 become '?', cut at max_bytes.
std::string printable(std::string_view text, std::size_t max_bytes = 120);

}  // namespace gov

// For our own bugs only, never for input; input is checked with gov::fail in every build type.
#define GOV_DCHECK(condition) assert(condition)
