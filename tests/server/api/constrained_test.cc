// A model of random weights, drawn at random: what a schema or a tool choice enforces holds all the same.

#include <gtest/gtest.h>

#include "tests/server/api/test_server.h"

namespace gov::test {
namespace {

constexpr const char* kSchema = R"({"type":"object","properties":{"name":{"type":"string","maxLength":12},
  "age":{"type":"integer","minimum":0,"maximum":130},"tags":{"type":"array","items":{"enum":["red","green","blue"]},"maxItems":3},
  "inner":{"type":"object","properties":{"ok":{"type":"boolean"},"note":{"type":["string","null"],"maxLength":8}},
  "required":["ok","note"],"additionalProperties":false}},"required":["name","age","tags","inner"],"additionalProperties":false})";

// By hand and plainly: not the grammar's own idea of the schema.
void expect_valid(const std::string& text) {
  Json value;
  ASSERT_NO_THROW(value = Json::parse(text)) << text;
  ASSERT_TRUE(value.is_object()) << text;
  ASSERT_EQ(value.object().size(), 4u) << text;
  const auto member = [](const Json& object, const char* name) -> const Json& {
    static const Json none;
    const Json* found = object.find(name);
    EXPECT_NE(found, nullptr) << name;
    return found ? *found : none;
  };
  EXPECT_TRUE(member(value, "name").is_string()) << text;
  const Json& age = member(value, "age");
  ASSERT_TRUE(age.is_integer()) << text;
  EXPECT_GE(age.integer(), 0);
  EXPECT_LE(age.integer(), 130);
  const Json& tags = member(value, "tags");
  ASSERT_TRUE(tags.is_array()) << text;
  EXPECT_LE(tags.array().size(), 3u);
  for (const Json& tag : tags.array())
    EXPECT_TRUE(tag == Json("red") || tag == Json("green") || tag == Json("blue")) << text;
  const Json& inner = member(value, "inner");
  ASSERT_TRUE(inner.is_object()) << text;
  EXPECT_EQ(inner.object().size(), 2u);
  EXPECT_TRUE(member(inner, "ok").is_bool()) << text;
  EXPECT_TRUE(member(inner, "note").is_string() || member(inner, "note").is_null()) << text;
}

const Json& message_of(const Json& answer) { return *answer.find("choices")->array().at(0).find("message"); }

// Calls that run side by side, as clients do.
std::vector<Json> ask_all(TestServer& server, int count, const std::function<std::string(int)>& body) {
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < count; ++i) calls.push_back(server.start("POST", "/v1/chat/completions", body(i)));
  std::vector<Json> answers;
  for (const auto& call : calls) {
    const Reply reply = call->wait();
    EXPECT_EQ(reply.status, 200) << reply.body;
    answers.push_back(reply.json());
  }
  return answers;
}

constexpr int kRuns = 100;

TEST(ApiConstrained, AHundredRandomAnswersFollowAStrictSchema) {
  for (const ModelChoice::Kind kind : {ModelChoice::kRandomPlain, ModelChoice::kRandomHarmony}) {
    TestServer server(kind);
    const std::vector<Json> answers = ask_all(server, kRuns, [&](int i) {
      return fmt::format(
          R"({{"messages":[{{"role":"user","content":"x"}}],"seed":{},"temperature":1,"max_reasoning_tokens":{},
        "max_completion_tokens":900,"response_format":{{"type":"json_schema","json_schema":{{"name":"person","strict":true,"schema":{}}}}}}})",
          i, i % 7, kSchema);
    });
    for (const Json& answer : answers) {
      EXPECT_EQ(answer.find("choices")->array()[0].find("finish_reason")->string(), "stop");
      expect_valid(message_of(answer).find("content")->string());
    }
  }
}

TEST(ApiConstrained, AHundredRandomAnswersCallATool) {
  TestServer server(ModelChoice::kRandomHarmony);
  const std::vector<Json> answers = ask_all(server, kRuns, [&](int i) {
    return fmt::format(
        R"({{"messages":[{{"role":"user","content":"x"}}],"seed":{},"temperature":1,"max_reasoning_tokens":{},
      "max_completion_tokens":900,"tool_choice":"required","tools":[
      {{"type":"function","function":{{"name":"save_person","strict":true,"parameters":{}}}}},
      {{"type":"function","function":{{"name":"save.other","strict":true,"parameters":{}}}}}]}})",
        i, i % 7, kSchema, kSchema);
  });
  std::set<std::string> names;
  for (const Json& answer : answers) {
    EXPECT_EQ(answer.find("choices")->array()[0].find("finish_reason")->string(), "tool_calls") << answer.dump();
    const Json* calls = message_of(answer).find("tool_calls");
    ASSERT_NE(calls, nullptr) << answer.dump();
    const Json& function = *calls->array().at(0).find("function");
    names.insert(function.find("name")->string());
    expect_valid(function.find("arguments")->string());
  }
  EXPECT_EQ(names, (std::set<std::string>{"save_person", "save.other"}));
}

TEST(ApiConstrained, ANamedToolIsTheOneCalledAndPlainModelsCallToo) {
  TestServer server(ModelChoice::kRandomPlain);
  for (int i = 0; i < 10; ++i) {
    const Json answer =
        server
            .post("/v1/chat/completions",
                  fmt::format(R"({{"messages":[{{"role":"user","content":"x"}}],"seed":{},"temperature":1,
      "max_reasoning_tokens":4,"max_completion_tokens":600,"tool_choice":{{"type":"function","function":{{"name":"b"}}}},"tools":[
      {{"type":"function","function":{{"name":"a"}}}},{{"type":"function","function":{{"name":"b","strict":true,"parameters":
      {{"type":"object","properties":{{"n":{{"type":"integer","minimum":1,"maximum":9}}}},"required":["n"],"additionalProperties":false}}}}}}]}})",
                              i))
            .json();
    const Json& function = *message_of(answer).find("tool_calls")->array().at(0).find("function");
    EXPECT_EQ(function.find("name")->string(), "b");
    const Json arguments = Json::parse(function.find("arguments")->string());
    EXPECT_GE(arguments.find("n")->integer(), 1);
    EXPECT_LE(arguments.find("n")->integer(), 9);
  }
}

TEST(ApiConstrained, JsonObjectsAreObjects) {
  TestServer server(ModelChoice::kRandomPlain);
  int complete = 0;
  for (int i = 0; i < 20; ++i) {
    const Json answer =
        server
            .post("/v1/chat/completions",
                  fmt::format(R"({{"messages":[{{"role":"user","content":"x"}}],"seed":{},"temperature":1,
      "max_completion_tokens":300,"response_format":{{"type":"json_object"}}}})",
                              i))
            .json();
    if (answer.find("choices")->array()[0].find("finish_reason")->string() != "stop") continue;
    ++complete;
    EXPECT_TRUE(Json::parse(message_of(answer).find("content")->string()).is_object());
  }
  EXPECT_GT(complete, 0);
}

TEST(ApiConstrained, ReasoningEndsAtItsLimit) {
  TestServer server(ModelChoice::kRandomHarmony);
  for (const int limit : {0, 1, 5, 17}) {
    const Json answer =
        server
            .post("/v1/chat/completions",
                  fmt::format(R"({{"messages":[{{"role":"user","content":"x"}}],"seed":{},"temperature":1,
      "max_reasoning_tokens":{},"max_completion_tokens":200}})",
                              limit, limit))
            .json();
    // The end token of the reasoning counts, and a whole character may need more than one.
    EXPECT_LE(answer.find("usage")->find("completion_tokens_details")->find("reasoning_tokens")->integer(), limit + 4)
        << answer.dump();
  }
  const Json none =
      server
          .post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"x"}],"seed":1,"temperature":1,
      "reasoning_effort":"none","max_completion_tokens":100})")
          .json();
  EXPECT_EQ(none.find("usage")->find("completion_tokens_details")->find("reasoning_tokens")->integer(), 0)
      << none.dump();
}

}  // namespace
}  // namespace gov::test
