#include "server/http_parser.h"

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <set>

#include "server/ascii.h"

namespace gov::server {
namespace http = boost::beast::http;
namespace {

constexpr std::uint64_t kMaxChunkExtensions = 4u << 10;  // of all chunks of one body together

// Headers that decide who may do what, or where a body ends: one of each.
const std::set<std::string>& single_headers() {
  static const std::set<std::string> names = {"host",          "content-length", "transfer-encoding",
                                              "authorization", "x-api-key",      "origin",
                                              "content-type",  "expect",         "x-request-id"};
  return names;
}

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

Refusal refusal_of(const boost::beast::error_code& error) {
  if (error == http::error::body_limit) return {413, "the request's body is too large"};
  if (error == http::error::header_limit || error == http::error::buffer_overflow)
    return {431, "the request's head is too long"};
  if (error == http::error::bad_content_length || error == http::error::multiple_content_length)
    return {400, "malformed Content-Length"};
  if (error == http::error::bad_transfer_encoding) return {400, "malformed Transfer-Encoding"};
  if (error == http::error::bad_chunk || error == http::error::bad_chunk_extension) return {400, "malformed chunk"};
  return {400, "malformed HTTP request"};
}

}  // namespace

struct RequestParser::Impl {
  explicit Impl(std::uint64_t limit) {
    parser.body_limit(limit);
    parser.header_limit(1u << 20);  // HeadScanner's limits are the tighter ones
    on_chunk = [this](std::uint64_t, boost::beast::string_view extensions, boost::beast::error_code& error) {
      extension_bytes += extensions.size();
      if (extension_bytes > kMaxChunkExtensions) error = http::error::bad_chunk_extension;
    };
    parser.on_chunk_header(on_chunk);
  }

  http::request_parser<http::string_body> parser;
  std::function<void(std::uint64_t, boost::beast::string_view, boost::beast::error_code&)> on_chunk;
  std::uint64_t extension_bytes = 0;
};

RequestParser::RequestParser(std::uint64_t body_limit) : impl_(std::make_unique<Impl>(body_limit)) {}
RequestParser::~RequestParser() = default;
RequestParser::RequestParser(RequestParser&&) noexcept = default;

std::string_view RequestHead::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

namespace {

std::optional<Refusal> take_fields(const http::request<http::string_body>& message, RequestHead& head) {
  for (const auto& field : message) {
    std::string name = lower(view(field.name_string()));
    const std::string value(view(field.value()));
    const auto [at, added] = head.headers.emplace(std::move(name), value);
    if (added) continue;
    if (single_headers().count(at->first) != 0) return Refusal{400, at->first + " is there twice"};
    at->second += ", " + value;
  }
  if (head.minor_version == 1 && head.headers.count("host") == 0) return Refusal{400, "no Host header"};
  return std::nullopt;
}

// Where the body ends must be beyond doubt.
std::optional<Refusal> check_framing(RequestHead& head) {
  const auto coding = head.headers.find("transfer-encoding");
  if (coding != head.headers.end()) {
    if (head.headers.count("content-length") != 0) return Refusal{400, "Content-Length beside Transfer-Encoding"};
    if (head.minor_version == 0) return Refusal{400, "Transfer-Encoding in HTTP/1.0"};
    if (lower(coding->second) != "chunked") return Refusal{501, "the only Transfer-Encoding here is chunked"};
    head.chunked = true;
  }
  const std::string_view length = head.header("content-length");
  if (length.find_first_not_of("0123456789") != std::string_view::npos) return Refusal{400, "malformed Content-Length"};
  const std::string encoding = lower(head.header("content-encoding"));
  if (!encoding.empty() && encoding != "identity") return Refusal{415, "bodies are read uncompressed only"};
  const std::string expectation = lower(head.header("expect"));
  if (!expectation.empty() && expectation != "100-continue") return Refusal{417, "unknown expectation"};
  head.expect_continue = !expectation.empty() && head.minor_version == 1;
  return std::nullopt;
}

}  // namespace

std::optional<Refusal> RequestParser::read_head(std::string_view text, RequestHead& head) {
  auto& parser = impl_->parser;
  boost::beast::error_code error;
  while (!text.empty() && !parser.is_header_done()) {
    const std::size_t taken = parser.put(boost::asio::buffer(text.data(), text.size()), error);
    if (error == http::error::need_more && taken > 0) error = {};
    if (error) break;
    text.remove_prefix(taken);
  }
  if (error && error != http::error::need_more) return refusal_of(error);
  if (!parser.is_header_done()) return Refusal{400, "malformed HTTP request"};
  const auto& message = parser.get();
  head.method = std::string(view(message.method_string()));
  head.target = std::string(view(message.target()));
  head.minor_version = message.version() == 10 ? 0 : 1;
  if (auto refusal = take_fields(message, head)) return refusal;
  if (auto refusal = check_framing(head)) return refusal;
  if (const auto length = parser.content_length()) head.content_length = *length;
  head.keep_alive = parser.keep_alive();
  parser.eager(true);
  return std::nullopt;
}

RequestParser::Progress RequestParser::put(std::string_view data) {
  Progress progress;
  boost::beast::error_code error;
  progress.taken = impl_->parser.put(boost::asio::buffer(data.data(), data.size()), error);
  if (error && error != http::error::need_more) progress.refusal = refusal_of(error);
  return progress;
}

bool RequestParser::done() const { return impl_->parser.is_done(); }
std::string RequestParser::take_body() { return std::move(impl_->parser.get().body()); }

}  // namespace gov::server
