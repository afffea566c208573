#pragma once
// Fetches a picture from a URL that a client sent: the only connections that this process makes. They never reach this
// machine, private networks or the link-local addresses where clouds keep their metadata: https only, the host resolved
// once (by the system's resolver, which asks whom it is set to), every answer global, the connection pinned to those
// answers and checked again as the socket is made; each redirect goes the same way.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/global_address.h"

namespace gov::server {

struct FetchOptions {
  std::vector<std::string>
      hosts;  // allowed, in any case: "example.com", or ".example.com" for all below it; empty: any
  int redirects = 3;
  double connect_seconds = 5;
  double total_seconds = 10;  // redirects included
  std::size_t max_bytes = 20u << 20;
  std::vector<int> ports = {443};
  // Addresses of a host as text; throws or returns none if it has none. Empty: the system's resolver.
  std::function<std::vector<std::string>(const std::string& host)> resolve;
  // For tests: which addresses may be reached (empty: is_global), who has signed the certificates (PEM file; empty: the
  // system's), and a call for each connection that is about to be made.
  std::function<bool(const Address&)> allowed;
  std::string ca_file;
  std::function<void(const Address&)> connecting;
};

class Fetcher {
 public:
  explicit Fetcher(FetchOptions options);
  ~Fetcher();

  // What is behind the URL. Blocks for at most `seconds` or total_seconds, and as long as the resolver takes; any
  // thread. Error kInvalidArgument for a URL that is not allowed, an answer that is not 200 or too large, a server that
  // cannot be reached in time (never which of its addresses, or why not); kCancelled soon after `cancelled` (may be
  // empty) says so.
  std::string get(std::string_view url, double seconds = 1e9, const std::function<bool()>& cancelled = {}) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gov::server
