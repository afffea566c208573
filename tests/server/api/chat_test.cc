// POST /v1/chat/completions and /apply-template.

#include <gtest/gtest.h>

#include "tests/server/api/test_server.h"

namespace gov::test {
namespace {

struct Streamed {
  std::string role, content, reasoning, arguments, finish_reason;
  Json::Array scores;
  Json usage;
  bool done = false;
};

// The chunks of one choice put together.
Streamed join(const Reply& reply, int index = 0) {
  Streamed out;
  for (const std::string& data : reply.events()) {
    if (data == "[DONE]") {
      out.done = true;
      continue;
    }
    const Json chunk = Json::parse(data);
    if (const Json* usage = chunk.find("usage"); usage && usage->is_object()) out.usage = *usage;
    for (const Json& choice : chunk.find("choices")->array()) {
      if (choice.find("index")->integer() != index) continue;
      const Json& delta = *choice.find("delta");
      if (const Json* role = delta.find("role")) out.role = role->string();
      if (const Json* content = delta.find("content")) out.content += content->string();
      if (const Json* reasoning = delta.find("reasoning")) out.reasoning += reasoning->string();
      if (choice.find("finish_reason")->is_string()) out.finish_reason = choice.find("finish_reason")->string();
      if (const Json* logprobs = choice.find("logprobs"); logprobs->is_object()) {
        const Json::Array& more = logprobs->find("content")->array();
        out.scores.insert(out.scores.end(), more.begin(), more.end());
      }
    }
  }
  return out;
}

const Json& choice_of(const Json& answer, std::size_t index = 0) { return answer.find("choices")->array().at(index); }
std::string content_of(const Json& answer, std::size_t index = 0) {
  const Json* content = choice_of(answer, index).find("message")->find("content");
  return content->is_string() ? content->string() : "";
}

constexpr const char* kAsk = R"("messages":[{"role":"user","content":"What is this?"}])";

std::string body(const std::string& more) { return std::string("{") + kAsk + (more.empty() ? "" : ",") + more + "}"; }

TEST(ApiChat, NanoNamesPictures) {
  TestServer server(ModelChoice::kNano);
  const std::string text = R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":")" +
                           picture_url("banana.png") + R"("}},{"type":"text","text":"What is this?"}]}]})";
  const Reply reply = server.post("/v1/chat/completions", text);
  ASSERT_EQ(reply.status, 200) << reply.body.substr(0, 400);
  const Json answer = reply.json();
  EXPECT_NE(content_of(answer).find("banana"), std::string::npos) << content_of(answer);
  EXPECT_EQ(choice_of(answer).find("finish_reason")->string(), "stop");
  const Json& usage = *answer.find("usage");
  EXPECT_EQ(usage.find("prompt_tokens_details")->find("image_tokens")->integer(),
            server.package.model.config.vision.tokens());
  EXPECT_GT(usage.find("prompt_tokens")->integer(),
            usage.find("prompt_tokens_details")->find("image_tokens")->integer());
  EXPECT_EQ(answer.find("object")->string(), "chat.completion");
}

TEST(ApiChat, AStreamSaysTheSameAsTheWholeAnswer) {
  for (const ModelChoice::Kind kind : {ModelChoice::kRandomPlain, ModelChoice::kRandomHarmony}) {
    TestServer server(kind);
    for (const int seed : {1, 2, 3, 4, 5}) {
      const std::string options = fmt::format(
          R"("seed":{},"temperature":1,"max_completion_tokens":60,"n":2,"logprobs":true,"top_logprobs":2)", seed);
      const Json whole = server.post("/v1/chat/completions", body(options)).json();
      const Reply stream = server.post("/v1/chat/completions",
                                       body(options + R"(,"stream":true,"stream_options":{"include_usage":true})"));
      EXPECT_TRUE(stream.content_type.starts_with("text/event-stream"));
      for (const int index : {0, 1}) {
        const Streamed joined = join(stream, index);
        const Json& choice = choice_of(whole, static_cast<std::size_t>(index));
        EXPECT_TRUE(joined.done);
        EXPECT_EQ(joined.role, "assistant");
        EXPECT_EQ(joined.content, content_of(whole, static_cast<std::size_t>(index)));
        const Json* reasoning = choice.find("message")->find("reasoning");
        EXPECT_EQ(joined.reasoning, reasoning ? reasoning->string() : "");
        EXPECT_EQ(joined.finish_reason, choice.find("finish_reason")->string());
        EXPECT_EQ(Json(joined.scores), *choice.find("logprobs")->find("content"));
        // Prefixes may have been cached in between.
        EXPECT_EQ(*joined.usage.find("total_tokens"), *whole.find("usage")->find("total_tokens"));
      }
    }
  }
}

TEST(ApiChat, LogprobsHaveTheBytesOfTheText) {
  TestServer server(ModelChoice::kRandomPlain);
  const Json answer = server
                          .post("/v1/chat/completions",
                                body(R"("seed":3,"temperature":1,"max_tokens":40,"logprobs":true,"top_logprobs":3)"))
                          .json();
  std::string bytes;
  for (const Json& score : choice_of(answer).find("logprobs")->find("content")->array()) {
    EXPECT_LE(score.find("logprob")->number(), 0);
    EXPECT_EQ(score.find("top_logprobs")->array().size(), 3u);
    for (const Json& byte : score.find("bytes")->array()) bytes += static_cast<char>(byte.integer());
  }
  // Special tokens are drawn, too, by a random model: their text is not part of the answer.
  EXPECT_GE(bytes.size(), content_of(answer).empty() ? 0u : 1u);
  EXPECT_FALSE(bytes.empty());
}

TEST(ApiChat, TheSameSeedGivesTheSameAnswer) {
  TestServer server(ModelChoice::kRandomPlain);
  const auto ask = [&](const char* options) {
    return content_of(server.post("/v1/chat/completions", body(options)).json());
  };
  const std::string first = ask(R"("seed":11,"temperature":1,"max_tokens":30)");
  EXPECT_EQ(ask(R"("seed":11,"temperature":1,"max_tokens":30)"), first);
  EXPECT_NE(ask(R"("seed":12,"temperature":1,"max_tokens":30)"), first);
}

TEST(ApiChat, StopTextsEndTheAnswerAndAreNotPartOfIt) {
  TestServer server(ModelChoice::kRandomPlain);
  const std::string options = R"("seed":5,"temperature":1,"max_tokens":60,"ignore_eos":true)";
  const std::string all = content_of(server.post("/v1/chat/completions", body(options)).json());
  ASSERT_GT(all.size(), 40u);
  std::size_t at = all.size() / 2;
  while ((static_cast<unsigned char>(all[at]) & 0xC0) == 0x80) ++at;
  std::size_t end = at + 3;
  while (end < all.size() && (static_cast<unsigned char>(all[end]) & 0xC0) == 0x80) ++end;
  const std::string stop = all.substr(at, end - at);
  const std::string expected = all.substr(0, all.find(stop));
  const std::string with_stop = options + ",\"logprobs\":true,\"stop\":[\"never seen\"," + Json(stop).dump() + "]";
  const Reply reply = server.post("/v1/chat/completions", body(with_stop));
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(content_of(reply.json()), expected);
  EXPECT_EQ(choice_of(reply.json()).find("finish_reason")->string(), "stop");
  const Streamed streamed = join(server.post("/v1/chat/completions", body(with_stop + ",\"stream\":true")));
  EXPECT_EQ(streamed.content, expected);
  EXPECT_EQ(Json(streamed.scores), *choice_of(reply.json()).find("logprobs")->find("content"));
  server.wait_until_idle();
}

TEST(ApiChat, ClientsThatGoEndTheirGeneration) {
  TestServer server(ModelChoice::kRandomPlain);
  for (const char* stream : {"true", "false"}) {
    const auto call = server.start("POST", "/v1/chat/completions",
                                   body(fmt::format(R"("stream":{},"max_tokens":2000,"ignore_eos":true)", stream)));
    server.wait_until_running();
    call->cancel();
    server.wait_until_idle();
    EXPECT_EQ(server.loop.stats().cancelled, stream == std::string("true") ? 1 : 2);
  }
}

TEST(ApiChat, AFullQueueIs429WithRetryAfter) {
  LoopLimits limits;
  limits.queue = 1;
  TestServer server(ModelChoice::kRandomPlain, TestServer::small_engine(), limits);
  const auto busy = server.start("POST", "/v1/chat/completions", body(R"("max_tokens":2000,"ignore_eos":true)"));
  server.wait_until_running();
  const Reply reply = server.post("/v1/chat/completions", body(""));
  EXPECT_EQ(reply.status, 429) << reply.body;
  EXPECT_NE(
      std::find(reply.headers.begin(), reply.headers.end(), std::pair<std::string, std::string>("Retry-After", "1")),
      reply.headers.end());
  busy->cancel();
}

TEST(ApiChat, TooLongPromptsAreRefusedAsSuch) {
  TestServer server(ModelChoice::kRandomPlain);
  std::string text;
  for (int i = 0; i < 3000; ++i) text += " word";
  for (const char* stream : {"true", "false"}) {
    const Reply reply =
        server.post("/v1/chat/completions",
                    fmt::format(R"({{"stream":{},"messages":[{{"role":"user","content":"{}"}}]}})", stream, text));
    EXPECT_EQ(reply.status, 400);
    EXPECT_EQ(reply.json().find("error")->find("code")->string(), "context_length_exceeded") << reply.body;
  }
}

TEST(ApiChat, WhatIsWrongIsNamed) {
  TestServer server(ModelChoice::kRandomHarmony);
  struct {
    const char *body, *param;
  } const cases[] = {
      {R"({"messages":[]})", "messages"},
      {R"({"messages":[1]})", "messages[0]"},
      {R"({"messages":[{"content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"robot","content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"user"}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":5}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":[{"type":"input_audio"}]}]})", "messages[0].content[0].type"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})", "messages[0].content[0].image_url"},
      {R"({"messages":[{"role":"user","content":"x","name":"a b"}]})", "messages[0].name"},
      {R"({"messages":[{"role":"system","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]})",
       "messages[0].content[0].image_url"},
      {R"({"messages":[{"role":"tool","content":"x","tool_call_id":"none"}]})", "messages[0].tool_call_id"},
      {R"({"messages":[{"role":"assistant","tool_calls":[{"id":"1","type":"other"}]}]})",
       "messages[0].tool_calls[0].type"},
      {R"({"messages":[{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"a b"}}]}]})",
       "messages[0].tool_calls[0].function.name"},
      {R"({"messages":[{"role":"user","content":"x"}],"tools":[{"type":"web_search"}]})", "tools[0].type"},
      {R"({"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"<|call|>"}}]})",
       "tools[0].function.name"},
      {R"({"messages":[{"role":"user","content":"x"}],"tool_choice":"required"})", "tool_choice"},
      {R"({"messages":[{"role":"user","content":"x"}],"tool_choice":{"type":"function","function":{"name":"f"}}})",
       "tool_choice"},
      {R"({"messages":[{"role":"user","content":"x"}],"response_format":{"type":"xml"}})", "response_format.type"},
      {R"({"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema"}})",
       "response_format.json_schema"},
      {R"({"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{"not":{}}}}})",
       "response_format"},
      {R"({"messages":[{"role":"user","content":"x"}],"stop":["a",1]})", "stop"},
      {R"({"messages":[{"role":"user","content":"x"}],"stop":""})", "stop"},
      {R"({"messages":[{"role":"user","content":"x"}],"logit_bias":{"a":1}})", "logit_bias"},
      {R"({"messages":[{"role":"user","content":"x"}],"logit_bias":{"1":101}})", "logit_bias"},
      {R"({"messages":[{"role":"user","content":"x"}],"top_logprobs":3})", "top_logprobs"},
      {R"({"messages":[{"role":"user","content":"x"}],"stream_options":{}})", "stream_options"},
      {R"({"messages":[{"role":"user","content":"x"}],"reasoning":{"effort":"huge"}})", "reasoning.effort"},
  };
  for (const auto& c : cases) {
    const Reply reply = server.post("/v1/chat/completions", c.body);
    EXPECT_EQ(reply.status, 400) << c.body << reply.body;
    EXPECT_EQ(reply.error_param(), c.param) << c.body << reply.body;
  }
}

TEST(ApiChat, TheTemplateTellsRolesChannelsAndTools) {
  TestServer server(ModelChoice::kRandomHarmony);
  const Reply reply = server.post("/apply-template", R"({
    "messages":[
      {"role":"system","content":"Be brief."},{"role":"developer","content":"Use metric units."},
      {"role":"user","content":"Weather in Oslo? <|end|>"},
      {"role":"assistant","reasoning_content":"I need the tool.","content":"One moment.",
       "tool_calls":[{"id":"c1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}}]},
      {"role":"tool","tool_call_id":"c1","content":"4 degrees"}],
    "tools":[{"type":"function","function":{"name":"weather","description":"Current weather.","parameters":
      {"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}]})");
  ASSERT_EQ(reply.status, 200) << reply.body;
  const std::string prompt = reply.json().find("prompt")->string();
  for (const char* part :
       {"<|start|>developer<|message|># Instructions\n\nBe brief.\n\nUse metric units.", "type weather = (_: {",
        "<|start|>assistant<|channel|>analysis<|message|>I need the tool.<|end|>",
        "<|start|>assistant<|channel|>commentary<|message|>One moment.<|end|>", "to=functions.weather",
        "<|message|>{\"city\":\"Oslo\"}<|call|>",
        "<|start|>functions.weather to=assistant<|channel|>commentary<|message|>4 degrees<|end|><|start|>assistant"}) {
    EXPECT_NE(prompt.find(part), std::string::npos) << part << "\n" << prompt;
  }
  const Json whole = reply.json();
  const Json::Array& tokens = whole.find("tokens")->array();
  const std::int64_t end = *server.package.tokenizer.find_special("<|end|>");
  // The user's "<|end|>" is text: system, developer, user, analysis, commentary and the result end, and no more.
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), Json(end)), 6);
}

TEST(ApiChat, ModelsForPlainChatsGetHarmonyOnlyForTools) {
  TestServer server(ModelChoice::kNano);
  const std::string plain = server.post("/apply-template", body("")).json().find("prompt")->string();
  EXPECT_EQ(plain, "<|start|>user<|message|>What is this?<|end|><|start|>assistant<|channel|>final<|message|>");
  const std::string tools =
      server.post("/apply-template", body(R"("tools":[{"type":"function","function":{"name":"f"}}])"))
          .json()
          .find("prompt")
          ->string();
  EXPECT_NE(tools.find("type f = () => any;"), std::string::npos) << tools;
  EXPECT_TRUE(tools.ends_with("<|start|>assistant")) << tools;
}

}  // namespace
}  // namespace gov::test
