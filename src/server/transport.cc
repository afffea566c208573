#include "server/transport.h"

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace gov::server {
namespace {

std::string remote_of(const asio::ip::tcp::socket& socket) {
  boost::system::error_code error;
  const auto endpoint = socket.remote_endpoint(error);
  return error ? "-" : endpoint.address().to_string();
}

}  // namespace

Transport::Transport(asio::ip::tcp::socket socket, asio::ssl::context* tls)
    : socket_(std::move(socket)), remote_(remote_of(socket_)) {
  boost::system::error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  if (tls != nullptr) tls_.emplace(socket_, *tls);
}

asio::awaitable<bool> Transport::handshake(boost::system::error_code& error) {
  if (!tls_) co_return true;
  co_await tls_->async_handshake(asio::ssl::stream_base::server, asio::redirect_error(asio::use_awaitable, error));
  co_return !error;
}

asio::awaitable<std::size_t> Transport::read_some(std::span<char> into, boost::system::error_code& error) {
  const asio::mutable_buffer buffer(into.data(), into.size());
  if (tls_) co_return co_await tls_->async_read_some(buffer, asio::redirect_error(asio::use_awaitable, error));
  co_return co_await socket_.async_read_some(buffer, asio::redirect_error(asio::use_awaitable, error));
}

asio::awaitable<std::size_t> Transport::write_some(std::string_view from, boost::system::error_code& error) {
  const asio::const_buffer buffer(from.data(), from.size());
  if (tls_) co_return co_await tls_->async_write_some(buffer, asio::redirect_error(asio::use_awaitable, error));
  co_return co_await socket_.async_write_some(buffer, asio::redirect_error(asio::use_awaitable, error));
}

asio::awaitable<void> Transport::shutdown_send() {
  boost::system::error_code ignored;
  // Sends close_notify, and waits for the peer's; Asio queues its reads behind one that is under way.
  if (tls_) co_await tls_->async_shutdown(asio::redirect_error(asio::use_awaitable, ignored));
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
}

void Transport::close() {
  boost::system::error_code ignored;
  socket_.close(ignored);
}

void Signal::raise() {
  raised_ = true;
  timer_.cancel();
}

asio::awaitable<bool> Signal::wait_until(std::chrono::steady_clock::time_point when) {
  if (!raised_) {
    timer_.expires_at(when);
    boost::system::error_code ignored;
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
  co_return std::exchange(raised_, false);
}

}  // namespace gov::server
