#include "server/http_connection.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/error.hpp>

#include "base/timer.h"
#include "server/api_error.h"

namespace gov::server {
namespace {

constexpr std::size_t kInputLimit = 96u << 10;  // above HeadLimits::total: a head that is too long is seen to be so
constexpr std::size_t kBodyRead = 32u << 10;
constexpr double kGoodbyeSeconds = 2;  // for the last words to a client, and TLS's
constexpr std::uint64_t kMostReadAway = 256u
                                        << 20;  // of a refused request, so that its client comes to read the answer

std::chrono::steady_clock::time_point after(std::chrono::steady_clock::time_point start, double seconds) {
  return start +
         std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

void ConnectionList::add(const std::shared_ptr<Connection>& connection) {
  const std::lock_guard lock(mutex_);
  open_.emplace(connection.get(), connection);
}

void ConnectionList::remove(const Connection* connection) {
  const std::lock_guard lock(mutex_);
  open_.erase(connection);
  if (open_.empty()) empty_.notify_all();
}

std::size_t ConnectionList::size() const {
  const std::lock_guard lock(mutex_);
  return open_.size();
}

void ConnectionList::wake_all() {
  std::vector<std::shared_ptr<Connection>> alive;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [raw, weak] : open_) {
      if (auto connection = weak.lock()) alive.push_back(std::move(connection));
    }
  }
  for (const auto& connection : alive) connection->wake();
}

bool ConnectionList::wait_empty(double seconds) const {
  std::unique_lock lock(mutex_);
  return empty_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return open_.empty(); });
}

struct Connection::Exchange {
  explicit Exchange(const ServerState& state) : parser(state.options.max_body) {}

  RequestParser parser;
  RequestHead head;
  Admission admission;
  std::shared_ptr<Responder> responder;
  std::shared_ptr<std::atomic<bool>> handler_returned = std::make_shared<std::atomic<bool>>(true);
  std::shared_ptr<HeldBody> body;
  AnswerHead answer;
  AccessRecord record;
  Timer timer;
  std::uint64_t received_before = 0, sent_before = 0;
  bool close_after = false;  // the connection cannot go on behind this answer
  bool complete = false;     // the answer was written to its end
};

Connection::Connection(asio::ip::tcp::socket socket, const Environment& environment)
    : env_(environment),
      executor_(socket.get_executor()),
      transport_(std::move(socket), environment.tls),
      changed_(executor_),
      room_(executor_),
      watchdog_(executor_) {}

void Connection::start() {
  env_.list.add(shared_from_this());
  const auto self = shared_from_this();
  asio::co_spawn(
      executor_, [self] { return self->run(); }, asio::detached);
}

void Connection::wake() {
  asio::post(executor_, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    if (self->env_.state.stopping) {
      if (!self->current_) self->close();
      else if (self->writing_) self->arm_watchdog(kGoodbyeSeconds);
    }
    self->changed_.raise();
  });
}

void Connection::close() {
  broken_ = true;
  transport_.close();
  room_.raise();
}

void Connection::arm_watchdog(double seconds) {
  watchdog_.expires_at(after(Clock::now(), seconds));
  watchdog_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto self = weak.lock();
    // A wait that was already over when the watchdog was armed anew still reports success.
    if (!error && self && self->watchdog_.expiry() <= Clock::now()) self->close();
  });
}

asio::awaitable<void> Connection::run() {
  const auto self = shared_from_this();
  HttpMetrics& metrics = env_.state.metrics;
  ++metrics.connections;
  ++metrics.open_connections;
  try {
    boost::system::error_code error;
    arm_watchdog(env_.state.options.timeouts.header);
    const bool shaken = co_await transport_.handshake(error);
    disarm_watchdog();
    if (shaken) {
      asio::co_spawn(
          executor_, [self] { return self->read_loop(); }, asio::detached);
      for (bool more = true; more;) more = co_await exchange();
    } else {
      ++metrics.failed_handshakes;
    }
    if (!broken_) {
      arm_watchdog(kGoodbyeSeconds);
      co_await transport_.shutdown_send();
      disarm_watchdog();
    }
  } catch (const std::exception&) {  // out of memory: this connection ends, the others go on
  }
  close();
  disarm_watchdog();
  --metrics.open_connections;
  env_.list.remove(this);
}

// Reads all the time, so that a client that leaves is noticed while its answer is still being made.
asio::awaitable<void> Connection::read_loop() {
  const auto self = shared_from_this();
  boost::system::error_code error;
  try {
    while (!broken_) {
      if (input_.size() >= kInputLimit) {
        co_await room_.wait_until(Clock::time_point::max());
        continue;
      }
      std::string part(read_size_, '\0');
      const std::span<char> room(part);
      const std::size_t count = co_await transport_.read_some(room, error);
      received_ += count;
      env_.state.metrics.bytes_in += count;
      if (error || count == 0) break;
      if (!discard_) input_.append(part, 0, count);
      changed_.raise();
    }
  } catch (const std::exception&) {
    close();
  }
  ended_ = true;
  if (error && error != asio::error::eof && error != asio::ssl::error::stream_truncated) broken_ = true;
  // Says that it is gone while an unfinished answer waits to be read: it will not be.
  if (writing_ && current_ && !current_->finished()) close();
  changed_.raise();
}

void Connection::drop_input(std::size_t bytes) {
  input_.erase(0, bytes);
  if (input_.empty() && input_.capacity() > kBodyRead) input_ = {};
  room_.raise();
}

// A whole head, parsed and admitted. False: the connection ends here; what is to be said has been said.
asio::awaitable<bool> Connection::read_head(Exchange& exchange) {
  const HttpTimeouts& limits = env_.state.options.timeouts;
  HeadScanner scanner(env_.state.options.head);
  const Clock::time_point start = Clock::now();
  Clock::time_point deadline = after(start, first_ ? limits.header : limits.idle);
  bool begun = false;
  read_size_ = 4096;
  for (;;) {
    if (scanner.scan(input_)) break;
    if (ended_ || broken_ || env_.state.stopping || (input_.empty() && env_.state.draining)) co_return false;
    if (!begun && !input_.empty()) {
      begun = true;
      exchange.timer = Timer();
      deadline = std::min(deadline, after(Clock::now(), limits.header));
      if (!first_) deadline = after(Clock::now(), limits.header);
    }
    const bool raised = co_await changed_.wait_until(deadline);
    if (raised || Clock::now() < deadline) continue;
    if (input_.empty()) co_return false;
    co_await refuse_unread(exchange, 408, "the request's head took too long");
    co_return false;
  }
  if (!begun) exchange.timer = Timer();
  first_ = false;
  exchange.received_before = received_ - std::min<std::uint64_t>(received_, input_.size());
  exchange.sent_before = sent_;
  if (scanner.status() != 0) {
    co_await refuse_unread(exchange, scanner.status(), scanner.reason());
    co_return false;
  }
  const std::string text = input_.substr(scanner.begin(), scanner.end() - scanner.begin());
  drop_input(scanner.end());
  if (const auto refusal = exchange.parser.read_head(text, exchange.head)) {
    co_await refuse_unread(exchange, refusal->status, refusal->reason);
    co_return false;
  }
  exchange.admission = admit(env_.state, exchange.head, env_.admin);
  const HttpRequest& request = exchange.admission.request;
  exchange.record.request_id = request.request_id;
  exchange.record.method = request.method;
  exchange.record.path = request.path;
  exchange.record.tenant = request.tenant;
  co_return true;
}

// False: the body is refused or incomplete, and the connection ends.
asio::awaitable<bool> Connection::read_body(Exchange& exchange) {
  const HttpTimeouts& limits = env_.state.options.timeouts;
  RequestParser& parser = exchange.parser;
  const Refusal full{503, "the bodies of all requests together are too large now, try again later"};
  if (exchange.head.expect_continue && input_.empty() && !parser.done()) {
    if (!co_await write("HTTP/1.1 100 Continue\r\n\r\n")) co_return false;
  }
  read_size_ = kBodyRead;
  const Clock::time_point start = Clock::now();
  Clock::time_point last = start;  // when bytes of it came
  std::uint64_t taken = 0;
  if (!parser.done()) exchange.body = std::make_shared<HeldBody>(env_.state.bodies);
  while (!parser.done()) {
    RequestParser::Progress progress;
    if (!input_.empty()) progress = parser.put(input_);
    taken += progress.taken;
    const bool stuck = progress.taken == 0 && input_.size() >= kInputLimit;
    if (progress.taken > 0) {
      drop_input(progress.taken);
      last = Clock::now();
      if (!progress.refusal && !exchange.body->grow(progress.taken)) progress.refusal = full;
    }
    if (parser.done() && !progress.refusal) break;
    if (progress.refusal || stuck) {
      const Refusal refusal = progress.refusal.value_or(Refusal{400, "malformed chunk"});
      co_await refuse_unread(exchange, refusal.status, refusal.reason);
      co_return false;
    }
    if (ended_ || broken_ || env_.state.stopping) co_return false;
    if (progress.taken > 0 && !input_.empty()) continue;
    const Clock::time_point deadline =
        std::min(after(start, limits.body_grace + static_cast<double>(taken) / limits.body_rate),
                 after(last, limits.body_silence));
    const bool raised = co_await changed_.wait_until(deadline);
    if (!raised && Clock::now() >= deadline) {
      co_await refuse_unread(exchange, 408, "the request's body came too slowly");
      co_return false;
    }
  }
  if (exchange.body) {
    exchange.body->text = parser.take_body();
    exchange.admission.request.body_text = {exchange.body, &exchange.body->text};
    exchange.body.reset();  // what the handlers keep of it decides how long it counts
  }
  read_size_ = 4096;
  co_return true;
}

// Answers without having read the request to its end; the connection cannot be used again.
asio::awaitable<void> Connection::refuse_unread(Exchange& exchange, int status, std::string_view reason) {
  exchange.close_after = true;
  exchange.admission.refusal = Refusal{status, std::string(reason)};
  exchange.admission.route = nullptr;
  exchange.responder = std::make_shared<Responder>();
  send_refusal(*exchange.responder, exchange.admission.refusal);
  co_await answer(exchange);
  log(exchange);
  co_await linger();
}

// Lets the client read the answer before the connection is reset for bytes that nobody has read.
asio::awaitable<void> Connection::linger() {
  if (broken_) co_return;
  discard_ = true;
  drop_input(input_.size());
  arm_watchdog(kGoodbyeSeconds);
  co_await transport_.shutdown_send();
  disarm_watchdog();
  const Clock::time_point deadline = after(Clock::now(), env_.state.options.timeouts.linger);
  const std::uint64_t most = received_ + kMostReadAway;
  while (!ended_ && !broken_ && received_ < most && Clock::now() < deadline) co_await changed_.wait_until(deadline);
  close();
}

// While a request is being answered; its handler learns how that ended also where memory runs out on the way.
struct Connection::Answering {
  Answering(Connection& c, Exchange& e) : connection(c), exchange(e) {
    connection.current_ = exchange.responder;
    ++connection.env_.state.metrics.active_requests;
  }
  ~Answering() {
    --connection.env_.state.metrics.active_requests;
    connection.current_.reset();
    if (exchange.complete) return;
    ++connection.env_.state.metrics.cancelled;
    try {
      exchange.responder->cancel();
    } catch (const std::exception&) {  // out of memory for telling the handler: it is told by event() later
    }
  }
  Answering(const Answering&) = delete;
  Connection& connection;
  Exchange& exchange;
};

asio::awaitable<bool> Connection::exchange() {
  Exchange exchange(env_.state);
  if (!co_await read_head(exchange)) co_return false;
  Admission& admission = exchange.admission;
  const bool unread_body = exchange.head.has_body();
  if (admission.refusal.status != 0 && unread_body) {
    co_await refuse_unread(exchange, admission.refusal.status, admission.refusal.reason);
    co_return false;
  }
  if (admission.refusal.status == 0 && !co_await read_body(exchange)) co_return false;
  exchange.responder = std::make_shared<Responder>([weak = weak_from_this(), gate = env_.state.gate] {
    const std::shared_lock lock(gate->mutex);
    if (!gate->open) return;
    if (const auto self = weak.lock()) self->wake();
  });
  exchange.responder->set_limits(env_.state.options.stream);
  if (admission.refusal.status == 400) exchange.close_after = true;
  {
    const Answering answering(*this, exchange);
    if (admission.refusal.status != 0) send_refusal(*exchange.responder, admission.refusal);
    else call_handler(exchange);
    co_await answer(exchange);
  }
  log(exchange);
  co_return exchange.complete && !exchange.close_after && !broken_ && !env_.state.draining && !env_.state.stopping;
}

void Connection::call_handler(Exchange& exchange) {
  exchange.handler_returned->store(false);
  asio::post(env_.handlers, [router = exchange.admission.router, route = exchange.admission.route,
                             request = std::move(exchange.admission.request), responder = exchange.responder,
                             returned = exchange.handler_returned, weak = weak_from_this()]() mutable {
    try {
      route->handler(request, responder);
    } catch (...) {
      if (!responder->started()) send_error(*responder, to_api_error(std::current_exception()));
      else responder->cancel();
    }
    responder.reset();
    returned->store(true);
    if (const auto self = weak.lock()) self->wake();
  });
}

bool Connection::client_left(const Exchange& exchange) const {
  if (broken_) return true;
  // A client may say that it sends no more and still read what is answered at once; one that waits is taken to be gone.
  return ended_ && exchange.handler_returned->load() && !exchange.responder->finished();
}

asio::awaitable<void> Connection::answer(Exchange& exchange) {
  const HttpTimeouts& limits = env_.state.options.timeouts;
  Responder& responder = *exchange.responder;
  Clock::time_point last = Clock::now();
  for (;;) {
    const Responder::Pending pending = responder.take();
    if (pending.status != 0 || !pending.bytes.empty() || pending.finished) {
      if (!co_await write_pending(exchange, pending)) co_return;
      if (pending.finished) {
        exchange.complete = true;
        co_return;
      }
      last = Clock::now();
    }
    if (client_left(exchange)) co_return;
    const bool forgotten =
        exchange.handler_returned->load() && exchange.responder.use_count() <= 2 && !responder.finished();
    if (responder.cancelled() || env_.state.stopping || forgotten) {
      exchange.complete = co_await end_stream_early(exchange);
      co_return;
    }
    const bool raised = co_await changed_.wait_until(after(last, limits.keep_alive));
    if (raised || Clock::now() < after(last, limits.keep_alive)) continue;
    if (exchange.answer.framing == Framing::kChunked || exchange.answer.framing == Framing::kUntilClose) {
      const std::string comment = chunk_of(": keep-alive\n\n", exchange.answer.framing);
      if (!co_await write(comment)) co_return;
    }
    last = Clock::now();
  }
}

asio::awaitable<bool> Connection::write_pending(Exchange& exchange, const Responder::Pending& pending) {
  AnswerHead& head = exchange.answer;
  const bool bodyless = exchange.head.method == "HEAD";
  std::string out;
  if (pending.status != 0) {
    head.minor_version = exchange.head.minor_version;
    head.status = pending.status;
    head.content_type = pending.content_type;
    if (pending.stream) head.framing = head.minor_version == 1 ? Framing::kChunked : Framing::kUntilClose;
    else head.framing = pending.status == 204 || pending.status == 304 ? Framing::kNone : Framing::kLength;
    head.length = pending.bytes.size();
    if (head.framing == Framing::kUntilClose || !exchange.head.keep_alive || env_.state.draining)
      exchange.close_after = true;
    head.keep_alive = !exchange.close_after;
    out = answer_head(head, pending.headers, exchange.admission.headers);
    head.content_type = {};  // it was a view
    if (pending.stream) ++env_.state.metrics.streams;
  }
  if (!bodyless && head.framing != Framing::kNone) {
    out += chunk_of(pending.bytes, head.framing);
    if (pending.finished) out += last_chunk(head.framing);
  }
  co_return co_await write(out);
}

// The server gives up, or the handler has. A stream's client is told; true if the answer has a proper end.
asio::awaitable<bool> Connection::end_stream_early(Exchange& exchange) {
  const bool shutting_down = env_.state.stopping;
  exchange.close_after = true;
  exchange.responder->cancel();
  const ApiError error = shutting_down
                             ? ApiError(503, "service_unavailable", "the server is shutting down", "", "unavailable")
                             : ApiError(500, "server_error", "internal error", "", "internal_error");
  if (exchange.answer.framing == Framing::kLength) {  // nothing was written yet
    Responder words;
    send_error(words, error);
    const Responder::Pending pending = words.take();
    co_return co_await write_pending(exchange, pending);
  }
  const std::string text = "event: error\ndata: " + error_body(error) + "\n\ndata: [DONE]\n\n";
  const Framing framing = exchange.answer.framing;
  const std::string last_words = chunk_of(text, framing) + std::string(last_chunk(framing));
  co_return co_await write(last_words);
}

asio::awaitable<bool> Connection::write(std::string_view bytes) {
  boost::system::error_code error;
  while (!bytes.empty() && !broken_) {
    arm_watchdog(env_.state.stopping ? kGoodbyeSeconds : env_.state.options.timeouts.write_stall);
    writing_ = true;
    const std::size_t count = co_await transport_.write_some(bytes, error);
    writing_ = false;
    disarm_watchdog();
    if (error) broken_ = true;
    sent_ += count;
    env_.state.metrics.bytes_out += count;
    bytes.remove_prefix(count);
  }
  co_return !broken_;
}

void Connection::log(const Exchange& exchange) {
  AccessRecord record = exchange.record;
  record.remote = transport_.remote();
  record.status = exchange.complete ? exchange.answer.status : 499;
  const std::uint64_t came = received_ - exchange.received_before;
  record.bytes_in = came - std::min<std::uint64_t>(came, input_.size());  // without what belongs to the next request
  record.bytes_out = sent_ - exchange.sent_before;
  record.seconds = exchange.timer.seconds();
  const Route* const route = exchange.admission.route;
  env_.state.metrics.add_request(route == nullptr ? "" : route->pattern, record.method, record.status, record.seconds);
  if (env_.state.options.access_log) env_.state.options.access_log(access_line(record, env_.state.options.log_json));
}

}  // namespace gov::server
