#include "server/http.h"

namespace gov::server {
namespace {

// One event in the text/event-stream format: each line of the data gets its own field, CR and CRLF end lines as LF
// does.
std::string event_text(std::string_view data, std::string_view name) {
  std::string out;
  out.reserve(data.size() + name.size() + 24);
  if (!name.empty()) out.append("event: ").append(name).append("\n");
  for (bool more = true; more;) {
    const std::size_t end = data.find_first_of("\r\n");
    more = end != std::string_view::npos;
    out.append("data: ").append(data.substr(0, end)).append("\n");
    if (more) data.remove_prefix(end + (data.substr(end).starts_with("\r\n") ? 2 : 1));
  }
  return out += '\n';
}

}  // namespace

void Responder::notify(Lock& lock) {
  const bool wake = !woken_ && wake_ != nullptr;
  woken_ = true;
  lock.unlock();
  if (wake) wake_();
}

void Responder::cancel_locked(Lock& lock) {
  std::vector<std::function<void()>> calls;
  if (!cancelled_.exchange(true)) calls.swap(on_cancel_);
  pending_.bytes.clear();
  notify(lock);
  for (const auto& call : calls) call();
}

void Responder::json(int status, std::string body, Headers headers) {
  bytes(status, "application/json", std::move(body), std::move(headers));
}

void Responder::bytes(int status, std::string_view content_type, std::string body, Headers headers) {
  decltype(on_cancel_) dropped;  // may hold the last reference to things that are better not destroyed under the lock
  Lock lock(mutex_);
  if (started_ || cancelled_) return;
  started_ = finished_ = true;
  dropped.swap(on_cancel_);
  pending_ = {status, std::string(content_type), std::move(headers), false, std::move(body), true};
  notify(lock);
}

void Responder::begin_events(Headers headers) {
  Lock lock(mutex_);
  if (started_ || cancelled_) return;
  started_ = true;
  headers.emplace_back("Cache-Control", "no-cache");
  headers.emplace_back("X-Accel-Buffering", "no");  // proxies that would wait for more
  pending_ = {200, "text/event-stream; charset=utf-8", std::move(headers), true, {}, false};
  notify(lock);
}

bool Responder::append(std::string_view text) {
  Lock lock(mutex_);
  if (cancelled_ || !started_ || finished_) return false;
  if (pending_.bytes.size() > limits_.soft) {
    const Clock::time_point now = Clock::now();
    if (slow_since_ == Clock::time_point{}) slow_since_ = now;
    if (now - slow_since_ > limits_.patience || pending_.bytes.size() > limits_.hard) {
      cancel_locked(lock);
      return false;
    }
  }
  pending_.bytes.append(text);
  notify(lock);
  return true;
}

bool Responder::event(std::string_view data, std::string_view name) { return append(event_text(data, name)); }

void Responder::end() {
  decltype(on_cancel_) dropped;
  Lock lock(mutex_);
  if (!started_ || finished_ || cancelled_) return;
  finished_ = pending_.finished = true;
  dropped.swap(on_cancel_);
  notify(lock);
}

void Responder::on_cancel(std::function<void()> call) {
  {
    const Lock lock(mutex_);
    if (finished_) return;
    if (!cancelled_) {
      on_cancel_.push_back(std::move(call));
      return;
    }
  }
  call();
}

Responder::Pending Responder::take() {
  const Lock lock(mutex_);
  woken_ = false;
  slow_since_ = {};
  Pending taken = std::move(pending_);
  pending_ = {};
  pending_.finished = finished_;
  return taken;
}

bool Responder::started() const {
  const Lock lock(mutex_);
  return started_;
}

bool Responder::finished() const {
  const Lock lock(mutex_);
  return finished_;
}

void Responder::cancel() {
  Lock lock(mutex_);
  cancel_locked(lock);
}

void Responder::set_limits(const Limits& limits) {
  const Lock lock(mutex_);
  limits_ = limits;
}

}  // namespace gov::server
