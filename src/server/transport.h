#pragma once
// A connection's bytes, plain or through TLS, as coroutines. Internal: includes Asio.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace gov::server {

namespace asio = boost::asio;

class Transport {
 public:
  Transport(asio::ip::tcp::socket socket, asio::ssl::context* tls);

  // All of them: false, or 0 bytes, with `error` set. One read and one write may be under way at a time.
  asio::awaitable<bool> handshake(boost::system::error_code& error);
  asio::awaitable<std::size_t> read_some(std::span<char> into, boost::system::error_code& error);
  asio::awaitable<std::size_t> write_some(std::string_view from, boost::system::error_code& error);
  asio::awaitable<void> shutdown_send();

  void close();  // whatever is under way ends with an error
  const std::string& remote() const { return remote_; }

 private:
  asio::ip::tcp::socket socket_;
  std::optional<asio::ssl::stream<asio::ip::tcp::socket&>> tls_;
  std::string remote_;
};

// Something that one coroutine waits for and others bring about, all on one strand. A raise before the wait is not
// lost.
class Signal {
 public:
  explicit Signal(const asio::any_io_executor& executor) : timer_(executor) {}
  void raise();
  // True when raised, false when the time has come.
  asio::awaitable<bool> wait_until(std::chrono::steady_clock::time_point when);

 private:
  asio::steady_timer timer_;
  bool raised_ = false;
};

}  // namespace gov::server
