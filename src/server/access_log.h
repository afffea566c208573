#pragma once
// One line for each request: text for people or JSON for programs. No bodies, no queries, no keys, no control bytes.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace gov::server {

struct AccessRecord {
  std::string request_id, remote, method, path, tenant;
  int status = 0;  // 499: the client left before the answer was complete
  std::uint64_t bytes_in = 0, bytes_out = 0;
  double seconds = 0;
};

std::string access_line(const AccessRecord& record, bool json);  // without line break; the time is put in front

}  // namespace gov::server
