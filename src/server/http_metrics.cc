#include "server/http_metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace gov::server {
namespace {

// Methods are a client's words: those that no route has share one series.
std::string known_method(const std::string& method) {
  for (const char* known : {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}) {
    if (method == known) return method;
  }
  return "other";
}

}  // namespace

void HttpMetrics::add_request(const std::string& route, const std::string& method, int status, double seconds) {
  const std::string label = route.empty() ? "unmatched" : route;
  const std::lock_guard lock(mutex_);
  ++requests_[{label, known_method(method), status}];
  Durations& durations = durations_[label];
  const auto bound = std::lower_bound(kBounds.begin(), kBounds.end(), seconds);
  ++durations.counts[static_cast<std::size_t>(bound - kBounds.begin())];
  durations.sum += seconds;
}

std::string HttpMetrics::text() const {
  std::string out;
  const auto add = [&](const char* name, const char* type, const char* help, auto value) {
    fmt::format_to(std::back_inserter(out), "# HELP {0} {1}\n# TYPE {0} {2}\n{0} {3}\n", name, help, type, value);
  };
  add("gov_http_open_connections", "gauge", "Connections open now.", open_connections.load());
  add("gov_http_active_requests", "gauge", "Requests being answered now.", active_requests.load());
  add("gov_http_connections_total", "counter", "Connections accepted.", connections.load());
  add("gov_http_refused_connections_total", "counter", "Connections refused at the limit.", refused_connections.load());
  add("gov_http_failed_handshakes_total", "counter", "TLS handshakes that failed.", failed_handshakes.load());
  add("gov_http_received_bytes_total", "counter", "Bytes received.", bytes_in.load());
  add("gov_http_sent_bytes_total", "counter", "Bytes sent.", bytes_out.load());
  add("gov_http_cancelled_total", "counter", "Requests whose client left before the answer was complete.",
      cancelled.load());
  add("gov_http_streams_total", "counter", "Event streams opened.", streams.load());
  const std::lock_guard lock(mutex_);
  out += "# HELP gov_http_requests_total Requests answered.\n# TYPE gov_http_requests_total counter\n";
  for (const auto& [key, count] : requests_) {
    fmt::format_to(std::back_inserter(out), "gov_http_requests_total{{route=\"{}\",method=\"{}\",status=\"{}\"}} {}\n",
                   key.route, key.method, key.status, count);
  }
  constexpr const char* kName = "gov_http_request_seconds";
  fmt::format_to(std::back_inserter(out),
                 "# HELP {0} Seconds from the head of a request to the end of its answer.\n# TYPE {0} histogram\n",
                 kName);
  for (const auto& [route, durations] : durations_) {
    std::uint64_t below = 0;
    for (std::size_t i = 0; i < durations.counts.size(); ++i) {
      below += durations.counts[i];
      const std::string bound = i < kBounds.size() ? fmt::format("{}", kBounds[i]) : "+Inf";
      fmt::format_to(std::back_inserter(out), "{}_bucket{{route=\"{}\",le=\"{}\"}} {}\n", kName, route, bound, below);
    }
    fmt::format_to(std::back_inserter(out), "{0}_sum{{route=\"{1}\"}} {2}\n{0}_count{{route=\"{1}\"}} {3}\n", kName,
                   route, durations.sum, below);
  }
  return out;
}

}  // namespace gov::server
