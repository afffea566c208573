// gpt-oss-vision serve: the model behind HTTP.

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "base/timer.h"
#include "cli/common.h"
#include "server/access_rules.h"
#include "server/http_server.h"

namespace gov::cli {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  gpt-oss-vision serve\n"
    "  gpt-oss-vision serve --model ~/models/gpt-oss-20b --port 8080 --max-sequences 32\n"
    "  GPT_OSS_VISION_API_KEY=... gpt-oss-vision serve --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem\n"
    "  curl -s localhost:8080/v1/chat/completions -d '{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}'\n"
    "SIGTERM or SIGINT: no new requests, open ones may end (--drain-seconds); a second one ends everything.";

struct ServeOptions {
  CommonOptions common;
  server::ServerOptions http;
  std::vector<std::string> key_files;
  std::int64_t max_sequences = 8;
  double drain_seconds = 30;
};

// Written by the handler, read by the thread that waits.
std::atomic<int> stop_signals{0};
std::atomic<bool> loading{true};
static_assert(std::atomic<int>::is_always_lock_free);

extern "C" void on_stop_signal(int) {
  stop_signals.fetch_add(1, std::memory_order_relaxed);
  if (loading.load(std::memory_order_relaxed)) _exit(0);  // nothing is being answered yet
}

void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
}

void add_network_options(CLI::App& app, ServeOptions& o) {
  const char* kNetwork = "Network";
  server::ServerOptions& http = o.http;
  app.add_option("--host", http.host, "Address to listen at; 0.0.0.0 or :: for all")
      ->type_name("ADDRESS")
      ->capture_default_str()
      ->group(kNetwork);
  app.add_option("--port", http.port, "Port; 0: any, which is printed")
      ->check(CLI::Range(0, 65535))
      ->type_name("N")
      ->capture_default_str()
      ->group(kNetwork);
  app.add_option("--admin-port", http.admin_port, "A second listener, on loopback, for routes that change the server's state")
      ->check(CLI::Range(0, 65535))
      ->type_name("N")
      ->group(kNetwork);
  app.add_option("--max-connections", http.max_connections, "Open at once; more are answered by 503")
      ->check(CLI::Range(1, 1000000))
      ->type_name("N")
      ->capture_default_str()
      ->group(kNetwork);
  app.add_option("--tls-cert", http.tls_cert, "PEM file of the certificate chain: HTTPS")->type_name("FILE")->group(kNetwork);
  app.add_option("--tls-key", http.tls_key, "PEM file of its key")->type_name("FILE")->group(kNetwork);
  app.add_option("--drain-seconds", o.drain_seconds, "How long open requests may go on after SIGTERM")
      ->check(CLI::Range(0.0, 86400.0))
      ->type_name("X")
      ->capture_default_str()
      ->group(kNetwork);
  app.add_flag("--log-json", http.log_json, "A line of JSON for each request instead of text")->group(kNetwork);
}

void add_access_options(CLI::App& app, ServeOptions& o) {
  const char* kAccess = "Access";
  add_repeatable(app, "--api-key", o.http.api_keys,
                 "Key that clients must send; repeatable. Others can see it in the list of processes: prefer --api-key-file or "
                 "$GPT_OSS_VISION_API_KEY")
      ->type_name("KEY")
      ->group(kAccess);
  add_repeatable(app, "--api-key-file", o.key_files, "File with a key on each line; repeatable")->type_name("FILE")->group(kAccess);
  add_repeatable(app, "--allowed-host", o.http.allowed_hosts,
                 "Name by which clients may call this server (Host header), besides localhost; repeatable")
      ->type_name("NAME")
      ->group(kAccess);
  add_repeatable(app, "--cors-origin", o.http.cors_origins,
                 "Origin whose web pages may ask, e.g. https://chat.example.com; repeatable")
      ->type_name("ORIGIN")
      ->group(kAccess);
}

void collect_keys(ServeOptions& o) {
  for (const std::string& file : o.key_files) {
    for (std::string& key : server::read_key_file(file)) o.http.api_keys.push_back(std::move(key));
  }
  if (const char* key = std::getenv("GPT_OSS_VISION_API_KEY"); key != nullptr && *key != '\0') o.http.api_keys.emplace_back(key);
}

// Lines of several threads do not mix, and a full pipe loses lines instead of stopping the server.
std::function<void(std::string_view)> stderr_lines() {
  return [mutex = std::make_shared<std::mutex>()](std::string_view line) {
    const std::lock_guard lock(*mutex);
    std::fwrite(line.data(), 1, line.size(), stderr);
    std::fputc('\n', stderr);
  };
}

int wait_and_drain(server::Server& server, double drain_seconds) {
  while (stop_signals.load() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  fmt::print(stderr, "gpt-oss-vision: stopping; open requests may end within {} s\n", drain_seconds);
  const bool drained = server.drain(drain_seconds, [] { return stop_signals.load() > 1; });
  server.stop();
  if (stop_signals.load() > 1) fail(ErrorCode::kCancelled, "requests were cut short");
  if (!drained) fmt::print(stderr, "gpt-oss-vision: warning: some requests were cut short\n");
  return 0;
}

int run_serve(const Program& program, ServeOptions o) {
  collect_keys(o);
  const std::size_t files = server::prepare_process();
  o.http.max_connections = std::min(o.http.max_connections, files > 256 ? files - 128 : files / 2);
  if (!o.common.quiet) o.http.access_log = stderr_lines();
  catch_stop_signals();
  server::Server server(o.http);
  server.start();
  Session session = open_session(o.common, program, o.max_sequences);
  server.set_routes({});
  loading = false;
  fmt::print("gpt-oss-vision: serving {} at {}\n", session.package->folder.filename().string(), server.address());
  if (server.admin_port() >= 0) fmt::print("gpt-oss-vision: admin routes at http://127.0.0.1:{}\n", server.admin_port());
  std::fflush(stdout);
  return wait_and_drain(server, o.drain_seconds);
}

}  // namespace

void add_serve(CLI::App& root, Program& program) {
  const auto o = std::make_shared<ServeOptions>();
  CLI::App& app = *root.add_subcommand("serve", "Serve the model over HTTP: OpenAI's API, and a web page");
  add_model_option(app, o->common);
  app.add_option("--max-sequences", o->max_sequences, "Sequences that run at once; more wait")
      ->check(CLI::Range(1, 4096))
      ->type_name("N")
      ->capture_default_str();
  add_network_options(app, *o);
  add_access_options(app, *o);
  add_memory_options(app, o->common);
  add_machine_options(app, o->common);
  app.add_flag("-q,--quiet", o->common.quiet, "No warnings, no progress bar, no line for each request");
  app.add_flag("-v,--verbose", o->common.verbose, "Notes and figures on standard error");
  app.footer(kExamples);
  app.callback([&program, o] { program.action = [&program, o] { return run_serve(program, *o); }; });
}

}  // namespace gov::cli
