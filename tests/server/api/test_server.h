#pragma once
// The API over a real engine, without a network: requests go to the routes' handlers, answers come from their
// Responder.

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/json.h"
#include "server/api.h"
#include "server/router.h"

namespace gov::test {

struct Reply {
  int status = 0;
  std::string content_type, body;
  server::Responder::Headers headers;

  Json json() const { return Json::parse(body); }
  // Of a stream: the data of its events, and their names.
  std::vector<std::string> events() const;
  std::vector<std::string> names() const;
  std::string error_param() const;  // "" if there is none
};

// A request under way.
class Call {
 public:
  Call(const server::Router& router, std::string method, std::string path, std::string body, std::string tenant = "");
  Reply wait(double seconds = 120);  // a failure of the test if it takes longer
  bool finished() const { return responder_->finished(); }
  void cancel() { responder_->cancel(); }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int wakes_ = 0;
  std::shared_ptr<server::Responder> responder_;
};

struct ModelChoice {
  enum Kind {
    kNano,
    // Two layers of random weights and nano's tokenizer, with nano's picture size.
    kRandomPlain,
    kRandomHarmony,  // its chats are harmony's messages
    kRandomPadded,   // with rows for eight ids more than there are tokens
  };
  Kind kind = kRandomPlain;
};

struct TestServer {
  explicit TestServer(ModelChoice::Kind kind, const EngineOptions& engine_options = small_engine(),
                      const LoopLimits& limits = {}, server::ApiOptions options = {});
  static EngineOptions small_engine();

  ThreadPool pool{1};
  ModelPackage package;
  Engine engine;
  EngineLoop loop;
  server::Api api;
  server::Router router;

  std::unique_ptr<Call> start(std::string method, std::string path, const std::string& body = "",
                              std::string tenant = "");
  Reply post(std::string path, const std::string& body, std::string tenant = "");
  Reply get(std::string path, std::string tenant = "");
  void wait_until_running();
  void wait_until_idle();
};

ModelPackage test_package(ModelChoice::Kind kind, ThreadPool& pool);

// A picture of nano's tests as a data: URL.
std::string picture_url(const std::string& name);
std::string read_file(const std::string& path);

}  // namespace gov::test
