#pragma once
// The HTTP/1.1 server: sockets, TLS, limits, time limits, who may ask, streams, draining. It knows nothing of models:
// it answers /health, /ready and /metrics, and what set_routes() adds.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "server/head_scan.h"
#include "server/http.h"

namespace gov::server {

struct HttpTimeouts {        // seconds
  double header = 10;        // from the first byte of a request to the end of its head
  double idle = 75;          // without a request
  double body_grace = 10;    // before the least speed of a body counts
  double body_rate = 1024;   // bytes per second
  double body_silence = 10;  // since the last byte of a body that is not complete
  double write_stall = 30;   // no byte taken by the client
  double keep_alive = 15;    // between comments of a stream that has nothing to say
  double linger = 2;         // for a refused body to be read away, so that the client sees the answer
};

struct ServerOptions {
  std::string host = "127.0.0.1";  // an address, or a name that has one
  int port = 8080;                 // 0: any
  int admin_port = -1;             // a second listener for routes with `admin`, on loopback always; -1: none, 0: any
  int threads = 2;                 // of the network
  int handler_threads = 2;         // that run handlers, which may parse and render for a while
  std::size_t max_connections = 4096;
  std::uint64_t max_body = 32u << 20;
  std::uint64_t all_bodies = 512u << 20;  // being read or used at once; requests above it are answered by 503
  HeadLimits head;
  HttpTimeouts timeouts;
  Responder::Limits stream;
  std::vector<std::string> api_keys;       // empty: everybody may ask
  std::vector<std::string> allowed_hosts;  // names besides loopback's in the Host header
  std::vector<std::string> cors_origins;   // pages of other origins that may ask; "*": all
  std::string tls_cert, tls_key;           // PEM files; both or none
  bool log_json = false;
  std::function<void(std::string_view line)> access_log;  // from any thread; empty: none
};

class Server {
 public:
  // Binds and listens. Error kInvalidArgument for an option, kIo when the address cannot be had.
  explicit Server(ServerOptions options);
  ~Server();  // as stop()

  void start();  // from now on connections are accepted

  // Until then everything but /health, /ready, /metrics and the web page is answered by 503. May be called while
  // running. more_metrics: Prometheus text that /metrics puts behind the network's.
  void set_routes(std::vector<Route> routes, std::function<std::string()> more_metrics = {});
  // Readiness: empty: ready once routes are set. Otherwise why not: "the device is lost".
  void set_failed(std::string why);

  std::string address() const;  // "http://127.0.0.1:8080"
  int port() const;
  int admin_port() const;  // -1: no such listener

  // Accepts no more, closes idle connections, tells /ready; open requests may end. True when all have; false after
  // `seconds`, or as soon as `give_up` (may be empty) says so.
  bool drain(double seconds, const std::function<bool()>& give_up = {});
  // Ends what is left: streams get an error event. Joins all threads.
  void stop();

  std::string metrics() const;  // of the network, Prometheus text
  std::size_t open_connections() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The limit of open files is raised as far as the system allows; what it is now. SIGPIPE is ignored from now on.
std::size_t prepare_process();

}  // namespace gov::server
