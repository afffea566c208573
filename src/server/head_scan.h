#pragma once
// The strict gate before the HTTP parser: where a request's head ends, and whether its form is beyond doubt. Two
// readers of one connection (a proxy and this server) must never disagree about it, so bare line feeds, folded lines,
// space before a colon and control bytes are refused here.

#include <cstddef>
#include <string_view>

namespace gov::server {

struct HeadLimits {
  std::size_t line = 8u << 10;  // the request line, and each header line
  std::size_t total = 64u << 10;
  std::size_t headers = 100;
};

// Scans bytes as they come; time is linear in all of them together.
class HeadScanner {
 public:
  explicit HeadScanner(const HeadLimits& limits = {}) : limits_(limits) {}

  // data: everything received of this request so far, always from its first byte. True when the head is complete or
  // refused; then status() is 0, or the HTTP status of the refusal, and reason() says why.
  bool scan(std::string_view data);

  std::size_t begin() const { return begin_; }  // empty lines before the request line are skipped
  std::size_t end() const { return line_; }     // one past the empty line that ends the head
  int status() const { return status_; }
  const char* reason() const { return reason_; }

 private:
  bool refuse(int status, const char* reason);
  bool take_line(std::string_view line);
  bool check_request_line(std::string_view line);
  bool check_header_line(std::string_view line);

  HeadLimits limits_;
  std::size_t begin_ = 0, line_ = 0, seen_ = 0;  // the head, the line being read, the bytes looked at
  std::size_t headers_ = 0;
  bool request_line_ = false, done_ = false;
  int status_ = 0;
  const char* reason_ = "";
};

}  // namespace gov::server
