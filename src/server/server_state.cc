#include "server/server_state.h"

#include <openssl/rand.h>

#include <algorithm>

#include "base/error.h"
#include "server/api_error.h"

namespace gov::server {
namespace {

constexpr std::size_t kMaxRequestId = 64;

std::string request_id_of(std::string_view given) {
  const auto sane = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
  };
  if (!given.empty() && given.size() <= kMaxRequestId && std::all_of(given.begin(), given.end(), sane)) {
    return std::string(given);
  }
  unsigned char random[12];
  if (RAND_bytes(random, sizeof random) != 1) fail(ErrorCode::kUnsupported, "OpenSSL has no random numbers");
  std::string id = "req-";
  for (const unsigned char byte : random) id += fmt::format("{:02x}", byte);
  return id;
}

// What a browser asks before it lets a page of another origin send its request.
Refusal answer_preflight(const RequestHead& head, Responder::Headers& headers) {
  std::string allowed = "authorization, content-type, x-api-key, x-request-id";
  const std::string_view wanted = head.header("access-control-request-headers");
  const auto list_char = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == ',' || c == ' ';
  };
  if (!wanted.empty() && wanted.size() <= 2048 && std::all_of(wanted.begin(), wanted.end(), list_char))
    allowed = wanted;
  headers.emplace_back("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS");
  headers.emplace_back("Access-Control-Allow-Headers", allowed);
  headers.emplace_back("Access-Control-Max-Age", "600");
  return {204, ""};
}

// The checks that depend on who asks and from where; route may be null.
Refusal check_access(const ServerState& state, const RequestHead& head, bool admin, Admission& out) {
  const std::string_view origin = head.header("origin"), host = head.header("host");
  const bool open = out.route != nullptr && out.route->open;
  const HostRule& hosts = admin ? state.admin_hosts : state.hosts;
  // HTTP/1.0 needs no Host, but what is there counts: no browser leaves it out.
  const bool has_host = head.minor_version == 1 || !host.empty();
  if (has_host && !hosts.accepts(host)) return {403, "this Host is not served here (--allowed-host)"};
  const auto verdict = state.origins.judge(origin, host);
  if (verdict == OriginRule::Verdict::kForeign && !open)
    return {403, "pages of this origin may not ask (--cors-origin)"};
  if (verdict == OriginRule::Verdict::kAllowed) {
    out.headers.emplace_back("Access-Control-Allow-Origin", std::string(origin));
    out.headers.emplace_back("Access-Control-Expose-Headers", "x-request-id");
    out.headers.emplace_back("Vary", "Origin");
    if (head.method == "OPTIONS" && !head.header("access-control-request-method").empty()) {
      return answer_preflight(head, out.headers);
    }
  }
  if (state.keys.empty() || open) return {};
  const std::string_view key = presented_key(head.header("authorization"), head.header("x-api-key"));
  const auto tenant = state.keys.tenant_of(key);
  if (!tenant) {
    out.headers.emplace_back("WWW-Authenticate", "Bearer");
    return {401, key.empty() ? "an API key is needed (Authorization: Bearer ...)" : "the API key is not valid"};
  }
  out.request.tenant = *tenant;
  return {};
}

std::string error_type(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 503: return "service_unavailable";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

}  // namespace

ServerState::ServerState(ServerOptions o, bool loopback_bind)
    : options(std::move(o)),
      hosts(loopback_bind, options.allowed_hosts),
      admin_hosts(true, options.allowed_hosts),
      origins(options.cors_origins),
      bodies(std::make_shared<BodyBudget>(options.all_bodies)),
      router_(std::make_shared<Router>(std::vector<Route>{})) {
  for (const std::string& key : options.api_keys) keys.add(key);
}

void ServerState::set_routes(std::vector<Route> routes, bool loaded) {
  auto router = std::make_shared<const Router>(std::move(routes));
  const std::lock_guard lock(mutex_);
  router_.swap(router);
  loaded_ = loaded;
}

void ServerState::set_failed(std::string why) {
  const std::lock_guard lock(mutex_);
  failed_ = std::move(why);
}

std::shared_ptr<const Router> ServerState::router() const {
  const std::lock_guard lock(mutex_);
  return router_;
}

bool ServerState::loaded() const {
  const std::lock_guard lock(mutex_);
  return loaded_;
}

std::string ServerState::not_ready() const {
  if (draining) return "draining";
  const std::lock_guard lock(mutex_);
  return !failed_.empty() ? failed_ : loaded_ ? "" : "loading";
}

Admission admit(const ServerState& state, const RequestHead& head, bool admin_listener) {
  Admission out;
  out.router = state.router();
  out.request.method = head.method;
  out.request.headers = head.headers;
  out.request.request_id = request_id_of(head.header("x-request-id"));
  out.headers.emplace_back("x-request-id", out.request.request_id);
  auto target = parse_target(head.target);
  if (!target) {
    out.refusal = {400, "malformed request target"};
    return out;
  }
  out.request.path = target->path;
  out.request.query = std::move(target->query);
  if (!target->authority.empty()) out.request.headers["host"] = target->authority;  // RFC 9112 3.2.2
  Router::Match match = out.router->match(head.method, *target, admin_listener);
  out.route = match.route;
  out.request.params = std::move(match.params);
  RequestHead seen = head;
  seen.headers = out.request.headers;
  out.refusal = check_access(state, seen, admin_listener, out);
  if (out.refusal.status == 0 && head.method == "OPTIONS" && (target->path == "*" || !match.allow.empty())) {
    out.headers.emplace_back("Allow", match.allow.empty() ? "GET, HEAD, POST, DELETE, OPTIONS" : match.allow);
    out.refusal = {204, ""};
  }
  if (out.refusal.status == 0 && out.route == nullptr) {
    if (!match.allow.empty()) {
      out.headers.emplace_back("Allow", match.allow);
      out.refusal = {405, "this path has no such method; it has " + match.allow};
    } else if (!state.loaded()) {
      out.refusal = {503, "the model is being loaded"};
    } else {
      out.refusal = {404, "no such path"};
    }
  }
  if (out.refusal.status == 0 && state.draining && !out.route->open) out.refusal = {503, "the server is shutting down"};
  // Nobody may make the server keep bytes that it has no use for, least of all without a key.
  if (out.refusal.status == 0 && head.has_body() && (out.route->open || out.route->method == "GET")) {
    out.refusal = {413, "a request of this route has no body"};
  }
  if (out.refusal.status != 0) out.route = nullptr;
  return out;
}

void send_refusal(Responder& responder, const Refusal& refusal) {
  if (refusal.status == 204) return responder.bytes(204, "", "");
  Responder::Headers headers;
  if (refusal.status == 503) headers.emplace_back("Retry-After", "5");
  const std::string code = refusal.status == 401 ? "invalid_api_key" : "";
  responder.json(refusal.status, error_body({refusal.status, error_type(refusal.status), refusal.reason, "", code}),
                 std::move(headers));
}

}  // namespace gov::server
