#include "server/http_server.h"

#include <sys/resource.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <thread>

#include "base/error.h"
#include "base/json_writer.h"
#include "base/timer.h"
#include "server/http_connection.h"
#include "server/static_files.h"

namespace gov::server {

using asio::ip::tcp;

namespace {

constexpr int kBacklog = 4096;
constexpr std::size_t kRefusalsAtOnce = 256;  // connections above the limit that are told so

std::string full_answer() {
  const std::string body =
      "{\"error\":{\"message\":\"too many connections, try again "
      "later\",\"type\":\"service_unavailable\",\"param\":null,"
      "\"code\":\"overloaded\"}}";
  AnswerHead head;
  head.status = 503;
  head.content_type = "application/json";
  head.length = body.size();
  head.keep_alive = false;
  return answer_head(head, {{"Retry-After", "1"}}, {}) + body;
}

tcp::endpoint resolve_bind(asio::io_context& io, const std::string& host, int port) {
  if (port < 0 || port > 65535) fail(ErrorCode::kInvalidArgument, "port {} is not in 0..65535", port);
  const auto number = static_cast<unsigned short>(port);
  boost::system::error_code error;
  const auto address = asio::ip::make_address(host, error);
  if (!error) return {address, number};
  tcp::resolver resolver(io);
  const auto found =
      resolver.resolve(host, std::to_string(port), tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty()) fail(ErrorCode::kInvalidArgument, "--host {}: no such address", printable(host));
  return found.begin()->endpoint();
}

tcp::acceptor listen_at(const asio::any_io_executor& executor, const tcp::endpoint& endpoint) {
  tcp::acceptor acceptor(executor);
  boost::system::error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(kBacklog, error);
  if (error) {
    fail(ErrorCode::kIo, "cannot listen at {} port {}: {}", endpoint.address().to_string(), endpoint.port(),
         error.message());
  }
  return acceptor;
}

std::unique_ptr<asio::ssl::context> make_tls(const std::string& cert, const std::string& key) {
  if (cert.empty() != key.empty()) fail(ErrorCode::kInvalidArgument, "TLS needs a certificate and its key, both");
  if (cert.empty()) return nullptr;
  auto context = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  boost::system::error_code error;
  context->use_certificate_chain_file(cert, error);
  if (error) fail(ErrorCode::kInvalidArgument, "'{}' is no PEM certificate: {}", printable(cert), error.message());
  context->use_private_key_file(key, asio::ssl::context::pem, error);
  if (error || SSL_CTX_check_private_key(context->native_handle()) != 1) {
    fail(ErrorCode::kInvalidArgument, "'{}' is not the key of the certificate", printable(key));
  }
  return context;
}

}  // namespace

struct Server::Impl {
  explicit Impl(ServerOptions o)
      : endpoint(resolve_bind(io, o.host, o.port)),
        tls(make_tls(o.tls_cert, o.tls_key)),
        state(std::move(o), endpoint.address().is_loopback()),
        accepting(asio::make_strand(io)),
        acceptor(listen_at(accepting, endpoint)),
        handlers(static_cast<std::size_t>(std::max(1, state.options.handler_threads))) {
    if (state.options.admin_port >= 0) {
      admin_acceptor.emplace(listen_at(accepting, resolve_bind(io, "127.0.0.1", state.options.admin_port)));
      admin_port = admin_acceptor->local_endpoint().port();
    }
    endpoint = acceptor.local_endpoint();  // with the port that was chosen
  }

  std::vector<Route> own_routes(const std::function<std::string()>& more_metrics);
  Handler readiness();
  asio::awaitable<void> accept_loop(tcp::acceptor& from, bool admin);
  void take(tcp::socket socket, bool admin);
  // counted: kept until the client was told.
  asio::awaitable<void> say_full(tcp::socket socket, std::shared_ptr<void> counted);
  void run_network();
  void close_acceptors();

  asio::io_context io;
  tcp::endpoint endpoint;  // where it listens
  int admin_port = -1;
  std::unique_ptr<asio::ssl::context> tls;
  ServerState state;
  asio::any_io_executor accepting;  // a strand: the acceptors are used and closed one thing after the other
  tcp::acceptor acceptor;
  std::optional<tcp::acceptor> admin_acceptor;
  asio::thread_pool handlers;
  ConnectionList connections;
  std::atomic<std::size_t> refusals{0};
  std::vector<std::thread> threads;
  bool stopped = false;
};

asio::awaitable<void> Server::Impl::say_full(tcp::socket socket, [[maybe_unused]] std::shared_ptr<void> counted) {
  boost::system::error_code error;
  if (!tls) {
    const std::string words = full_answer();
    socket.non_blocking(true, error);
    socket.write_some(asio::buffer(words), error);  // fits into any empty send buffer
    socket.shutdown(tcp::socket::shutdown_send, error);
    asio::steady_timer timer(socket.get_executor());  // what the client has sent is not to reset the connection at once
    timer.expires_after(std::chrono::milliseconds(500));
    co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
  }
  socket.close(error);
}

asio::awaitable<void> Server::Impl::accept_loop(tcp::acceptor& from, bool admin) {
  asio::steady_timer pause(accepting);
  bool short_of_something = false;  // descriptors or memory: the connections that are open will free some
  while (from.is_open()) {
    try {
      boost::system::error_code error;
      if (std::exchange(short_of_something, false)) {
        pause.expires_after(std::chrono::milliseconds(50));
        co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
      }
      tcp::socket socket =
          co_await from.async_accept(asio::make_strand(io), asio::redirect_error(asio::use_awaitable, error));
      if (error == asio::error::operation_aborted) break;
      if (error) short_of_something = true;
      else take(std::move(socket), admin);
    } catch (const std::exception&) {  // this connection is lost, and nothing else
      short_of_something = true;
    }
  }
}

void Server::Impl::take(tcp::socket socket, bool admin) {
  if (connections.size() < state.options.max_connections) {
    const Connection::Environment environment{state, connections, handlers, admin ? nullptr : tls.get(), admin};
    std::make_shared<Connection>(std::move(socket), environment)->start();
    return;
  }
  ++state.metrics.refused_connections;
  const bool too_many = ++refusals > kRefusalsAtOnce;
  const std::shared_ptr<void> counted(nullptr, [this](void*) { --refusals; });
  if (too_many) return;
  const auto executor = socket.get_executor();
  asio::co_spawn(executor, say_full(std::move(socket), counted), asio::detached);
}

Handler Server::Impl::readiness() {
  return [this](const HttpRequest&, const std::shared_ptr<Responder>& responder) {
    const std::string why = state.not_ready();
    JsonWriter w;
    w.begin_object().field("status", why.empty() ? "ready" : why).end_object();
    responder->json(why.empty() ? 200 : 503, w.take(), {{"Cache-Control", "no-store"}});
  };
}

std::vector<Route> Server::Impl::own_routes(const std::function<std::string()>& more_metrics) {
  const Handler alive = [](const HttpRequest&, const std::shared_ptr<Responder>& responder) {
    responder->json(200, "{\"status\":\"ok\"}", {{"Cache-Control", "no-store"}});
  };
  const Handler metrics = [this, more_metrics](const HttpRequest&, const std::shared_ptr<Responder>& responder) {
    std::string text = state.metrics.text();
    if (more_metrics) text += more_metrics();
    responder->bytes(200, "text/plain; version=0.0.4; charset=utf-8", std::move(text));
  };
  std::vector<Route> routes = static_routes();
  for (const bool admin : {false, true}) {
    if (admin && !admin_acceptor) break;
    routes.push_back({"GET", "/health", alive, true, admin});
    routes.push_back({"GET", "/ready", readiness(), true, admin});
    routes.push_back({"GET", "/metrics", metrics, false, admin});
  }
  return routes;
}

// What one connection's handler throws (memory) is not the end of the others.
void Server::Impl::run_network() {
  for (;;) {
    try {
      io.run();
      return;
    } catch (const std::exception&) {
    }
  }
}

void Server::Impl::close_acceptors() {
  asio::post(accepting, [this] {
    boost::system::error_code ignored;
    acceptor.close(ignored);
    if (admin_acceptor) admin_acceptor->close(ignored);
  });
}

Server::Server(ServerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {
  impl_->state.set_routes(impl_->own_routes({}), false);
}

Server::~Server() { stop(); }

void Server::start() {
  Impl& impl = *impl_;
  asio::co_spawn(impl.accepting, impl.accept_loop(impl.acceptor, false), asio::detached);
  if (impl.admin_acceptor) asio::co_spawn(impl.accepting, impl.accept_loop(*impl.admin_acceptor, true), asio::detached);
  for (int i = 0; i < std::max(1, impl.state.options.threads); ++i) {
    impl.threads.emplace_back([&impl] { impl.run_network(); });
  }
}

void Server::set_routes(std::vector<Route> routes, std::function<std::string()> more_metrics) {
  std::vector<Route> all = impl_->own_routes(more_metrics);
  for (Route& route : routes) all.push_back(std::move(route));
  impl_->state.set_routes(std::move(all), true);
}

void Server::set_failed(std::string why) { impl_->state.set_failed(std::move(why)); }

std::string Server::address() const {
  const tcp::endpoint& at = impl_->endpoint;
  std::string host = at.address().to_string();
  if (at.address().is_v6()) host = "[" + host + "]";
  return fmt::format("{}://{}:{}", impl_->tls ? "https" : "http", host, at.port());
}

int Server::port() const { return impl_->endpoint.port(); }
int Server::admin_port() const { return impl_->admin_port; }

bool Server::drain(double seconds, const std::function<bool()>& give_up) {
  impl_->state.draining = true;
  impl_->close_acceptors();
  impl_->connections.wake_all();
  const Timer timer;
  while (!impl_->connections.wait_empty(0.05)) {
    if (timer.seconds() > seconds || (give_up && give_up())) return false;
  }
  return true;
}

void Server::stop() {
  Impl& impl = *impl_;
  if (std::exchange(impl.stopped, true)) return;
  impl.state.draining = impl.state.stopping = true;
  impl.close_acceptors();
  impl.connections.wake_all();
  if (!impl.threads.empty()) impl.connections.wait_empty(5);  // for the last words
  impl.handlers.join();
  impl.io.stop();
  for (std::thread& thread : impl.threads) thread.join();
  const std::unique_lock lock(impl.state.gate->mutex);
  impl.state.gate->open = false;
}

std::string Server::metrics() const { return impl_->state.metrics.text(); }
std::size_t Server::open_connections() const { return impl_->connections.size(); }

std::size_t prepare_process() {
  std::signal(SIGPIPE, SIG_IGN);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<std::size_t>(limit.rlim_cur);
}

}  // namespace gov::server
