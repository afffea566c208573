// POST /v1/completions by the contract of lm-evaluation-harness, and POST /v1/embeddings.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/base64.h"
#include "tests/server/api/test_server.h"

namespace gov::test {
namespace {

std::string ids_text(const std::vector<std::int32_t>& ids) {
  std::string text = "[";
  for (const std::int32_t id : ids) text += (text.size() > 1 ? "," : "") + std::to_string(id);
  return text + "]";
}

// "bytes:\xNN..." names a token that is not UTF-8.
std::optional<std::int32_t> id_of_name(const Tokenizer& tokenizer, const std::string& name) {
  std::string bytes = name;
  if (name.starts_with("bytes:")) {
    bytes.clear();
    for (std::size_t at = 6; at + 4 <= name.size(); at += 4)
      bytes += static_cast<char>(std::stoi(name.substr(at + 2, 2), nullptr, 16));
  }
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.has_token(id) && tokenizer.token_bytes(id) == bytes) return id;
  }
  return std::nullopt;
}

const Json& choice_of(const Json& answer, std::size_t index) { return answer.find("choices")->array().at(index); }

TEST(ApiCompletions, ScoredPromptsHaveOneEntryForEachToken) {
  TestServer server(ModelChoice::kRandomPlain);
  const std::vector<std::int32_t> first = {10, 500, 4088, 700, 33}, second = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  const Reply reply = server.post(
      "/v1/completions",
      fmt::format(
          R"({{"model":"m","prompt":[{},{}],"temperature":0,"max_tokens":1,"logprobs":1,"seed":1234,"echo":true}})",
          ids_text(first), ids_text(second)));
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json answer = reply.json();
  ASSERT_EQ(answer.find("choices")->array().size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    const std::size_t prompt = (i == 0 ? first : second).size();
    const Json& choice = choice_of(answer, i);
    EXPECT_EQ(choice.find("index")->integer(), static_cast<std::int64_t>(i));
    const Json& logprobs = *choice.find("logprobs");
    for (const char* list : {"tokens", "token_logprobs", "top_logprobs", "text_offset"}) {
      EXPECT_EQ(logprobs.find(list)->array().size(), prompt + 1) << list;
    }
    EXPECT_TRUE(logprobs.find("token_logprobs")->array()[0].is_null());
    EXPECT_TRUE(logprobs.find("top_logprobs")->array()[0].is_null());
    for (std::size_t k = 1; k <= prompt; ++k) {
      const double own = logprobs.find("token_logprobs")->array()[k].number();
      double best = -1e9;
      bool there = false;
      for (const auto& [name, value] : logprobs.find("top_logprobs")->array()[k].object()) {
        best = std::max(best, value.number());
        there = there || name == logprobs.find("tokens")->array()[k].string();
      }
      EXPECT_TRUE(there);
      EXPECT_LE(own, best);
      if (k == prompt) {
        EXPECT_EQ(own, best);  // drawn greedily: the same number
      }
    }
  }
}

// What the harness sums is what the model says: compared with the tokens drawn one after the other.
TEST(ApiCompletions, PromptScoresAreThoseOfGeneration) {
  TestServer server(ModelChoice::kNano);  // gives the tokens that are never drawn next to no probability
  const Json generated =
      server
          .post("/v1/completions",
                R"({"prompt":[5,6,7],"max_tokens":12,"temperature":0,"logprobs":0,"ignore_eos":true})")
          .json();
  const Json& lists = *choice_of(generated, 0).find("logprobs");
  std::vector<std::int32_t> ids = {5, 6, 7};
  // The ids that were drawn, one at a time.
  for (int i = 0; i < 12; ++i) {
    const Json one =
        server
            .post("/v1/completions",
                  fmt::format(R"({{"prompt":{},"max_tokens":1,"temperature":0,"logprobs":0,"ignore_eos":true}})",
                              ids_text(ids)))
            .json();
    const double logprob = choice_of(one, 0).find("logprobs")->find("token_logprobs")->array()[0].number();
    EXPECT_NEAR(logprob, lists.find("token_logprobs")->array()[static_cast<std::size_t>(i)].number(), 1e-5);
    const std::string name = choice_of(one, 0).find("logprobs")->find("tokens")->array()[0].string();
    const auto found = id_of_name(server.package.tokenizer, name);
    ASSERT_TRUE(found) << name;
    ids.push_back(*found);
  }
  const Json scored =
      server
          .post("/v1/completions",
                fmt::format(R"({{"prompt":{},"max_tokens":0,"temperature":0.3,"logprobs":2,"echo":true}})",
                            ids_text(ids)))
          .json();
  const Json::Array& values = choice_of(scored, 0).find("logprobs")->find("token_logprobs")->array();
  ASSERT_EQ(values.size(), ids.size());
  for (std::size_t i = 3; i < ids.size(); ++i) {
    EXPECT_NEAR(values[i].number(), lists.find("token_logprobs")->array()[i - 3].number(), 1e-5);
  }
}

TEST(ApiCompletions, TextOffsetsCountCharacters) {
  TestServer server(ModelChoice::kRandomPlain);
  const Json answer =
      server.post("/v1/completions", R"({"prompt":"Grüße, 世界 and more","max_tokens":0,"logprobs":0,"echo":true})")
          .json();
  const Json& choice = choice_of(answer, 0);
  EXPECT_EQ(choice.find("text")->string(), "Grüße, 世界 and more");
  const Json::Array& offsets = choice.find("logprobs")->find("text_offset")->array();
  const Json::Array& tokens = choice.find("logprobs")->find("tokens")->array();
  EXPECT_EQ(offsets[0].integer(), 0);
  EXPECT_LE(offsets.back().integer(), 18);
  for (std::size_t i = 1; i < offsets.size(); ++i) EXPECT_LE(offsets[i - 1].integer(), offsets[i].integer());
  // " more" is a word at the end.
  const std::string last = tokens.back().string();
  EXPECT_EQ(offsets.back().integer(), 18 - static_cast<std::int64_t>(last.size()));
}

TEST(ApiCompletions, TextAndIdsAreTheSamePrompt) {
  TestServer server(ModelChoice::kRandomPlain);
  const std::vector<std::int32_t> ids = server.package.tokenizer.encode("Once upon a<|end|>", SpecialTokens::kAllow);
  const char* options = R"("max_tokens":12,"temperature":0)";
  const auto text_of = [&](const std::string& prompt) {
    return choice_of(server.post("/v1/completions", fmt::format(R"({{"prompt":{},{}}})", prompt, options)).json(), 0)
        .find("text")
        ->string();
  };
  EXPECT_EQ(text_of("\"Once upon a<|end|>\""), text_of(ids_text(ids)));
  EXPECT_EQ(text_of("[\"Once upon a<|end|>\"]"), text_of("[" + ids_text(ids) + "]"));
  const Json raw = server.post("/tokenize", R"({"prompt":"Once upon a<|end|>","parse_special":false})").json();
  EXPECT_GT(raw.find("tokens")->array().size(), ids.size());
}

TEST(ApiCompletions, ManyPromptsComeBackInOrder) {
  LoopLimits limits;
  limits.queue = limits.queue_per_tenant = 70;  // fewer than the prompts: they go to the engine a few at a time
  TestServer server(ModelChoice::kRandomPlain, TestServer::small_engine(), limits);
  std::string prompts;
  for (int i = 0; i < 150; ++i) prompts += fmt::format("{}[{},{}]", i ? "," : "", i + 1, i + 2);
  const Json answer =
      server
          .post("/v1/completions",
                fmt::format(R"({{"prompt":[{}],"max_tokens":2,"n":2,"echo":true,"seed":1,"temperature":1}})", prompts))
          .json();
  const Json::Array& choices = answer.find("choices")->array();
  ASSERT_EQ(choices.size(), 300u);
  for (std::size_t i = 0; i < choices.size(); ++i) {
    EXPECT_EQ(choices[i].find("index")->integer(), static_cast<std::int64_t>(i));
    const std::int32_t id = static_cast<std::int32_t>(i / 2 + 1);
    const std::vector<std::int32_t> ids = {id, id + 1};
    const std::string start = server.package.tokenizer.decode_utf8(ids);
    EXPECT_TRUE(choices[i].find("text")->string().starts_with(start.substr(0, start.size() / 2)));
  }
  EXPECT_EQ(answer.find("usage")->find("prompt_tokens")->integer(), 300);
}

TEST(ApiCompletions, AStreamSaysTheSameAsTheWholeAnswer) {
  TestServer server(ModelChoice::kRandomPlain);
  const std::string options = R"("prompt":["a b","c"],"max_tokens":20,"n":2,"seed":9,"temperature":1,"logprobs":1)";
  const Json whole = server.post("/v1/completions", "{" + options + "}").json();
  const Reply stream =
      server.post("/v1/completions", "{" + options + R"(,"stream":true,"stream_options":{"include_usage":true}})");
  std::vector<std::string> texts(4), reasons(4);
  std::vector<Json::Array> tokens(4), offsets(4);
  const std::vector<std::string> events = stream.events();
  ASSERT_EQ(events.back(), "[DONE]");
  for (std::size_t i = 0; i + 1 < events.size(); ++i) {
    const Json chunk = Json::parse(events[i]);
    for (const Json& choice : chunk.find("choices")->array()) {
      const std::size_t index = static_cast<std::size_t>(choice.find("index")->integer());
      texts[index] += choice.find("text")->string();
      if (choice.find("finish_reason")->is_string()) reasons[index] = choice.find("finish_reason")->string();
      if (!choice.find("logprobs")->is_object()) continue;
      for (const Json& t : choice.find("logprobs")->find("tokens")->array()) tokens[index].push_back(t);
      for (const Json& t : choice.find("logprobs")->find("text_offset")->array()) offsets[index].push_back(t);
    }
  }
  for (std::size_t i = 0; i < 4; ++i) {
    const Json& choice = choice_of(whole, i);
    EXPECT_EQ(texts[i], choice.find("text")->string());
    EXPECT_EQ(reasons[i], choice.find("finish_reason")->string());
    EXPECT_EQ(Json(tokens[i]), *choice.find("logprobs")->find("tokens"));
    EXPECT_EQ(Json(offsets[i]), *choice.find("logprobs")->find("text_offset"));
  }
  EXPECT_EQ(*Json::parse(events[events.size() - 2]).find("usage")->find("total_tokens"),
            *whole.find("usage")->find("total_tokens"));
}

TEST(ApiCompletions, WhatIsWrongIsNamed) {
  TestServer server(ModelChoice::kRandomPlain);
  struct {
    const char *body, *param;
  } const cases[] = {
      {R"({"prompt":""})", "prompt"},
      {R"({"prompt":[]})", "prompt"},
      {R"({"prompt":[[]]})", "prompt"},
      {R"({"prompt":[[1,-1]]})", "prompt"},
      {R"({"prompt":[1,99999]})", "prompt"},
      {R"({"prompt":[1,"a"]})", "prompt"},
      {R"({"prompt":[true]})", "prompt"},
      {R"({"prompt":"a","max_tokens":0})", "max_tokens"},
      {R"({"prompt":"a","suffix":"b"})", "suffix"},
      {R"({"prompt":"a","best_of":4})", "best_of"},
      {R"({"prompt":"a","echo":true,"logprobs":1,"stream":true})", "echo"},
  };
  for (const auto& c : cases) {
    const Reply reply = server.post("/v1/completions", c.body);
    EXPECT_EQ(reply.status, 400) << c.body << reply.body;
    EXPECT_EQ(reply.error_param(), c.param) << c.body << reply.body;
  }
}

TEST(ApiEmbeddings, AreOfLengthOneInBothForms) {
  TestServer server(ModelChoice::kRandomPlain);
  const Json floats = server.post("/v1/embeddings", R"({"input":["one text","another, longer text"]})").json();
  const Json base64 =
      server.post("/v1/embeddings", R"({"input":["one text","another, longer text"],"encoding_format":"base64"})")
          .json();
  const std::size_t size = static_cast<std::size_t>(server.package.model.config.hidden_size);
  for (std::size_t i = 0; i < 2; ++i) {
    const Json::Array& values = floats.find("data")->array()[i].find("embedding")->array();
    ASSERT_EQ(values.size(), size);
    double sum = 0;
    for (const Json& v : values) sum += v.number() * v.number();
    EXPECT_NEAR(sum, 1, 1e-5);
    std::string bytes;
    ASSERT_TRUE(base64_decode(base64.find("data")->array()[i].find("embedding")->string(), bytes));
    ASSERT_EQ(bytes.size(), size * sizeof(float));
    for (std::size_t k = 0; k < size; ++k) {
      float value;
      std::memcpy(&value, bytes.data() + k * sizeof(float), sizeof value);
      EXPECT_NEAR(static_cast<double>(value), values[k].number(), 1e-6);
    }
  }
  const Json few = server.post("/v1/embeddings", R"({"input":"one text","dimensions":8})").json();
  EXPECT_EQ(few.find("data")->array()[0].find("embedding")->array().size(), 8u);
  const std::vector<std::int32_t> ids = server.package.tokenizer.encode("one text");
  const Json by_ids = server.post("/v1/embeddings", fmt::format(R"({{"input":{}}})", ids_text(ids))).json();
  EXPECT_EQ(*by_ids.find("data")->array()[0].find("embedding"), *floats.find("data")->array()[0].find("embedding"));
  EXPECT_EQ(server.post("/v1/embeddings", R"({"input":""})").status, 400);
  EXPECT_EQ(server.post("/v1/embeddings", R"({"input":[]})").status, 400);
  EXPECT_EQ(server.post("/v1/embeddings", R"({"input":"a","dimensions":100000})").error_param(), "dimensions");
}

}  // namespace
}  // namespace gov::test
