#pragma once
// One HTTP/1.1 request: the head's meaning and the body's framing. Boost.Beast does the parsing and stays behind this
// file; what two readers could understand differently is refused.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace gov::server {

struct Refusal {
  int status = 0;
  std::string reason;
};

struct RequestHead {
  std::string method, target;
  int minor_version = 1;                       // HTTP/1.0 or 1.1
  std::map<std::string, std::string> headers;  // names in lower case; of several with one name the values, joined
  std::optional<std::uint64_t> content_length;
  bool chunked = false, keep_alive = true, expect_continue = false;

  bool has_body() const { return chunked || content_length.value_or(0) > 0; }
  std::string_view header(const std::string& name) const;
};

class RequestParser {
 public:
  explicit RequestParser(std::uint64_t body_limit);
  ~RequestParser();
  RequestParser(RequestParser&&) noexcept;

  // text: a whole head, as HeadScanner found it.
  std::optional<Refusal> read_head(std::string_view text, RequestHead& head);

  // Takes bytes of the body; what it leaves has to come again with more behind it.
  struct Progress {
    std::size_t taken = 0;
    std::optional<Refusal> refusal;
  };
  Progress put(std::string_view data);
  bool done() const;
  std::string take_body();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gov::server
