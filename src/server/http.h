#pragma once
// HTTP/1.1 as the API sees it: requests in, one answer or one stream of events out. The network behind it is
// http_server.h; tests make a Responder without any.

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace gov::server {

struct HttpRequest {
  std::string method;                          // "GET", "POST", ...
  std::string path;                            // without query, percent-decoded
  std::map<std::string, std::string> query;    // decoded
  std::map<std::string, std::string> headers;  // names in lower case
  std::map<std::string, std::string> params;   // of the route: "/v1/responses/{id}" gives "id"
  std::string body;
  std::string request_id;                      // the client's x-request-id if it is sane, else our own
  std::string tenant;                          // "" without API keys, else which key (a hash): isolates caches and stores
};

// The answer to one request; every function may be called from any thread. Exactly one of json(), bytes() and
// begin_events() starts it. Once the client is gone, everything is dropped quietly and cancelled() is true.
class Responder {
 public:
  using Headers = std::vector<std::pair<std::string, std::string>>;

  // wake: called, from any thread, whenever there is something new to write.
  explicit Responder(std::function<void()> wake = {}) : wake_(std::move(wake)) {}

  void json(int status, std::string body, Headers headers = {});
  void bytes(int status, std::string_view content_type, std::string body, Headers headers = {});
  // Opens text/event-stream. event() sends one event ("event: name" only if a name is given); comment() keeps alive;
  // end() closes. What the client has not read yet is bounded: when more than the limit waits, event() returns false
  // and the client counts as gone.
  void begin_events(Headers headers = {});
  bool event(std::string_view data, std::string_view name = {});
  void comment(std::string_view text);
  void end();

  // True once the client is gone, was too slow, or the server gives up; to hand to Request::cancel.
  const std::atomic<bool>& cancelled() const { return cancelled_; }
  // Called once, from any thread, when that happens; at once if it already has.
  void on_cancel(std::function<void()> call);

  // For the network side.
  struct Pending {
    int status = 0;  // 0: the head was taken before
    std::string content_type;
    Headers headers;
    bool stream = false;
    std::string bytes;
    bool finished = false;
  };
  Pending take();  // what is to be written now
  bool started() const;
  void cancel();
  void set_limit(std::size_t bytes);

 private:
  mutable std::mutex mutex_;
  std::function<void()> wake_;
  std::vector<std::function<void()>> on_cancel_;
  Pending pending_;
  bool started_ = false, finished_ = false;
  std::size_t limit_ = 256u << 10;
  std::atomic<bool> cancelled_ = false;
};

using Handler = std::function<void(const HttpRequest&, const std::shared_ptr<Responder>&)>;

struct Route {
  std::string method, pattern;  // "/v1/models/{id}": a name in braces takes one path component
  Handler handler;
  bool open = false;   // needs no API key: only /health, /ready and the web page
  bool admin = false;  // on the admin listener only
};

}  // namespace gov::server
