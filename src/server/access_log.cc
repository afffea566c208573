#include "server/access_log.h"

#include <chrono>
#include <ctime>

#include "base/error.h"
#include "base/json_writer.h"

namespace gov::server {
namespace {

constexpr std::size_t kMaxField = 200;

std::string now_text() {  // RFC 3339, UTC, milliseconds
  const auto now = std::chrono::system_clock::now();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
  const std::time_t seconds = static_cast<std::time_t>(ms / 1000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, ms % 1000);
}

// A word of the text form: never empty, no spaces, so that the line can be split again.
std::string word(const std::string& text) {
  std::string out = printable(text, kMaxField);
  for (char& c : out) {
    if (c == ' ') c = '_';
  }
  return out.empty() ? "-" : out;
}

}  // namespace

std::string access_line(const AccessRecord& r, bool json) {
  if (!json) {
    return fmt::format("{} {} {} {} {} {} in={} out={} s={:.4f} key={}", now_text(), word(r.request_id), word(r.remote),
                       word(r.method), word(r.path), r.status, r.bytes_in, r.bytes_out, r.seconds, word(r.tenant));
  }
  JsonWriter w;
  w.begin_object().field("time", now_text()).field("request_id", printable(r.request_id, kMaxField));
  w.field("remote", r.remote)
      .field("method", printable(r.method, kMaxField))
      .field("path", printable(r.path, kMaxField));
  w.field("status", r.status).field("bytes_in", r.bytes_in).field("bytes_out", r.bytes_out);
  w.field("seconds", r.seconds).field("key", printable(r.tenant, kMaxField)).end_object();
  return w.take();
}

}  // namespace gov::server
