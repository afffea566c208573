#pragma once
// What the network side counts, as Prometheus reads it.

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace gov::server {

class HttpMetrics {
 public:
  std::atomic<std::int64_t> open_connections{0}, active_requests{0};
  std::atomic<std::uint64_t> connections{0}, refused_connections{0}, failed_handshakes{0}, bytes_in{0}, bytes_out{0},
      cancelled{0}, streams{0};

  // route: the pattern, so that the number of series is bounded; "" for what matched none.
  void add_request(const std::string& route, const std::string& method, int status, double seconds);
  std::string text() const;

 private:
  static constexpr std::array<double, 14> kBounds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                                  0.25,  0.5,    1,     2.5,  10,    60,   300};
  struct Key {
    std::string route, method;
    int status;
    auto operator<=>(const Key&) const = default;
  };
  struct Durations {
    std::array<std::uint64_t, kBounds.size() + 1> counts{};
    double sum = 0;
  };

  mutable std::mutex mutex_;
  std::map<Key, std::uint64_t> requests_;
  std::map<std::string, Durations> durations_;  // by route
};

}  // namespace gov::server
