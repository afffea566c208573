#pragma once
// A client that sends exactly the bytes it is told to, over a real socket, and a server with routes that test the
// network.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/http_server.h"

namespace gov::test {

// ThreadSanitizer makes everything some ten times slower: then there are fewer rounds.
#if defined(__SANITIZE_THREAD__)
inline constexpr bool kTsan = true;
#else
inline constexpr bool kTsan = false;
#endif

// Larger allocations of this program fail.
extern std::atomic<std::size_t> largest_allocation;

struct Answer {
  int status = 0;                              // 0: nothing came
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
  bool complete = false;                       // to its proper end
};

class Client {
 public:
  explicit Client(int port, int receive_buffer = 0);  // receive_buffer: of the system, small ones fill soon
  ~Client();
  Client(const Client&) = delete;

  bool send(std::string_view bytes);  // false when the server has closed
  void finish_sending();              // half-closes
  void reset();                       // closes with RST
  // What comes within `seconds`, at most `limit` bytes; empty at the end.
  std::string receive(double seconds = 5, std::size_t limit = 1 << 16);
  std::string receive_until_closed(double seconds = 10);  // everything
  // One answer from the stream of bytes; head: it has no body whatever its headers say.
  Answer answer(bool head = false, double seconds = 10);
  bool closed_within(double seconds);  // the server has closed; what came is dropped
  int descriptor() const { return fd_; }

 private:
  int fd_ = -1;
  std::string buffer_;
};

// One request, one answer. extra: more header lines, each with CRLF.
Answer request(int port, const std::string& method, const std::string& path, const std::string& body = "",
               const std::string& extra = "");

// The routes that tests ask. Streams run in threads of their own until they are done or cancelled.
class TestRoutes {
 public:
  ~TestRoutes();
  std::vector<server::Route> routes();

  std::atomic<int> cancelled{0}, started{0}, ended{0};

 private:
  void stream(const server::HttpRequest& request, const std::shared_ptr<server::Responder>& responder);
  std::mutex mutex_;
  std::vector<std::thread> threads_;
  std::atomic<bool> stop_{false};
};

// A server on any port of loopback with TestRoutes; its access log is kept.
class TestServer {
 public:
  explicit TestServer(server::ServerOptions options = {});
  ~TestServer();
  int port() const { return server->port(); }
  std::vector<std::string> log_lines();
  // Waits until all connections are closed.
  bool idle(double seconds = 5);

  TestRoutes routes;
  std::unique_ptr<server::Server> server;

 private:
  std::mutex mutex_;
  std::vector<std::string> lines_;
};

// Waits until the condition holds.
bool eventually(const std::function<bool()>& condition, double seconds = 5);
std::size_t resident_bytes();  // of this process; 0 with sanitizers, where it says nothing
std::size_t open_files();

}  // namespace gov::test
