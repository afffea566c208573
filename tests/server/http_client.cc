#include "tests/server/http_client.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/timer.h"

namespace gov::test {

Client::Client(int port, int receive_buffer) {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (receive_buffer > 0) setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
    close(fd_);
    fd_ = -1;
  }
}

Client::~Client() {
  if (fd_ >= 0) close(fd_);
}

bool Client::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

void Client::finish_sending() { shutdown(fd_, SHUT_WR); }

void Client::reset() {
  const linger at_once{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close(fd_);
  fd_ = -1;
}

std::string Client::receive(double seconds, std::size_t limit) {
  pollfd ready{fd_, POLLIN, 0};
  if (poll(&ready, 1, static_cast<int>(seconds * 1000)) <= 0) return {};
  std::string part(limit, '\0');
  const ssize_t count = recv(fd_, part.data(), part.size(), 0);
  part.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  return part;
}

std::string Client::receive_until_closed(double seconds) {
  const Timer timer;
  std::string all = std::move(buffer_);
  while (timer.seconds() < seconds) {
    const std::string part = receive(seconds - timer.seconds());
    if (part.empty()) break;
    all += part;
  }
  return all;
}

bool Client::closed_within(double seconds) {
  const Timer timer;
  while (timer.seconds() < seconds) {
    pollfd ready{fd_, POLLIN, 0};
    if (poll(&ready, 1, 20) <= 0) continue;
    char part[4096];
    if (recv(fd_, part, sizeof part, 0) <= 0) return true;
  }
  return false;
}

namespace {

void parse_head(std::string_view head, Answer& answer) {
  std::from_chars(head.data() + 9, head.data() + 12, answer.status);
  while (!head.empty()) {
    const std::size_t end = std::min(head.find("\r\n"), head.size());
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(std::min(end + 2, head.size()));
    const std::size_t colon = line.find(": ");
    if (colon == std::string_view::npos) continue;
    std::string name(line.substr(0, colon));
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    answer.headers[name] = std::string(line.substr(colon + 2));
  }
}

}  // namespace

Answer Client::answer(bool head, double seconds) {
  const Timer timer;
  Answer answer;
  const auto more = [&] {
    const std::string part = receive(std::max(0.0, seconds - timer.seconds()));
    buffer_ += part;
    return !part.empty();
  };
  const auto need = [&](std::size_t bytes) {
    while (buffer_.size() < bytes) {
      if (!more()) return false;
    }
    return true;
  };
  std::size_t end;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
    if (!more()) return answer;
  }
  parse_head(std::string_view(buffer_).substr(0, end), answer);
  buffer_.erase(0, end + 4);
  if (head || answer.status == 204 || answer.status == 304 || answer.status == 100) {
    answer.complete = true;
  } else if (answer.headers.count("content-length") != 0) {
    const std::size_t length = std::stoul(answer.headers["content-length"]);
    answer.complete = need(length);
    answer.body = buffer_.substr(0, length);
    buffer_.erase(0, answer.body.size());
  } else if (answer.headers.count("transfer-encoding") != 0) {
    for (;;) {
      while ((end = buffer_.find("\r\n")) == std::string::npos) {
        if (!more()) return answer;
      }
      const std::size_t size = std::stoul(buffer_.substr(0, end), nullptr, 16);
      if (!need(end + 2 + size + 2)) return answer;
      answer.body += buffer_.substr(end + 2, size);
      buffer_.erase(0, end + 2 + size + 2);
      if (size == 0) break;
    }
    answer.complete = true;
  } else {
    answer.body = receive_until_closed(seconds);
  }
  return answer;
}

Answer request(int port, const std::string& method, const std::string& path, const std::string& body,
               const std::string& extra) {
  Client client(port);
  std::string text = method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n" + extra;
  if (!body.empty()) text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  client.send(text + "\r\n" + body);
  return client.answer(method == "HEAD");
}

TestRoutes::~TestRoutes() {
  stop_ = true;
  for (std::thread& thread : threads_) thread.join();
}

// Query: n events (-1: endless) of `size` bytes, `ms` milliseconds apart.
void TestRoutes::stream(const server::HttpRequest& request, const std::shared_ptr<server::Responder>& responder) {
  const auto number = [&](const char* name, int otherwise) {
    const auto found = request.query.find(name);
    return found == request.query.end() ? otherwise : std::stoi(found->second);
  };
  const int events = number("n", 10), size = number("size", 20), ms = number("ms", 1);
  ++started;
  responder->on_cancel([this] { ++cancelled; });
  const std::lock_guard lock(mutex_);
  threads_.emplace_back([this, responder, events, size, ms] {
    responder->begin_events();
    const std::string text(static_cast<std::size_t>(size), 'x');
    for (int i = 0; (events < 0 || i < events) && !stop_; ++i) {
      if (!responder->event(std::to_string(i) + " " + text)) break;
      if (ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(ms));
    }
    responder->event("[DONE]");
    responder->end();
    ++ended;
  });
}

std::vector<server::Route> TestRoutes::routes() {
  using Request = const server::HttpRequest&;
  using Answerer = const std::shared_ptr<server::Responder>&;
  std::vector<server::Route> list;
  list.push_back(
      {"POST", "/length", [](Request q, Answerer r) { r->bytes(200, "text/plain", std::to_string(q.body().size())); }});
  list.push_back({"POST", "/echo", [](Request q, Answerer r) { r->bytes(200, "text/plain", std::string(q.body())); }});
  list.push_back({"GET", "/echo", [](Request q, Answerer r) {
                    std::string text = q.path;
                    for (const auto& [name, value] : q.query) text += "|" + name + "=" + value;
                    r->bytes(200, "text/plain", text);
                  }});
  list.push_back(
      {"GET", "/items/{id}", [](Request q, Answerer r) { r->bytes(200, "text/plain", "item " + q.params.at("id")); }});
  list.push_back({"DELETE", "/items/{id}", [](Request, Answerer r) { r->bytes(204, "", ""); }});
  list.push_back({"GET", "/items/special", [](Request, Answerer r) { r->bytes(200, "text/plain", "special"); }});
  list.push_back(
      {"GET", "/tenant", [](Request q, Answerer r) { r->bytes(200, "text/plain", q.tenant + " " + q.request_id); }});
  list.push_back({"POST", "/stream", [this](Request q, Answerer r) { stream(q, r); }});
  list.push_back({"GET", "/stream", [this](Request q, Answerer r) { stream(q, r); }});
  // Never answers by itself: ends when the client goes.
  list.push_back({"POST", "/wait", [this](Request, Answerer r) {
                    ++started;
                    r->on_cancel([this, r] { ++cancelled; });
                  }});
  list.push_back({"GET", "/throw", [](Request, Answerer) { fail(ErrorCode::kOverloaded, "the queue is full"); }});
  list.push_back({"GET", "/forget", [](Request, Answerer) {}});
  list.push_back({"GET", "/inject", [](Request q, Answerer r) {
                    r->json(200, "{}", {{"x-text", q.query.at("text")}});
                  }});
  list.push_back({"POST", "/admin/reset", [](Request, Answerer r) { r->json(200, "{}"); }, false, true});
  return list;
}

TestServer::TestServer(server::ServerOptions options) {
  options.port = 0;
  options.access_log = [this](std::string_view line) {
    const std::lock_guard lock(mutex_);
    lines_.emplace_back(line);
  };
  server::prepare_process();
  server = std::make_unique<server::Server>(std::move(options));
  server->start();
  server->set_routes(routes.routes());
}

TestServer::~TestServer() { server->stop(); }

std::vector<std::string> TestServer::log_lines() {
  const std::lock_guard lock(mutex_);
  return lines_;
}

bool TestServer::idle(double seconds) {
  return eventually([&] { return server->open_connections() == 0; }, seconds);
}

bool eventually(const std::function<bool()>& condition, double seconds) {
  const Timer timer;
  while (!condition()) {
    if (timer.seconds() > seconds) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

std::size_t resident_bytes() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return 0;  // sanitizers keep what was freed
#endif
  std::ifstream file("/proc/self/statm");
  std::size_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

std::size_t open_files() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

}  // namespace gov::test
