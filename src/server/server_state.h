#pragma once
// What all connections of a server share, free of sockets.

#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>

#include "server/access_rules.h"
#include "server/http_metrics.h"
#include "server/http_parser.h"
#include "server/http_server.h"
#include "server/router.h"

namespace gov::server {

// Lets answers that other threads write wake their connections, until the server ends: a connection must not be
// touched, nor its last owner be such a thread, once the network behind it goes. Outlives the server in those answers.
struct WakeGate {
  std::shared_mutex mutex;  // shared: a wake is under way
  bool open = true;
};

// Bytes of bodies that are being read or used, and their limit.
class BodyBudget {
 public:
  explicit BodyBudget(std::uint64_t most) : most_(most) {}
  bool take(std::uint64_t bytes) {
    if (used_.fetch_add(bytes) + bytes <= most_) return true;
    give_back(bytes);
    return false;
  }
  void give_back(std::uint64_t bytes) { used_ -= bytes; }

 private:
  const std::uint64_t most_;
  std::atomic<std::uint64_t> used_ = 0;
};

// A body with its share of the budget, which it gives back when nobody uses it any more; that may be after the server.
class HeldBody {
 public:
  explicit HeldBody(std::shared_ptr<BodyBudget> budget) : budget_(std::move(budget)) {}
  ~HeldBody() { budget_->give_back(bytes_); }
  HeldBody(const HeldBody&) = delete;
  bool grow(std::uint64_t bytes) {  // false: there is no room
    if (!budget_->take(bytes)) return false;
    bytes_ += bytes;
    return true;
  }
  std::string text;

 private:
  std::shared_ptr<BodyBudget> budget_;
  std::uint64_t bytes_ = 0;
};

struct ServerState {
  ServerState(ServerOptions o, bool loopback_bind);

  const ServerOptions options;
  ApiKeys keys;
  HostRule hosts, admin_hosts;
  OriginRule origins;
  HttpMetrics metrics;
  const std::shared_ptr<WakeGate> gate = std::make_shared<WakeGate>();
  const std::shared_ptr<BodyBudget> bodies;
  std::atomic<bool> draining{false}, stopping{false};

  void set_routes(std::vector<Route> routes, bool loaded);
  void set_failed(std::string why);
  std::shared_ptr<const Router> router() const;
  bool loaded() const;
  std::string not_ready() const;  // why; empty: ready

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const Router> router_;
  bool loaded_ = false;
  std::string failed_;
};

// What a request's head leads to.
struct Admission {
  Refusal refusal;                       // status 0: the route's handler is to be called
  Responder::Headers headers;            // to be added to whatever answer
  std::shared_ptr<const Router> router;  // owns the route
  const Route* route = nullptr;          // null with a refusal, and for OPTIONS
  HttpRequest request;                   // without body
};

// Checks in this order: target, Host, Origin, key, route, method, whether a body belongs there.
Admission admit(const ServerState& state, const RequestHead& head, bool admin_listener);

// The answer to a refusal, in OpenAI's form.
void send_refusal(Responder& responder, const Refusal& refusal);

}  // namespace gov::server
