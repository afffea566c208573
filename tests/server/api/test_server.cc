#include "tests/server/api/test_server.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "base/base64.h"

namespace gov::test {

namespace {

constexpr const char* kNanoFolder = GOV_SOURCE_DIR "/models/nano";

// Calls `line` for each line of a stream of events.
template <class Each>
void each_line(const std::string& body, Each each) {
  for (std::size_t at = 0; at < body.size();) {
    const std::size_t end = std::min(body.find('\n', at), body.size());
    each(std::string_view(body).substr(at, end - at));
    at = end + 1;
  }
}

Config tiny_config(const Config& nano) {
  Config c = nano;
  c.hidden_size = 64;
  c.intermediate_size = 32;
  c.num_hidden_layers = 2;
  c.layer_types = {AttentionKind::kSliding, AttentionKind::kFull};
  c.num_local_experts = 4;
  c.num_experts_per_tok = 2;
  c.head_dim = 32;
  c.num_attention_heads = 2;
  c.num_key_value_heads = 1;
  c.vision.embed_dim = 32;
  c.vision.num_layers = 1;
  c.vision.num_heads = 1;
  c.vision.intermediate_size = 32;
  c.mxfp4_experts = false;
  c.initializer_range = 0.3;
  return c;
}

}  // namespace

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string picture_url(const std::string& name) {
  return "data:image/png;base64," + base64_encode(read_file(std::string(kNanoFolder) + "/test_pictures/" + name));
}

std::vector<std::string> Reply::events() const {
  std::vector<std::string> out;
  each_line(body, [&](std::string_view line) {
    if (line.starts_with("data: ")) out.emplace_back(line.substr(6));
  });
  return out;
}

std::vector<std::string> Reply::names() const {
  std::vector<std::string> out;
  each_line(body, [&](std::string_view line) {
    if (line.starts_with("event: ")) out.emplace_back(line.substr(7));
  });
  return out;
}

std::string Reply::error_param() const {
  const Json body_json = json();
  const Json* error = body_json.find("error");
  const Json* param = error ? error->find("param") : nullptr;
  return param && param->is_string() ? param->string() : "";
}

Call::Call(const server::Router& router, std::string method, std::string path, std::string body, std::string tenant)
    : responder_(std::make_shared<server::Responder>([this] {
        const std::lock_guard lock(mutex_);
        ++wakes_;
        changed_.notify_all();
      })) {
  const auto target = server::parse_target(path);
  const server::Router::Match match = router.match(method, *target, false);
  EXPECT_NE(match.route, nullptr) << method << " " << path;
  server::HttpRequest request;
  request.method = std::move(method);
  request.path = target->path;
  request.query = target->query;
  request.params = match.params;
  request.body_text = std::make_shared<const std::string>(std::move(body));
  request.request_id = "test";
  request.tenant = std::move(tenant);
  match.route->handler(request, responder_);
}

Reply Call::wait(double seconds) {
  Reply reply;
  const auto deadline = std::chrono::steady_clock::now() +
                        std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::duration<double>(seconds));
  for (int seen = 0;;) {
    server::Responder::Pending pending = responder_->take();
    if (pending.status != 0) {
      reply.status = pending.status;
      reply.content_type = pending.content_type;
      reply.headers = pending.headers;
    }
    reply.body += pending.bytes;
    if (pending.finished || responder_->cancelled()) return reply;
    std::unique_lock lock(mutex_);
    if (!changed_.wait_until(lock, deadline, [&] { return wakes_ != seen; })) {
      ADD_FAILURE() << "no answer in " << seconds << " s; so far: " << reply.body;
      return reply;
    }
    seen = wakes_;
  }
}

ModelPackage test_package(ModelChoice::Kind kind, ThreadPool& pool) {
  ModelPackage package = load_package(kNanoFolder, pool);
  if (kind == ModelChoice::kNano) return package;
  Config config = tiny_config(package.model.config);
  if (kind == ModelChoice::kRandomPadded) config.vocab_size += 8;
  package.model = random_model(config, 7, pool);
  if (kind == ModelChoice::kRandomHarmony) package.chat_format = ChatFormat::kHarmony;
  return package;
}

EngineOptions TestServer::small_engine() {
  EngineOptions options;
  options.context = 2048;
  options.max_sequences = 8;
  options.chunk = 256;
  return options;
}

TestServer::TestServer(ModelChoice::Kind kind, const EngineOptions& engine_options, const LoopLimits& limits,
                       server::ApiOptions options)
    : package(test_package(kind, pool)),
      engine(package.model, &package.tokenizer, package.stop_ids, engine_options, pool),
      loop(engine, limits),
      api(package, loop,
          [&] {
            if (options.model_name.empty()) options.model_name = "test-model";
            return options;
          }()),
      router(api.routes()) {}

std::unique_ptr<Call> TestServer::start(std::string method, std::string path, const std::string& body,
                                        std::string tenant) {
  return std::make_unique<Call>(router, std::move(method), std::move(path), body, std::move(tenant));
}

Reply TestServer::post(std::string path, const std::string& body, std::string tenant) {
  return start("POST", std::move(path), body, std::move(tenant))->wait();
}

Reply TestServer::get(std::string path, std::string tenant) {
  return start("GET", std::move(path), "", std::move(tenant))->wait();
}

void TestServer::wait_until_running() {
  for (int i = 0; i < 15000; ++i) {
    if (loop.running() > 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ADD_FAILURE() << "nothing runs";
}

void TestServer::wait_until_idle() {
  for (int i = 0; i < 3000; ++i) {
    if (loop.waiting() + loop.running() == 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ADD_FAILURE() << "requests still run";
}

}  // namespace gov::test
