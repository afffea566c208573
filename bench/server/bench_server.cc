// A crowd of clients: streams chat completions from a running server, each client one request after the other, some of
// which it leaves in the middle. Prints what they saw as one JSON object and fails if anything was not as it should be.
//
//   bench_server --port 8080 [--clients N] [--seconds S] [--max-tokens N] [--leave P] [--prompt TEXT] [--pid N]
//
// --leave: the share of requests that are dropped after a random number of events. --pid: the server's process, whose
// memory and descriptors are compared before and after.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/asio.hpp>
#include <boost/beast.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/json.h"

namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using Clock = std::chrono::steady_clock;
using gov::Json;

struct Options {
  std::string host = "127.0.0.1", prompt = "What is a cat?", key;
  unsigned short port = 8080;
  int clients = 100, pid = 0, max_tokens = 32;
  double seconds = 10, leave = 0.3, temperature = 0;
};

struct Seen {
  std::int64_t requests = 0, complete = 0, left = 0, refused = 0, tokens = 0, events = 0;
  std::map<std::string, std::int64_t> faults;
  std::vector<float> first_token, between;  // seconds
};

double seconds_since(Clock::time_point then) { return std::chrono::duration<double>(Clock::now() - then).count(); }

float quantile(std::vector<float>& values, double q) {
  if (values.empty()) return 0;
  const auto at = static_cast<std::ptrdiff_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

// The events of one stream as its bytes come in.
struct Stream {
  std::string pending;
  std::int64_t events = 0, tokens = 0;
  bool done = false, error = false;

  // Calls on_event for each whole event.
  void append(std::string_view bytes, const std::function<void(std::string_view data)>& on_event) {
    pending += bytes;
    std::size_t begin = 0;
    for (std::size_t end; (end = pending.find("\n\n", begin)) != std::string::npos; begin = end + 2) {
      const std::string_view event = std::string_view(pending).substr(begin, end - begin);
      const std::size_t data = event.find("data: ");
      if (data != std::string_view::npos) on_event(event.substr(data + 6));
    }
    pending.erase(0, begin);
  }
};

class Crowd {
 public:
  explicit Crowd(const Options& options) : o_(options) {
    Json message, body;
    message.set("role", "user");
    message.set("content", o_.prompt);
    body.set("messages", Json::Array{message});
    body.set("max_tokens", std::int64_t{o_.max_tokens});
    body.set("temperature", o_.temperature);
    body.set("stream", true);
    Json usage;
    usage.set("include_usage", true);
    body.set("stream_options", usage);
    body_ = body.dump();
  }

  Seen run() {
    asio::io_context io(1);
    end_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(o_.seconds));
    for (int i = 0; i < o_.clients; ++i) asio::co_spawn(io, client(i), asio::detached);
    io.run();
    return std::move(seen_);
  }

 private:
  asio::awaitable<void> client(int index) {
    std::mt19937_64 random(static_cast<std::uint64_t>(index) + 1);
    while (Clock::now() < end_) {
      ++seen_.requests;
      std::string fault;
      try {
        co_await request(random);
      } catch (const std::exception& error) {
        fault = error.what();
      }
      if (!fault.empty()) {
        ++seen_.faults[fault];
        asio::steady_timer pause(co_await asio::this_coro::executor, std::chrono::milliseconds(200));
        co_await pause.async_wait(asio::use_awaitable);
      }
    }
  }

  asio::awaitable<void> request(std::mt19937_64& random) {
    boost::beast::tcp_stream stream(co_await asio::this_coro::executor);
    stream.expires_after(std::chrono::seconds(120));
    co_await stream.async_connect({asio::ip::make_address(o_.host), o_.port}, asio::use_awaitable);
    http::request<http::string_body> request(http::verb::post, "/v1/chat/completions", 11, body_);
    request.set(http::field::host, "localhost");
    request.set(http::field::content_type, "application/json");
    if (!o_.key.empty()) request.set(http::field::authorization, "Bearer " + o_.key);
    request.prepare_payload();
    const auto begin = Clock::now();
    co_await http::async_write(stream, request, asio::use_awaitable);

    const bool leaves = std::uniform_real_distribution<>()(random) < o_.leave;
    const std::int64_t leave_after = std::uniform_int_distribution<std::int64_t>(0, o_.max_tokens)(random);
    boost::beast::flat_buffer buffer;
    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    co_await http::async_read_header(stream, buffer, parser, asio::use_awaitable);
    const unsigned status = parser.get().result_int();
    Stream events;
    auto last = begin;
    std::vector<char> room(16 << 10);
    while (!parser.is_done()) {
      if (status == 200 && leaves && events.events >= leave_after) {
        ++seen_.left;
        stream.close();
        co_return;
      }
      parser.get().body().data = room.data();
      parser.get().body().size = room.size();
      boost::system::error_code code;
      co_await http::async_read_some(stream, buffer, parser, asio::redirect_error(asio::use_awaitable, code));
      if (code && code != http::error::need_buffer) throw boost::system::system_error(code);
      const std::size_t got = room.size() - parser.get().body().size;
      events.append({room.data(), got}, [&](std::string_view data) { look(data, events, begin, last); });
    }
    if (status == 429 || status == 503) {
      ++seen_.refused;
      asio::steady_timer pause(co_await asio::this_coro::executor, std::chrono::milliseconds(100));
      co_await pause.async_wait(asio::use_awaitable);
      co_return;
    }
    if (status != 200) throw std::runtime_error(fmt::format("status {}", status));
    if (!events.done) throw std::runtime_error("a stream without [DONE]");
    if (events.error) throw std::runtime_error("an error event");
    ++seen_.complete;
  }

  void look(std::string_view data, Stream& events, Clock::time_point begin, Clock::time_point& last) {
    if (events.done) throw std::runtime_error("an event after [DONE]");
    if (data == "[DONE]") {
      events.done = true;
      return;
    }
    ++events.events;
    ++seen_.events;
    if (data.starts_with("{\"error\"")) events.error = true;
    const bool text = data.find("\"content\":\"") != std::string_view::npos &&
                      data.find("\"content\":\"\"") == std::string_view::npos;
    if (const std::size_t at = data.find("\"completion_tokens\":"); at != std::string_view::npos)
      seen_.tokens += std::atoll(data.data() + at + 20);
    if (!text) return;
    (last == begin ? seen_.first_token : seen_.between).push_back(static_cast<float>(seconds_since(last)));
    last = Clock::now();
  }

  Options o_;
  std::string body_;
  Clock::time_point end_;
  Seen seen_;
};

struct Process {
  std::int64_t resident_kib = 0, descriptors = 0;
};

Process process(int pid) {
  Process p;
  const std::filesystem::path folder = fmt::format("/proc/{}", pid);
  std::ifstream status(folder / "status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) p.resident_kib = std::atoll(line.c_str() + 6);
  }
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder / "fd")) ++p.descriptors;
  return p;
}

// GET of a JSON document.
Json get(const Options& o, const char* path) {
  asio::io_context io;
  boost::beast::tcp_stream stream(io);
  stream.connect({asio::ip::make_address(o.host), o.port});
  http::request<http::empty_body> request(http::verb::get, path, 11);
  request.set(http::field::host, "localhost");
  request.set(http::field::connection, "close");
  if (!o.key.empty()) request.set(http::field::authorization, "Bearer " + o.key);
  http::write(stream, request);
  boost::beast::flat_buffer buffer;
  http::response<http::string_body> response;
  http::read(stream, buffer, response);
  return Json::parse(response.body());
}

// Waits until nothing runs any more, at most 10 s; the state then.
Json settled(const Options& o) {
  Json state;
  for (const auto begin = Clock::now(); seconds_since(begin) < 10;
       std::this_thread::sleep_for(std::chrono::milliseconds(50))) {
    state = get(o, "/state");
    if (state.find("queue")->find("running")->integer() + state.find("queue")->find("waiting")->integer() == 0) break;
  }
  return state;
}

std::int64_t held_blocks(const Json& state, const char* pool) {
  const Json& kv = *state.find("kv")->find(pool);
  return kv.find("blocks")->integer() - kv.find("free")->integer();
}

int report(const Options& o, Seen& seen, const Json& state, const Process& before, const Process& after) {
  Json out, faults;
  std::int64_t bad = 0;
  for (const auto& [what, count] : seen.faults) {
    faults.set(what, count);
    bad += count;
  }
  const auto put = [&](const char* name, Json value) { out.set(name, std::move(value)); };
  put("work", "serve");
  put("clients", std::int64_t{o.clients});
  put("seconds", o.seconds);
  put("requests", seen.requests);
  put("complete", seen.complete);
  put("left", seen.left);
  put("refused", seen.refused);
  put("faults", faults.is_null() ? Json(Json::Object{}) : faults);
  put("tokens_per_second", static_cast<double>(seen.tokens) / o.seconds);
  put("events_per_second", static_cast<double>(seen.events) / o.seconds);
  put("first_token_p50", static_cast<double>(quantile(seen.first_token, 0.5)));
  put("first_token_p99", static_cast<double>(quantile(seen.first_token, 0.99)));
  put("between_p50", static_cast<double>(quantile(seen.between, 0.5)));
  put("between_p99", static_cast<double>(quantile(seen.between, 0.99)));
  const std::int64_t held = held_blocks(state, "full") + held_blocks(state, "sliding");
  put("held_blocks", held);
  if (o.pid > 0) {
    put("resident_kib_before", before.resident_kib);
    put("resident_kib_after", after.resident_kib);
    put("descriptors_before", before.descriptors);
    put("descriptors_after", after.descriptors);
  }
  fmt::print("{}\n", out.dump());
  const bool leaked = held != 0 || (o.pid > 0 && after.descriptors > before.descriptors);
  return bad == 0 && !leaked && seen.complete > 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("A crowd of streaming clients for a running server");
  app.add_option("--host", o.host, "Address")->capture_default_str();
  app.add_option("--port", o.port, "Port")->capture_default_str();
  app.add_option("--key", o.key, "API key");
  app.add_option("--clients", o.clients, "Clients at once")->capture_default_str();
  app.add_option("--seconds", o.seconds, "How long they go on")->capture_default_str();
  app.add_option("--max-tokens", o.max_tokens, "Of each answer")->capture_default_str();
  app.add_option("--temperature", o.temperature, "0: greedy")->capture_default_str();
  app.add_option("--leave", o.leave, "Share of streams that are left in the middle")->capture_default_str();
  app.add_option("--prompt", o.prompt, "The question")->capture_default_str();
  app.add_option("--pid", o.pid, "The server's process: its memory and descriptors are compared");
  CLI11_PARSE(app, argc, argv);
  try {
    // One stream first, so that what is made once is there before anything is counted.
    Options once = o;
    once.clients = 1;
    once.seconds = 0.05;
    once.leave = 0;
    Crowd(once).run();
    settled(o);
    const Process before = o.pid > 0 ? process(o.pid) : Process{};
    Seen seen = Crowd(o).run();
    const Json state = settled(o);
    std::this_thread::sleep_for(std::chrono::milliseconds(500));  // closed connections are let go
    return report(o, seen, state, before, o.pid > 0 ? process(o.pid) : Process{});
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_server: {}\n", error.what());
    return 1;
  }
}
