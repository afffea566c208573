// What goes wrong inside, or comes at a bad moment, is one request's trouble: nothing else ends, and the counters say
// so.

#include <gtest/gtest.h>

#include <future>
#include <latch>

#include "base/timer.h"
#include "server/chat_generation.h"
#include "server/response_store.h"
#include "server/routes.h"
#include "tests/server/api/test_server.h"

namespace gov::test {
namespace {

using namespace server;

TEST(Workers, WhatAJobThrowsEndsNothingElse) {
  Workers workers(1, 10);
  std::latch done(2);
  workers.post([] { throw std::runtime_error("a job's own"); });
  workers.post([&] { done.count_down(); });
  const auto strand = std::make_shared<Strand>(workers);
  strand->post([] { throw 1; });
  strand->post([&] { done.count_down(); });
  done.wait();
}

// Throws at the first token, or at the end.
TEST(Generation, WhatACallThrowsFailsItsRequest) {
  TestServer server(ModelChoice::kRandomPlain);
  for (const bool at_token : {true, false}) {
    std::promise<ApiError> told;
    std::atomic<int> ends = 0;
    {
      ApiContext context(server.package, server.loop, {});
      GenerationCalls calls;
      calls.token = [&](TokenPiece) {
        if (at_token) throw std::runtime_error("/root/secret");
      };
      calls.done = [&](RequestResult) {
        ++ends;
        throw std::runtime_error("/root/secret");
      };
      calls.failed = [&](const ApiError& error) { told.set_value(error); };
      Request request;
      request.prompt = {1, 2, 3};
      request.options.max_new_tokens = at_token ? 1900 : 3;
      request.options.ignore_eos = true;
      std::make_shared<Generation>("", "test")
          ->submit(context, std::move(request), std::make_shared<Strand>(*context.deliver), std::move(calls));
      const ApiError error = told.get_future().get();
      EXPECT_EQ(error.status, 500);
      EXPECT_EQ(error.message, "internal error");
    }
    EXPECT_EQ(ends, at_token ? 0 : 1);
  }
  EXPECT_EQ(server.post("/v1/completions", R"({"prompt":"a","max_tokens":1})").status, 200);
}

TEST(Generation, NoneBeginsOnceTheServerEnds) {
  TestServer server(ModelChoice::kRandomPlain);
  ApiContext context(server.package, server.loop, {});
  context.live.end_all_and_wait();
  const auto late = std::make_shared<Generation>("", "test");
  EXPECT_THROW(late->submit(context, {}, std::make_shared<Strand>(*context.deliver), {}), Error);
  EXPECT_TRUE(context.live.list().empty());
}

// The model has rows for more ids than the tokenizer has tokens.
TEST(ApiCompletions, IdsWithoutTokenAreRefused) {
  TestServer server(ModelChoice::kRandomPadded);
  const std::int64_t id = server.package.tokenizer.vocab_size();
  ASSERT_LT(id, server.package.model.config.vocab_size);
  for (const char* more : {"", R"(,"echo":true)", R"(,"echo":true,"stream":true)"}) {
    const Reply reply =
        server.post("/v1/completions", fmt::format(R"({{"prompt":[5,{}],"max_tokens":1{}}})", id, more));
    EXPECT_EQ(reply.status, 400) << reply.body;
    EXPECT_EQ(reply.error_param(), "prompt") << reply.body;
  }
  EXPECT_EQ(server.post("/v1/embeddings", fmt::format(R"({{"input":[[5],[5,{}]]}})", id)).error_param(), "input");
}

TEST(ApiCompletions, MorePromptsThanTheQueueHasRoomForTakeTurns) {
  std::string prompts;
  for (int i = 0; i < 20; ++i) prompts += fmt::format("{}\"prompt {}\"", i > 0 ? "," : "", i);
  for (const std::int64_t room : {1, 4}) {
    TestServer server(ModelChoice::kRandomPlain, TestServer::small_engine(), {room, room});
    const Reply reply =
        server.post("/v1/completions", fmt::format(R"({{"prompt":[{}],"max_tokens":3,"ignore_eos":true}})", prompts));
    ASSERT_EQ(reply.status, 200) << reply.body;
    EXPECT_EQ(reply.json().find("choices")->array().size(), 20u);
    TestServer another(ModelChoice::kRandomPlain, TestServer::small_engine(), {room, room});
    EXPECT_EQ(another.post("/v1/embeddings", fmt::format(R"({{"input":[{}]}})", prompts)).status, 200);
  }
}

std::int64_t count(TestServer& server, const char* what) {
  return server.get("/state").json().find("requests")->find(what)->integer();
}

TEST(ApiCounters, EachRequestHasOneEnd) {
  const std::string chat = R"({"messages":[{"role":"user","content":"x"}],"max_tokens":2})";
  TestServer server(ModelChoice::kRandomPlain);
  server.post("/v1/chat/completions", chat);
  server.post("/v1/completions", R"({"prompt":"a","max_tokens":1})");
  server.post("/v1/embeddings", R"({"input":"a"})");
  server.post("/v1/chat/completions", R"({"messages":[]})");
  server.post("/v1/completions", "no JSON");
  server.post("/v1/responses", R"({"input":[]})");
  server.post("/tokenize", R"({"prompt":1})");  // generates nothing
  EXPECT_EQ(count(server, "succeeded"), 3);
  EXPECT_EQ(count(server, "failed"), 3);
  EXPECT_EQ(count(server, "total"), 6);

  TestServer full(ModelChoice::kRandomPlain, TestServer::small_engine(), {1, 1});
  const auto call = full.start("POST", "/v1/responses", R"({"input":"a","ignore_eos":true,"max_output_tokens":1900})");
  full.wait_until_running();
  EXPECT_EQ(full.post("/v1/chat/completions", chat).status, 429);
  EXPECT_EQ(full.post("/v1/messages", chat).status, 429);
  EXPECT_EQ(full.post("/v1/completions", R"({"prompt":"a"})").status, 429);
  EXPECT_EQ(full.post("/v1/responses", R"({"input":"a"})").status, 429);
  call->cancel();
  for (int i = 0; i < 1000 && count(full, "cancelled") == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_EQ(count(full, "rejected"), 4);
  EXPECT_EQ(count(full, "cancelled"), 1);
  EXPECT_EQ(count(full, "total"), 5);
}

TEST(ApiCounters, OnlyClientsThatGoMakeCancellationTimes) {
  TestServer server(ModelChoice::kRandomPlain);
  const auto times = [&](int want) {
    const std::string line = fmt::format("gov_cancel_seconds_count {}\n", want);
    return server.api.metrics().find(line) != std::string::npos;
  };
  const std::string chat = R"({"messages":[{"role":"user","content":"x"}],"seed":1,"ignore_eos":true,"max_tokens":)";
  const std::string text = server.post("/v1/chat/completions", chat + "40}")
                               .json()
                               .find("choices")
                               ->array()[0]
                               .find("message")
                               ->find("content")
                               ->string();
  ASSERT_GE(text.size(), 8u);
  const Json stop(text.substr(2, 3));
  EXPECT_EQ(server.post("/v1/chat/completions", chat + "1900,\"stop\":" + stop.dump() + "}").status, 200);
  server.wait_until_idle();
  EXPECT_TRUE(times(0)) << server.api.metrics();
  const auto call = server.start("POST", "/v1/chat/completions", chat + "1900}");
  server.wait_until_running();
  call->cancel();
  server.wait_until_idle();
  EXPECT_TRUE(times(1)) << server.api.metrics();
}

TEST(ApiRoutes, SlotsShowOnlyTheKeysOwn) {
  TestServer server(ModelChoice::kRandomPlain);
  const auto call =
      server.start("POST", "/v1/completions", R"({"prompt":"a","max_tokens":1900,"ignore_eos":true})", "mine");
  server.wait_until_running();
  EXPECT_EQ(server.get("/slots", "mine").json().array().size(), 1u);
  EXPECT_EQ(server.get("/slots", "other").json().array().size(), 0u);
  call->cancel();
  server.wait_until_idle();
}

// A background answer whose record finds no room must not run on unseen.
TEST(ApiResponses, NothingRunsForABackgroundAnswerThatCannotBeKept) {
  const char* ask = R"({"input":"hi","background":true,"store":true,"ignore_eos":true,"max_output_tokens":20})";
  std::size_t queued = sizeof(StoredResponse);
  {
    TestServer server(ModelChoice::kRandomPlain);
    const Reply reply = server.post("/v1/responses", ask);
    const Json items = server.get("/v1/responses/" + reply.json().find("id")->string() + "/input_items").json();
    queued += reply.body.size() + items.find("data")->dump().size();
    server.wait_until_idle();
  }
  ApiOptions options;
  options.stored_bytes = 2 * (queued + 2);  // one may have half; "in_progress" is longer than "queued" by 5
  TestServer server(ModelChoice::kRandomPlain, TestServer::small_engine(), {}, options);
  EXPECT_EQ(server.post("/v1/responses", ask).status, 200);
  for (int i = 0; i < 1000 && count(server, "failed") == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  server.wait_until_idle();
  EXPECT_EQ(count(server, "failed"), 1);
  EXPECT_EQ(server.loop.stats().tokens, 0);
}

TEST(ResponseStore, CountsAllThatItHoldsAndExpiresBehindRunningOnes) {
  StoredResponse response;
  response.tenant = "a";
  const std::size_t empty = response.bytes();
  response.calls.add(std::string(500, 'i'), "name");
  EXPECT_GT(response.bytes(), empty + 500);
  ResponseStore store(1 << 20, 0.01);
  for (const char* id : {"r", "x", "y"}) {
    response.id = id;
    response.running = response.id == "r";
    store.put(response);
  }
  const std::size_t all = store.bytes();
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_NE(store.find("a", "r"), nullptr);
  EXPECT_EQ(store.bytes(), all / 3);
}

TEST(ApiResponses, IdsOfCallsAreBounded) {
  TestServer server(ModelChoice::kRandomHarmony);
  const std::string id(513, 'i');
  const Reply responses = server.post(
      "/v1/responses",
      fmt::format(R"({{"input":[{{"type":"function_call","call_id":"{}","name":"f","arguments":"{{}}"}}]}})", id));
  EXPECT_EQ(responses.error_param(), "input[0].call_id") << responses.body;
  const Reply chat =
      server.post("/v1/chat/completions",
                  fmt::format(R"({{"messages":[{{"role":"assistant","tool_calls":[{{"id":"{}","type":"function",)"
                              R"("function":{{"name":"f","arguments":"{{}}"}}}}]}}]}})",
                              id));
  EXPECT_EQ(chat.error_param(), "messages[0].tool_calls[0].id") << chat.body;
}

// A fetch that goes on and on ends with its client; a request's pictures share one time.
TEST(ApiImages, FetchesEndWithTheirClientAndShareTheirTime) {
  TestServer server(ModelChoice::kNano);
  ApiContext context(server.package, server.loop, {});
  std::atomic<int> fetching = 0;
  context.image_rules.remote = true;
  context.image_rules.fetch = [&](const std::string&, double, const std::function<bool()>& cancelled) -> std::string {
    ++fetching;
    while (!cancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    fail(ErrorCode::kCancelled, "cancelled");
  };
  const auto responder = std::make_shared<Responder>();
  HttpRequest request;
  request.body_text = std::make_shared<const std::string>(
      R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://a.example/b"}}]}]})");
  chat_completions(context, request, responder);
  while (fetching == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  responder->cancel();
  const Timer timer;
  while (context.counters.cancelled == 0 && timer.seconds() < 5)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(context.counters.cancelled, 1);

  std::vector<double> left;
  ImageRules rules;
  rules.remote = true;
  rules.fetch = [&](const std::string&, double seconds, const std::function<bool()>&) {
    left.push_back(seconds);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return read_file(GOV_SOURCE_DIR "/models/nano/test_pictures/banana.png");
  };
  const ImageSource picture{"input", std::make_shared<const std::string>("https://a.example/b")};
  load_images({picture, picture}, server.package.preprocessor, rules);
  ASSERT_EQ(left.size(), 2u);
  EXPECT_LE(left[0], kFetchSeconds);
  EXPECT_LE(left[1], left[0] - 0.05);
}

// Each schema is within its own limit; all of a request together have one of their own. An automaton of this pattern
// has 2^kTail states.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kTail = 9;
#else
constexpr int kTail = 11;
#endif
TEST(ApiSchemas, ThoseOfOneRequestHaveOneSecondTogether) {
  SchemaCache cache;
  EXPECT_THROW(cache.schema(Json::parse(R"({"type":"object","properties":{"a":{"type":"string"}}})"), 0), Error);
  TestServer server(ModelChoice::kRandomHarmony);
  const auto ask = [](int tools) {
    std::string list;
    for (int i = 0; i < tools; ++i) {
      list +=
          fmt::format(R"({}{{"type":"function","function":{{"name":"f{}","strict":true,"parameters":{{"type":"object",)"
                      R"("properties":{{"a":{{"type":"string","pattern":"^{}(a|b)*a(a|b){{{}}}$"}}}}}}}}}})",
                      i > 0 ? "," : "", i, i, kTail);
    }
    return R"({"messages":[{"role":"user","content":"x"}],"tools":[)" + list + "]}";
  };
  EXPECT_EQ(server.post("/apply-template", ask(1)).status, 200);
  const Timer timer;
  const Reply many = server.post("/apply-template", ask(60));
  EXPECT_EQ(many.status, 400);
  EXPECT_NE(many.body.find("the request's schemas take more than 1 s"), std::string::npos) << many.body;
  EXPECT_LT(timer.seconds(), 3);
}

TEST(SpeedMeter, IsRightAfterAPauseInPolling) {
  SpeedMeter meter;
  meter.note(0, 0, 0);
  const SpeedMeter::Speed speed = meter.speed(100, 10'000, 1'000);
  EXPECT_NEAR(speed.prompt, 100, 1);
  EXPECT_NEAR(speed.generated, 10, 0.1);
}

// Nobody looks while it runs; the speed is known all the same.
TEST(SpeedMeter, IsKeptByTheTokensThemselves) {
  TestServer server(ModelChoice::kRandomPlain);
  ApiContext context(server.package, server.loop, {});
  EXPECT_TRUE(context.meter.due(0.1));
  std::promise<void> ended;
  GenerationCalls calls;
  calls.done = [&](RequestResult) { ended.set_value(); };
  calls.failed = [&](const ApiError&) { ended.set_value(); };
  Request request;
  request.prompt = {1, 2, 3};
  request.options.max_new_tokens = 3;
  request.options.ignore_eos = true;
  std::make_shared<Generation>("", "test")
      ->submit(context, std::move(request), std::make_shared<Strand>(*context.deliver), std::move(calls));
  ended.get_future().get();
  EXPECT_FALSE(context.meter.due(0.1)) << "it was noted";
}

}  // namespace
}  // namespace gov::test
