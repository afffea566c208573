#pragma once
// HTTP/1.1 as the API sees it: requests in, one answer or one stream of events out. The network behind it is
// http_server.h; tests make a Responder without any.

#include <atomic>
#include <chrono>
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
  std::string method;                            // "GET", "POST", ...
  std::string path;                              // without query, percent-decoded
  std::map<std::string, std::string> query;      // decoded
  std::map<std::string, std::string> headers;    // names in lower case
  std::map<std::string, std::string> params;     // of the route: "/v1/responses/{id}" gives "id"
  std::shared_ptr<const std::string> body_text;  // shared by all copies of the request; null: none
  std::string request_id;                        // the client's x-request-id if it is sane, else our own
  std::string tenant;  // "" without API keys, else which key (a hash): isolates caches and stores

  std::string_view body() const { return body_text ? std::string_view(*body_text) : std::string_view(); }
};

// The answer to one request; every function may be called from any thread. Exactly one of json(), bytes() and
// begin_events() starts it; a second start is ignored. Once the client is gone, everything is dropped quietly and
// cancelled() is true.
class Responder {
 public:
  using Headers = std::vector<std::pair<std::string, std::string>>;
  using Clock = std::chrono::steady_clock;

  // What waits for the client to read it.
  struct Limits {
    std::size_t soft = 256u << 10;  // more counts as slow: the client is gone if that lasts `patience`
    std::size_t hard = 32u << 20;   // a stream that has more is cut at once
    Clock::duration patience = std::chrono::seconds(30);
  };

  // wake: called, from any thread, when there is something new to write after take() has left nothing.
  explicit Responder(std::function<void()> wake = {}) : wake_(std::move(wake)) {}

  void json(int status, std::string body, Headers headers = {});
  void bytes(int status, std::string_view content_type, std::string body, Headers headers = {});
  // Opens text/event-stream, which the network keeps alive. event() sends one event ("event: name" only if a name is
  // given), false once the client is gone; end() closes.
  void begin_events(Headers headers = {});
  bool event(std::string_view data, std::string_view name = {});
  void end();

  // True once the client is gone, was too slow, or the server gives up; to hand to Request::cancel.
  const std::atomic<bool>& cancelled() const { return cancelled_; }
  // Called once, from any thread, when that happens; at once if it already has.
  // Forgotten once the answer is complete.
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
  bool finished() const;  // the handler has said all
  void cancel();
  void set_limits(const Limits& limits);

 private:
  using Lock = std::unique_lock<std::mutex>;
  bool append(std::string_view text);  // to the stream; false once the client is gone
  void notify(Lock& lock);             // unlocks, then wakes the network if it sleeps
  void cancel_locked(Lock& lock);      // unlocks, then tells who asked for it

  mutable std::mutex mutex_;
  std::function<void()> wake_;
  std::vector<std::function<void()>> on_cancel_;
  Pending pending_;
  bool started_ = false, finished_ = false, woken_ = false;
  Limits limits_;
  Clock::time_point slow_since_{};  // of a stream of which more than the soft limit waits
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
