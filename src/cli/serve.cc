// gpt-oss-vision serve: the model behind HTTP.

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "base/timer.h"
#include "cli/prompt_format.h"
#include "engine/engine_loop.h"
#include "server/access_rules.h"
#include "server/api.h"
#include "server/http_server.h"
#include "server/log_writer.h"

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
  server::ApiOptions api;
  PromptFormatOptions format;
  bool exact_model_name = false;
  LoopLimits queue;
  std::int64_t max_sequences = 8, queue_per_key = 0;
  bool no_prefix_cache = false;
  std::int64_t draft = 0;
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
  app.add_option("--admin-port", http.admin_port,
                 "A second listener, on loopback, for routes that change the server's state")
      ->check(CLI::Range(0, 65535))
      ->type_name("N")
      ->group(kNetwork);
  app.add_option("--max-connections", http.max_connections, "Open at once; more are answered by 503")
      ->check(CLI::Range(1, 1000000))
      ->type_name("N")
      ->capture_default_str()
      ->group(kNetwork);
  app.add_option("--tls-cert", http.tls_cert, "PEM file of the certificate chain: HTTPS")
      ->type_name("FILE")
      ->group(kNetwork);
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
  add_repeatable(
      app, "--api-key", o.http.api_keys,
      "Key that clients must send; repeatable. Others can see it in the list of processes: prefer --api-key-file or "
      "$GPT_OSS_VISION_API_KEY")
      ->type_name("KEY")
      ->group(kAccess);
  add_repeatable(app, "--api-key-file", o.key_files, "File with a key on each line; repeatable")
      ->type_name("FILE")
      ->group(kAccess);
  add_repeatable(app, "--allowed-host", o.http.allowed_hosts,
                 "Name by which clients may call this server (Host header), besides localhost; repeatable")
      ->type_name("NAME")
      ->group(kAccess);
  add_repeatable(app, "--cors-origin", o.http.cors_origins,
                 "Origin whose web pages may ask, e.g. https://chat.example.com; repeatable")
      ->type_name("ORIGIN")
      ->group(kAccess);
}

void add_engine_options(CLI::App& app, ServeOptions& o) {
  const char* kEngine = "Engine";
  const auto count = [&](const char* name, std::int64_t& value, std::int64_t least, std::int64_t most,
                         const char* help) {
    return app.add_option(name, value, help)->check(CLI::Range(least, most))->type_name("N")->group(kEngine);
  };
  count("--max-sequences", o.max_sequences, 1, 4096, "Sequences that run at once; more wait")->capture_default_str();
  count("--queue", o.queue.queue, 1, 1 << 20, "Requests that wait or run; more are answered by 429")
      ->capture_default_str();
  count("--queue-per-key", o.queue_per_key, 0, 1 << 20,
        "The same for each API key; 0: a quarter of --queue, without keys all of it")
      ->capture_default_str();
  app.add_flag("--no-prefix-cache", o.no_prefix_cache, "Compute every prompt anew")->group(kEngine);
  count("--draft", o.draft, 0, 64, "Most tokens guessed from what stood before; the text stays the same")
      ->capture_default_str();
}

void add_api_options(CLI::App& app, ServeOptions& o) {
  const char* kApi = "API";
  app.add_option("--model-name", o.api.model_name, "As /v1/models lists it; default: the folder's name")
      ->type_name("NAME")
      ->group(kApi);
  add_prompt_format_options(app, o.format, kApi);
  app.get_option("--reasoning-effort")->description("Of harmony models, for requests that do not say it");
  app.add_flag("--exact-model-name", o.exact_model_name,
               "Refuse requests that name another model; default: any name will do")
      ->group(kApi);
  using Order = HarmonyRenderOptions::Order;
  const std::map<std::string, Order> orders{{"channel", Order::kChannelFirst}, {"recipient", Order::kRecipientFirst}};
  app.add_option(
         "--render-order", o.api.render_order,
         "What comes first in the header of a call: the channel, or the recipient as openai-harmony 0.0.8 has it")
      ->transform(CLI::CheckedTransformer(orders))
      ->type_name("NAME")
      ->default_str("channel")
      ->group(kApi);
  app.add_option("--response-seconds", o.api.response_ttl_seconds, "How long stored responses are kept")
      ->check(CLI::Range(1.0, 1e9))
      ->type_name("X")
      ->capture_default_str()
      ->group(kApi);
  app.add_flag("--remote-images", o.api.remote_images,
               "Fetch pictures from https URLs that clients send: public addresses only, never this machine's networks")
      ->group(kApi);
  add_repeatable(app, "--image-host", o.api.image_hosts,
                 "With --remote-images: only from this host, or .example.com for all below it; repeatable")
      ->type_name("HOST")
      ->group(kApi);
  app.add_flag("--ignore-unknown-tools", o.api.ignore_unknown_tools,
               "Leave out tools of unknown types instead of refusing the request")
      ->group(kApi);
}

void collect_keys(ServeOptions& o) {
  for (const std::string& file : o.key_files) {
    for (std::string& key : server::read_key_file(file)) o.http.api_keys.push_back(std::move(key));
  }
  if (const char* key = std::getenv("GPT_OSS_VISION_API_KEY"); key != nullptr && *key != '\0')
    o.http.api_keys.emplace_back(key);
}

constexpr int kDeviceLost = 70;   // exit status; whoever supervises the server starts it anew
constexpr double kLastWords = 3;  // seconds for open requests to be told so

// Until a signal or the loss of the device; the exit status.
int wait_and_drain(server::Server& server, EngineLoop& loop, server::LogWriter& log, double drain_seconds) {
  while (stop_signals.load() == 0 && !loop.failed()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  if (loop.failed()) {
    server.set_failed("the device is lost");
    log.add("gpt-oss-vision: error: the device is lost");
    server.drain(kLastWords, [] { return stop_signals.load() > 0; });
    server.stop();
    return kDeviceLost;
  }
  log.add(fmt::format("gpt-oss-vision: stopping; open requests may end within {} s", drain_seconds));
  const Timer timer;
  bool drained = server.drain(drain_seconds, [&] { return stop_signals.load() > 1 || loop.failed(); });
  // What runs in the background has no connection that waits for it.
  while (drained && !loop.drain(0.1))
    drained = timer.seconds() < drain_seconds && stop_signals.load() < 2 && !loop.failed();
  server.stop();
  if (stop_signals.load() > 1) fail(ErrorCode::kCancelled, "requests were cut short");
  if (!drained) log.add("gpt-oss-vision: warning: some requests were cut short");
  return 0;
}

void complete_options(ServeOptions& o) {
  collect_keys(o);
  const std::size_t files = server::prepare_process();
  o.http.max_connections = std::min(o.http.max_connections, files > 256 ? files - 128 : files / 2);
  const std::int64_t share = o.http.api_keys.empty() ? o.queue.queue : std::max<std::int64_t>(1, o.queue.queue / 4);
  o.queue.queue_per_tenant = o.queue_per_key > 0 ? o.queue_per_key : share;
  if (!o.api.image_hosts.empty() && !o.api.remote_images) {
    throw CLI::ValidationError("--image-host", "goes with --remote-images");
  }
}

// What changes the server's state is not for the public listener.
server::Route cache_reset_route(EngineLoop& loop) {
  return {"POST", "/admin/cache/reset",
          [&loop](const server::HttpRequest&, const std::shared_ptr<server::Responder>& responder) {
            loop.reset_prefix_cache();
            responder->json(200, "{\"status\":\"reset\"}");
          },
          false, true};
}

int run_serve(const Program& program, ServeOptions o) {
  complete_options(o);
  catch_stop_signals();
  server::LogWriter log(STDERR_FILENO);
  if (!o.common.quiet) o.http.access_log = [&log](std::string_view line) { log.add(line); };
  server::Server server(o.http);
  server.start();
  Session session = open_session(o.common, program, [&](EngineOptions& options) {
    options.max_sequences = o.max_sequences;
    options.prefix_cache = !o.no_prefix_cache;
    options.draft_tokens = o.draft;
  });
  const PromptFormat format = prompt_format(o.format, *session.package);
  session.package->chat_format = format.format;
  o.api.chat_template = format.harmony_template;
  o.api.reasoning_effort = format.effort;
  o.api.any_model = !o.exact_model_name;
  if (o.api.model_name.empty())
    o.api.model_name = std::filesystem::canonical(session.package->folder).filename().string();
  EngineLoop loop(*session.engine, o.queue);
  server::Api api(*session.package, loop, o.api);
  struct Stop {  // before the API and the loop, which its handlers use, go
    server::Server& server;
    ~Stop() { server.stop(); }
  } const stop{server};
  std::vector<server::Route> routes = api.routes();
  routes.push_back(cache_reset_route(loop));
  server.set_routes(std::move(routes), [&api, &log] {
    return api.metrics() + fmt::format(
                               "# HELP gov_log_dropped_lines_total Lines of the log that nobody read in time.\n"
                               "# TYPE gov_log_dropped_lines_total counter\ngov_log_dropped_lines_total {}\n",
                               log.dropped());
  });
  loading = false;
  fmt::print("gpt-oss-vision: serving {} at {}\n", o.api.model_name, server.address());
  if (server.admin_port() >= 0)
    fmt::print("gpt-oss-vision: admin routes at http://127.0.0.1:{}\n", server.admin_port());
  std::fflush(stdout);
  return wait_and_drain(server, loop, log, o.drain_seconds);
}

}  // namespace

void add_serve(CLI::App& root, Program& program) {
  const auto o = std::make_shared<ServeOptions>();
  CLI::App& app = *root.add_subcommand("serve", "Serve the model over HTTP: OpenAI's API, and a web page");
  add_model_option(app, o->common);
  add_network_options(app, *o);
  add_access_options(app, *o);
  add_api_options(app, *o);
  add_engine_options(app, *o);
  add_memory_options(app, o->common);
  add_machine_options(app, o->common);
  app.add_flag("-q,--quiet", o->common.quiet, "No warnings, no progress bar, no line for each request");
  app.add_flag("-v,--verbose", o->common.verbose, "Notes and figures on standard error");
  app.footer(kExamples);
  app.callback([&program, o] { program.action = [&program, o] { return run_serve(program, *o); }; });
}

}  // namespace gov::cli
