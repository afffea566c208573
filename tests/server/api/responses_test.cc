// The routes below /v1/responses.

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/server/api/test_server.h"

namespace gov::test {
namespace {

std::string text_of(const Json& response) {
  std::string text;
  for (const Json& item : response.find("output")->array()) {
    if (item.find("type")->string() != "message") continue;
    for (const Json& part : item.find("content")->array()) text += part.find("text")->string();
  }
  return text;
}

std::string id_of(const Json& response) { return response.find("id")->string(); }

TEST(ApiResponses, AnswersAndRepeatsWhatWasAsked) {
  TestServer server(ModelChoice::kRandomPlain);
  const Reply reply =
      server.post("/v1/responses", R"({"input":"hi","instructions":"Be brief.","max_output_tokens":9,"temperature":0.5,
    "metadata":{"a":"b"},"seed":1,"ignore_eos":true})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json response = reply.json();
  EXPECT_EQ(response.find("object")->string(), "response");
  EXPECT_EQ(response.find("status")->string(), "incomplete");
  EXPECT_EQ(response.find("incomplete_details")->find("reason")->string(), "max_output_tokens");
  EXPECT_EQ(response.find("instructions")->string(), "Be brief.");
  EXPECT_EQ(response.find("metadata")->find("a")->string(), "b");
  EXPECT_EQ(response.find("temperature")->number(), 0.5);
  EXPECT_EQ(response.find("usage")->find("output_tokens")->integer(), 9);
  EXPECT_EQ(server.get("/v1/responses/" + id_of(response)).status, 404) << "it was not to be stored";
}

TEST(ApiResponses, StoredOnesAreFoundContinuedAndDeleted) {
  TestServer server(ModelChoice::kRandomPlain);
  const Json first =
      server
          .post("/v1/responses",
                R"({"input":"Remember seven.","store":true,"max_output_tokens":8,"seed":1,"temperature":1})")
          .json();
  EXPECT_EQ(server.get("/v1/responses/" + id_of(first)).json(), first);
  const Json items = server.get("/v1/responses/" + id_of(first) + "/input_items").json();
  EXPECT_EQ(items.find("data")->array().size(), 1u);
  EXPECT_EQ(server.get("/v1/responses/" + id_of(first), "another client").status, 404);

  // Continued: the same prompt as the whole conversation written out.
  const std::string next = fmt::format(R"({{"previous_response_id":"{}","input":"And now?"}})", id_of(first));
  const std::string whole = fmt::format(
      R"({{"input":[{{"role":"user","content":"Remember seven."}},{{"role":"assistant","content":{}}},{{"role":"user","content":"And now?"}}]}})",
      Json(text_of(first)).dump());
  const auto tokens = [&](const std::string& body) {
    const Reply reply = server.post("/v1/responses/input_tokens", body);
    EXPECT_EQ(reply.status, 200) << reply.body;
    return reply.json().find("input_tokens")->integer();
  };
  EXPECT_EQ(tokens(next), tokens(whole));
  EXPECT_GT(tokens(next), tokens(R"({"input":"And now?"})"));
  EXPECT_EQ(server.post("/v1/responses", next, "another client").status, 404);

  EXPECT_EQ(server.start("DELETE", "/v1/responses/" + id_of(first))->wait().status, 200);
  EXPECT_EQ(server.get("/v1/responses/" + id_of(first)).status, 404);
  EXPECT_EQ(server.post("/v1/responses", next).status, 404);
  EXPECT_EQ(server.start("DELETE", "/v1/responses/" + id_of(first))->wait().status, 404);
}

// Ids that the model generated are used again in the next turn's prompt as they are.
TEST(ApiResponses, GeneratedTokensAreKeptForTheNextTurn) {
  TestServer server(ModelChoice::kRandomHarmony);
  const Json first =
      server
          .post("/v1/responses", R"({"input":"hi","store":true,"seed":4,"temperature":1,"max_output_tokens":400,
    "reasoning":{"effort":"none"},"text":{"format":{"type":"json_schema","name":"a","schema":{"type":"object","properties":{"n":{"type":"integer",
    "minimum":0,"maximum":99}},"required":["n"],"additionalProperties":false}}}})")
          .json();
  ASSERT_EQ(first.find("status")->string(), "completed") << first.dump();
  const Json next =
      server
          .post("/v1/responses",
                fmt::format(R"({{"previous_response_id":"{}","input":"again","max_output_tokens":1,"seed":1}})",
                            id_of(first)))
          .json();
  const std::int64_t before = first.find("usage")->find("total_tokens")->integer();
  // The first prompt lacks its answer, the second has it, with <|end|> for <|return|>, and the new turn.
  EXPECT_GT(next.find("usage")->find("input_tokens")->integer(), before - 120);
}

TEST(ApiResponses, EventsAreNumberedAndMakeTheResponse) {
  for (const ModelChoice::Kind kind : {ModelChoice::kRandomPlain, ModelChoice::kRandomHarmony}) {
    TestServer server(kind);
    const Reply reply =
        server.post("/v1/responses", R"({"input":"hi","stream":true,"max_output_tokens":40,"seed":2,"temperature":1,
      "include":["message.output_text.logprobs"]})");
    ASSERT_EQ(reply.status, 200) << reply.body;
    const std::vector<std::string> events = reply.events(), names = reply.names();
    ASSERT_EQ(events.size(), names.size());
    std::map<std::string, std::string> deltas;
    Json last;
    for (std::size_t i = 0; i < events.size(); ++i) {
      const Json event = Json::parse(events[i]);
      EXPECT_EQ(event.find("sequence_number")->integer(), static_cast<std::int64_t>(i));
      EXPECT_EQ(event.find("type")->string(), names[i]);
      if (names[i].ends_with(".delta")) deltas[event.find("item_id")->string()] += event.find("delta")->string();
      last = event;
    }
    EXPECT_EQ(names.front(), "response.created");
    EXPECT_EQ(names[1], "response.in_progress");
    EXPECT_TRUE(names.back() == "response.incomplete" || names.back() == "response.completed") << names.back();
    for (const Json& item : last.find("response")->find("output")->array()) {
      const std::string type = item.find("type")->string();
      const std::string text = type == "function_call" ? item.find("arguments")->string()
                                                       : item.find("content")->array().at(0).find("text")->string();
      EXPECT_EQ(deltas[item.find("id")->string()], text) << type;
    }
  }
}

TEST(ApiResponses, BackgroundOnesRunOnAndCanBeCancelled) {
  TestServer server(ModelChoice::kRandomPlain);
  EXPECT_EQ(server.post("/v1/responses", R"({"input":"hi","background":true})").error_param(), "background");
  const Json queued =
      server
          .post("/v1/responses",
                R"({"input":"hi","background":true,"store":true,"max_output_tokens":5,"ignore_eos":true})")
          .json();
  EXPECT_EQ(queued.find("status")->string(), "queued");
  const auto wait_for_end = [&](const std::string& id) {
    for (int i = 0; i < 2000; ++i) {
      const Json now = server.get("/v1/responses/" + id).json();
      const std::string status = now.find("status")->string();
      if (status != "queued" && status != "in_progress") return now;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    ADD_FAILURE() << "it never ends";
    return Json();
  };
  EXPECT_EQ(wait_for_end(id_of(queued)).find("status")->string(), "incomplete");

  const Json long_one =
      server.post("/v1/responses", R"({"input":"hi","background":true,"store":true,"ignore_eos":true})").json();
  EXPECT_EQ(server.post("/v1/responses", fmt::format(R"({{"previous_response_id":"{}","input":"x"}})", id_of(long_one)))
                .status,
            400);
  const Reply cancelled = server.post("/v1/responses/" + id_of(long_one) + "/cancel", "");
  EXPECT_EQ(cancelled.json().find("status")->string(), "cancelled");
  EXPECT_EQ(wait_for_end(id_of(long_one)).find("status")->string(), "cancelled");
  EXPECT_EQ(server.post("/v1/responses/" + id_of(long_one) + "/cancel", "").json().find("status")->string(),
            "cancelled");

  const Json other = server.post("/v1/responses", R"({"input":"hi","store":true,"max_output_tokens":1})").json();
  EXPECT_EQ(server.post("/v1/responses/" + id_of(other) + "/cancel", "").status, 400)
      << "it did not run in the background";
}

TEST(ApiResponses, StoredOnesExpireAndAreBounded) {
  server::ApiOptions options;
  options.response_ttl_seconds = 0.2;
  TestServer server(ModelChoice::kRandomPlain, TestServer::small_engine(), {}, options);
  const Json response = server.post("/v1/responses", R"({"input":"hi","store":true,"max_output_tokens":1})").json();
  EXPECT_EQ(server.get("/v1/responses/" + id_of(response)).status, 200);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_EQ(server.get("/v1/responses/" + id_of(response)).status, 404);
}

TEST(ApiResponses, ItemsBecomeTheRightMessages) {
  TestServer server(ModelChoice::kRandomHarmony);
  // The same conversation in both protocols has the same prompt.
  const std::string tools =
      R"({"type":"function","name":"f","description":"d","parameters":{"type":"object","properties":{}}})";
  const std::string responses = R"({"tools":[)" + tools + R"(],"input":[
    {"role":"developer","content":"Be brief."},
    {"type":"message","role":"user","content":[{"type":"input_text","text":"Call it."}]},
    {"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"I call."}]},
    {"type":"message","role":"assistant","content":[{"type":"output_text","text":"Calling."}]},
    {"type":"function_call","call_id":"c","name":"f","arguments":"{}"},
    {"type":"function_call_output","call_id":"c","output":"done"}]})";
  const std::string chat = R"({"tools":[{"type":"function","function":)" + tools.substr(0, 1) +
                           tools.substr(tools.find("\"name\"")) + R"(}],"messages":[
    {"role":"developer","content":"Be brief."},{"role":"user","content":"Call it."},
    {"role":"assistant","reasoning":"I call.","content":"Calling.","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},
    {"role":"tool","tool_call_id":"c","content":"done"}]})";
  const Reply counted = server.post("/v1/responses/input_tokens", responses);
  const Reply applied = server.post("/apply-template", chat);
  ASSERT_EQ(counted.status, 200) << counted.body;
  ASSERT_EQ(applied.status, 200) << applied.body;
  EXPECT_EQ(counted.json().find("input_tokens")->integer(),
            static_cast<std::int64_t>(applied.json().find("tokens")->array().size()));
}

TEST(ApiResponses, WhatIsWrongIsNamed) {
  TestServer server(ModelChoice::kRandomPlain);
  struct {
    const char *body, *param;
  } const cases[] = {
      {R"({})", "input"},
      {R"({"input":[]})", "input"},
      {R"({"input":[{"type":"item_reference","id":"x"}]})", "input[0].type"},
      {R"({"input":[{"type":"function_call_output","call_id":"x","output":"y"}]})", "input[0].call_id"},
      {R"({"input":[{"role":"user","content":[{"type":"input_file"}]}]})", "input[0].content[0].type"},
      {R"({"input":"a","tools":[{"type":"local_shell"}]})", "tools[0].type"},
      {R"({"input":"a","text":{"format":{"type":"xml"}}})", "text.format.type"},
      {R"({"input":"a","text":{"verbosity":"high"}})", "text.verbosity"},
      {R"({"input":"a","include":["file_search_call.results"]})", "include"},
      {R"({"input":"a","reasoning":{"effort":"huge"}})", "reasoning.effort"},
      {R"({"input":"a","metadata":{"a":1}})", "metadata"},
      {R"({"input":"a","prompt":{"id":"x"}})", "prompt"},
      {R"({"input":"a","conversation":"x"})", "conversation"},
  };
  for (const auto& c : cases) {
    const Reply reply = server.post("/v1/responses", c.body);
    EXPECT_EQ(reply.status, 400) << c.body << reply.body;
    EXPECT_EQ(reply.error_param(), c.param) << c.body << reply.body;
  }
  EXPECT_EQ(
      server
          .post("/v1/responses",
                R"({"input":"a","max_output_tokens":1,"tools":[{"type":"local_shell"}],"ignore_unknown_tools":true})")
          .status,
      200);
}

}  // namespace
}  // namespace gov::test
