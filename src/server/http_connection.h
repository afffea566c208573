#pragma once
// One connection: reads requests one after the other, lets the routes answer them, writes the answers in order.
// Internal: includes Asio. Everything but the handlers runs on the connection's strand.

#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <condition_variable>
#include <unordered_map>

#include "server/access_log.h"
#include "server/http_write.h"
#include "server/server_state.h"
#include "server/transport.h"

namespace gov::server {

class Connection;

// All connections that are open, so that they can be told to end.
class ConnectionList {
 public:
  void add(const std::shared_ptr<Connection>& connection);
  void remove(const Connection* connection);
  std::size_t size() const;
  void wake_all();  // each looks again at ServerState::draining and stopping
  // Until none is open; false after the time.
  bool wait_empty(double seconds) const;

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable empty_;
  std::unordered_map<const Connection*, std::weak_ptr<Connection>> open_;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  struct Environment {
    ServerState& state;
    ConnectionList& list;
    asio::thread_pool& handlers;
    asio::ssl::context* tls;
    bool admin;  // came in at the admin listener
  };

  // The socket's executor is the strand.
  Connection(asio::ip::tcp::socket socket, const Environment& environment);

  void start();  // keeps itself alive until it ends
  void wake();   // from any thread

 private:
  using Clock = std::chrono::steady_clock;
  struct Exchange;  // one request and its answer
  struct Answering;

  // g++ 12 destroys braced aggregates inside of a co_await expression twice: arguments of these are names, references
  // and views.
  asio::awaitable<void> run();
  asio::awaitable<void> read_loop();
  asio::awaitable<bool> exchange();  // true: another request may follow

  asio::awaitable<bool> read_head(Exchange& exchange);
  asio::awaitable<bool> read_body(Exchange& exchange);
  asio::awaitable<void> refuse_unread(Exchange& exchange, int status, std::string_view reason);
  void call_handler(Exchange& exchange);
  asio::awaitable<void> answer(Exchange& exchange);
  asio::awaitable<bool> write_pending(Exchange& exchange, const Responder::Pending& pending);
  asio::awaitable<bool> end_stream_early(Exchange& exchange);
  bool client_left(const Exchange& exchange) const;
  asio::awaitable<bool> write(std::string_view bytes);
  asio::awaitable<void> linger();
  void log(const Exchange& exchange);

  void drop_input(std::size_t bytes);
  void arm_watchdog(double seconds);  // closes the connection unless armed anew or disarmed
  void disarm_watchdog() { watchdog_.cancel(); }
  void close();

  Environment env_;
  asio::any_io_executor executor_;
  Transport transport_;
  Signal changed_, room_;
  asio::steady_timer watchdog_;
  std::string input_;             // received and not used yet
  std::size_t read_size_ = 4096;  // asked of the system at once
  std::uint64_t received_ = 0, sent_ = 0;
  bool discard_ = false;  // what comes in is of no use any more
  bool ended_ = false;    // the client sends no more
  bool broken_ = false;   // nothing can be written any more
  bool first_ = true;     // no request has come yet
  bool writing_ = false;
  std::shared_ptr<Responder> current_;  // of the request being answered
};

}  // namespace gov::server
