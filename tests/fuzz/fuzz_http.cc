// Request heads, targets, routes and image URLs from arbitrary bytes. Bytes that come in pieces are understood as at
// once; what the gate accepts has the same lines for the parser behind it; an accepted URL is written so that it is
// read again as itself.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "server/head_scan.h"
#include "server/http_parser.h"
#include "server/https_url.h"
#include "server/router.h"

namespace {

using namespace gov::server;

void check(bool holds) {
  if (!holds) std::abort();
}

void route(const std::string& target_text) {
  static const Router router = [] {
    const Handler none;
    return Router({{"GET", "/", none},
                   {"GET", "/v1/items/{id}", none},
                   {"GET", "/v1/items/special", none},
                   {"POST", "/v1/items/{id}/{part}", none}});
  }();
  const auto target = parse_target(target_text);
  if (!target) return;
  for (const char c : target->path) check(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F);
  const auto match = router.match("GET", *target, false);
  if (match.route != nullptr) check(!match.allow.empty());
  for (const auto& [name, value] : match.params) check(!value.empty());
}

void heads(std::string_view text) {
  HeadScanner whole;
  const bool done = whole.scan(text);
  HeadScanner pieces;
  bool pieces_done = false;
  std::size_t step = 1;
  for (std::size_t given = 0; given < text.size() && !pieces_done; step = step * 3 % 17 + 1) {
    given = std::min(text.size(), given + step);
    pieces_done = pieces.scan(text.substr(0, given));
  }
  if (!text.empty()) check(done == pieces_done);
  if (!done) return;
  check(whole.status() == pieces.status() && whole.end() == pieces.end() && whole.begin() == pieces.begin());
  if (whole.status() != 0) return;
  check(whole.end() <= text.size() && whole.begin() < whole.end());
  const std::string_view head_text = text.substr(whole.begin(), whole.end() - whole.begin());
  RequestParser parser(1000);
  RequestHead head;
  if (parser.read_head(head_text, head)) return;
  check(head_text.starts_with(head.method + " " + head.target + " HTTP/1."));
  check(!(head.chunked && head.content_length));
  route(head.target);
  for (std::string_view body = text.substr(whole.end()); !parser.done() && !body.empty();) {
    const auto progress = parser.put(body);
    check(progress.taken <= body.size());
    if (progress.refusal || progress.taken == 0) break;
    body.remove_prefix(progress.taken);
  }
  if (parser.done()) check(parser.take_body().size() <= 1000);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  heads(text);
  route(std::string(text));
  if (const auto url = parse_https_url(text)) {
    const auto again = parse_https_url(url->str());
    check(again && again->str() == url->str() && again->host == url->host && again->port == url->port);
    for (const char c : url->str())
      check(c > 0x20 && c < 0x7F && c != '\\' && c != '@' ? true
                                                          : c == '@' && url->path.find('@') != std::string::npos);
  }
  return 0;
}
