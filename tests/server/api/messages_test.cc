// POST /v1/messages: Anthropic's form.

#include <gtest/gtest.h>

#include "base/base64.h"
#include "tests/server/api/test_server.h"

namespace gov::test {
namespace {

TEST(ApiMessages, NanoNamesPictures) {
  TestServer server(ModelChoice::kNano);
  const std::string url = picture_url("banana.png");
  const Reply reply = server.post("/v1/messages", R"({"max_tokens":30,"messages":[{"role":"user","content":[
    {"type":"image","source":{"type":"base64","media_type":"image/png","data":")" +
                                                      url.substr(url.find(',') + 1) + R"("}},
    {"type":"text","text":"What is this?"}]}]})");
  ASSERT_EQ(reply.status, 200) << reply.body.substr(0, 300);
  const Json message = reply.json();
  EXPECT_EQ(message.find("type")->string(), "message");
  EXPECT_EQ(message.find("stop_reason")->string(), "end_turn");
  EXPECT_NE(message.find("content")->array().at(0).find("text")->string().find("banana"), std::string::npos)
      << reply.body;
}

TEST(ApiMessages, AStreamSaysTheSameAsTheWholeAnswer) {
  TestServer server(ModelChoice::kRandomHarmony);
  const std::string options = R"("max_tokens":60,"temperature":0,"thinking":{"type":"enabled","budget_tokens":20},
    "messages":[{"role":"user","content":"hi"}])";
  const Json whole = server.post("/v1/messages", "{" + options + "}").json();
  const Reply stream = server.post("/v1/messages", "{" + options + ",\"stream\":true}");
  const std::vector<std::string> names = stream.names(), events = stream.events();
  ASSERT_FALSE(names.empty());
  EXPECT_EQ(names.front(), "message_start");
  EXPECT_EQ(names.back(), "message_stop");
  std::vector<std::string> blocks;
  std::string stop_reason;
  for (const std::string& data : events) {
    const Json event = Json::parse(data);
    const std::string type = event.find("type")->string();
    if (type == "content_block_start") {
      EXPECT_EQ(event.find("index")->integer(), static_cast<std::int64_t>(blocks.size()));
      blocks.emplace_back();
    } else if (type == "content_block_delta") {
      for (const char* member : {"text", "thinking", "partial_json"}) {
        if (const Json* text = event.find("delta")->find(member)) blocks.back() += text->string();
      }
    } else if (type == "message_delta") {
      stop_reason = event.find("delta")->find("stop_reason")->string();
    }
  }
  const Json::Array& content = whole.find("content")->array();
  ASSERT_EQ(blocks.size(), content.size());
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const Json* text = content[i].find("text") ? content[i].find("text") : content[i].find("thinking");
    if (text) {
      EXPECT_EQ(blocks[i], text->string());
    }
  }
  EXPECT_EQ(stop_reason, whole.find("stop_reason")->string());
}

TEST(ApiMessages, CallsAndResultsKeepTheirNames) {
  TestServer server(ModelChoice::kRandomHarmony);
  const std::string tool = R"({"name":"f","description":"d","input_schema":{"type":"object","properties":{}}})";
  const Reply counted =
      server.post("/v1/messages/count_tokens", R"({"tools":[)" + tool + R"(],"system":"Be brief.","messages":[
    {"role":"user","content":"Call it."},
    {"role":"assistant","content":[{"type":"thinking","thinking":"I call.","signature":""},{"type":"text","text":"Calling."},
      {"type":"tool_use","id":"c","name":"f","input":{}}]},
    {"role":"user","content":[{"type":"tool_result","tool_use_id":"c","content":"done"}]}]})");
  const Reply applied = server.post(
      "/apply-template", R"({"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":
    {"type":"object","properties":{}}}}],"messages":[
    {"role":"system","content":"Be brief."},{"role":"user","content":"Call it."},
    {"role":"assistant","reasoning":"I call.","content":"Calling.","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},
    {"role":"tool","tool_call_id":"c","content":"done"}]})");
  ASSERT_EQ(counted.status, 200) << counted.body;
  ASSERT_EQ(applied.status, 200) << applied.body;
  EXPECT_EQ(counted.json().find("input_tokens")->integer(),
            static_cast<std::int64_t>(applied.json().find("tokens")->array().size()));
}

TEST(ApiMessages, ErrorsHaveAnthropicsForm) {
  TestServer server(ModelChoice::kRandomPlain);
  for (const char* body :
       {"{", R"({"messages":[]})", R"({"max_tokens":1,"messages":[{"role":"system","content":"x"}]})",
        R"({"max_tokens":1,"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]})",
        R"({"max_tokens":1,"messages":[{"role":"user","content":[{"type":"document"}]}]})",
        R"({"max_tokens":1,"mcp_servers":[{}],"messages":[{"role":"user","content":"x"}]})"}) {
    const Reply reply = server.post("/v1/messages", body);
    EXPECT_EQ(reply.status, 400) << body;
    EXPECT_EQ(reply.json().find("type")->string(), "error") << reply.body;
    EXPECT_EQ(reply.json().find("error")->find("type")->string(), "invalid_request_error") << reply.body;
  }
}

}  // namespace
}  // namespace gov::test
