#include "server/http_write.h"

#include <fmt/format.h>

#include <ctime>
#include <iterator>

namespace gov::server {
namespace {

const char* status_text(int status) {
  switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 304: return "Not Modified";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 499: return "Client Closed Request";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Unknown";
  }
}

std::string http_date() {  // RFC 9110 5.6.7, which no locale may change
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t now = std::time(nullptr);
  std::tm t{};
  gmtime_r(&now, &t);
  return fmt::format("{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT", kDays[t.tm_wday], t.tm_mday, kMonths[t.tm_mon],
                     t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
}

void add_header(std::string& out, std::string_view name, std::string_view value) {
  const std::size_t begin = out.size();
  out.append(name).append(": ").append(value);
  for (std::size_t i = begin; i < out.size(); ++i) {
    if (static_cast<unsigned char>(out[i]) < 0x20 || out[i] == 0x7F) out[i] = ' ';
  }
  out += "\r\n";
}

}  // namespace

std::string answer_head(const AnswerHead& head, const Responder::Headers& headers, const Responder::Headers& more) {
  std::string out = fmt::format("HTTP/1.1 {} {}\r\n", head.status, status_text(head.status));
  add_header(out, "Date", http_date());
  if (!head.content_type.empty()) add_header(out, "Content-Type", head.content_type);
  if (head.framing == Framing::kLength) add_header(out, "Content-Length", std::to_string(head.length));
  if (head.framing == Framing::kChunked) add_header(out, "Transfer-Encoding", "chunked");
  if (!head.keep_alive) add_header(out, "Connection", "close");
  else if (head.minor_version == 0) add_header(out, "Connection", "keep-alive");
  add_header(out, "X-Content-Type-Options", "nosniff");
  for (const auto* list : {&headers, &more}) {
    for (const auto& [name, value] : *list) add_header(out, name, value);
  }
  return out += "\r\n";
}

std::string chunk_of(std::string_view data, Framing framing) {
  if (framing != Framing::kChunked) return std::string(data);
  if (data.empty()) return {};
  std::string out = fmt::format("{:x}\r\n", data.size());
  out.reserve(out.size() + data.size() + 2);
  return out.append(data).append("\r\n");
}

std::string_view last_chunk(Framing framing) { return framing == Framing::kChunked ? "0\r\n\r\n" : ""; }

}  // namespace gov::server
