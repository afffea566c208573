#include "server/head_scan.h"

#include <algorithm>

namespace gov::server {
namespace {

bool is_token_char(char c) {
  static constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         kMarks.find(c) != std::string_view::npos;
}

bool is_token(std::string_view text) { return !text.empty() && std::all_of(text.begin(), text.end(), is_token_char); }

}  // namespace

bool HeadScanner::refuse(int status, const char* reason) {
  status_ = status;
  reason_ = reason;
  return done_ = true;
}

bool HeadScanner::check_request_line(std::string_view line) {
  const std::size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return refuse(400, "malformed request line");
  const std::string_view method = line.substr(0, first), target = line.substr(first + 1, last - first - 1),
                         version = line.substr(last + 1);
  if (!is_token(method) || method.size() > 32) return refuse(400, "malformed method");
  if (target.empty() || !std::all_of(target.begin(), target.end(), [](char c) { return c > 0x20 && c < 0x7F; })) {
    return refuse(400, "malformed request target");
  }
  if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    const bool other = version.size() == 8 && version.starts_with("HTTP/");
    return refuse(other ? 505 : 400, other ? "only HTTP/1.1 and HTTP/1.0 are spoken here" : "malformed HTTP version");
  }
  return true;
}

bool HeadScanner::check_header_line(std::string_view line) {
  if (++headers_ > limits_.headers) return refuse(431, "too many headers");
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) return refuse(400, "malformed header name");
  const auto forbidden = [](char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7F; };
  if (std::any_of(line.begin() + static_cast<std::ptrdiff_t>(colon), line.end(), forbidden)) {
    return refuse(400, "control byte in a header");
  }
  return true;
}

// A whole line without its CRLF. True when scanning is over.
bool HeadScanner::take_line(std::string_view line) {
  if (!request_line_) {
    if (line.empty()) {  // RFC 9112 2.2: left over by clients that end a body with a line break
      begin_ = line_;
      if (begin_ > 4) return refuse(400, "malformed request line");
      return false;
    }
    request_line_ = true;
    check_request_line(line);
  } else if (line.empty()) {
    done_ = true;
  } else {
    check_header_line(line);
  }
  return done_;
}

bool HeadScanner::scan(std::string_view data) {
  if (done_) return true;
  while (seen_ < data.size()) {
    const std::size_t feed = data.find('\n', seen_);
    const std::size_t stop = feed == std::string_view::npos ? data.size() : feed;
    if (stop - line_ > limits_.line + 1) {
      return refuse(request_line_ ? 431 : 414,
                    request_line_ ? "a header line is too long" : "the request target is too long");
    }
    if (stop > limits_.total) return refuse(431, "the request's head is too long");
    // Bytes that no request begins with: a TLS hello, or another protocol.
    if (!request_line_ && seen_ == line_ && data[seen_] != '\r' && !is_token_char(data[seen_])) {
      return refuse(400, "malformed request line");
    }
    const std::size_t carriage = data.substr(0, stop).find('\r', std::max(line_, seen_ == 0 ? 0 : seen_ - 1));
    if (feed == std::string_view::npos) {
      if (carriage != std::string_view::npos && carriage + 1 != data.size()) return refuse(400, "bare carriage return");
      seen_ = data.size();
      return false;
    }
    if (carriage == std::string_view::npos) return refuse(400, "bare line feed");
    if (carriage + 1 != feed) return refuse(400, "bare carriage return");
    const std::string_view line = data.substr(line_, carriage - line_);
    line_ = seen_ = feed + 1;
    if (take_line(line)) return true;
  }
  return false;
}

}  // namespace gov::server
