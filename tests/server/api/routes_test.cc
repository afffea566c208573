// The small routes: tokens, models, state, and the OpenAPI document.

#include <gtest/gtest.h>

#include "server/params.h"
#include "tests/server/api/test_server.h"

namespace gov::test {
namespace {

TEST(ApiRoutes, TokensGoThereAndBack) {
  TestServer server(ModelChoice::kRandomPlain);
  const Json tokens = server.post("/tokenize", R"({"prompt":"Grüße <|return|> x","add_special_tokens":false})").json();
  const Json& ids = *tokens.find("tokens");
  EXPECT_EQ(tokens.find("count")->integer(), static_cast<std::int64_t>(ids.array().size()));
  EXPECT_EQ(std::count(ids.array().begin(), ids.array().end(),
                       Json(std::int64_t{*server.package.tokenizer.find_special("<|return|>")})),
            1);
  const Json text = server.post("/detokenize", R"({"tokens":)" + ids.dump() + "}").json();
  EXPECT_EQ(text.find("prompt")->string(), "Grüße <|return|> x");
  EXPECT_EQ(*text.find("content"), *text.find("prompt"));
  EXPECT_EQ(server.post("/detokenize", R"({"tokens":)" + ids.dump() + R"(,"skip_special_tokens":true})")
                .json()
                .find("prompt")
                ->string(),
            "Grüße  x");
  EXPECT_EQ(server.post("/detokenize", R"({"tokens":[-1]})").error_param(), "tokens");
  EXPECT_EQ(server.post("/detokenize", R"({"tokens":[99999]})").error_param(), "tokens");
  EXPECT_EQ(server.post("/tokenize", R"({})").error_param(), "prompt");
  const Json info = server.get("/tokenizer_info").json();
  EXPECT_EQ(info.find("eos_token")->string(), "<|return|>");
  EXPECT_EQ(info.find("bos_token")->string(), "<|startoftext|>");
  EXPECT_EQ(info.find("pad_token")->string(), "<|endoftext|>");
  EXPECT_TRUE(info.find("chat_template")->is_string());
}

TEST(ApiRoutes, ModelsAreListedAndNamed) {
  TestServer server(ModelChoice::kRandomPlain);
  const Json list = server.get("/v1/models").json();
  EXPECT_EQ(list.find("data")->array().at(0).find("id")->string(), "test-model");
  EXPECT_EQ(server.get("/v1/models/test-model").json(), list.find("data")->array().at(0));
  EXPECT_EQ(server.get("/v1/models/other").status, 404);

  server::ApiOptions strict;
  strict.any_model = false;
  TestServer named(ModelChoice::kRandomPlain, TestServer::small_engine(), {}, strict);
  const char* ask = R"({{"model":"{}","messages":[{{"role":"user","content":"x"}}],"max_tokens":1}})";
  EXPECT_EQ(named.post("/v1/chat/completions", fmt::format(fmt::runtime(ask), "test-model")).status, 200);
  const Reply other = named.post("/v1/chat/completions", fmt::format(fmt::runtime(ask), "other"));
  EXPECT_EQ(other.status, 404);
  EXPECT_EQ(other.json().find("error")->find("code")->string(), "model_not_found");
}

TEST(ApiRoutes, StateCountsWhatWasDone) {
  TestServer server(ModelChoice::kNano);
  const std::string picture = R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":")" +
                              picture_url("crab.jpg") +
                              R"("}},{"type":"text","text":"What is this?"}]}],"max_tokens":4})";
  ASSERT_EQ(server.post("/v1/chat/completions", picture).status, 200);
  server.wait_until_idle();
  const Json state = server.get("/state").json();
  EXPECT_TRUE(state.find("ready")->boolean());
  EXPECT_EQ(state.find("requests")->find("succeeded")->integer(), 1);
  const Config& config = server.package.model.config;
  EXPECT_EQ(state.find("tokens")->find("image_total")->integer(), config.vision.tokens());
  const Json& experts = *state.find("experts");
  const auto sum = [&](const char* kind, std::size_t layer) {
    std::int64_t total = 0;
    for (const Json& count : experts.find(kind)->array().at(layer).array()) total += count.integer();
    return total;
  };
  ASSERT_EQ(experts.find("image")->array().size(), static_cast<std::size_t>(config.num_hidden_layers));
  for (std::size_t layer = 0; layer < static_cast<std::size_t>(config.num_hidden_layers); ++layer) {
    EXPECT_EQ(sum("image", layer), config.vision.tokens() * config.num_experts_per_tok);
    EXPECT_GT(sum("text", layer), 0);
  }
  EXPECT_EQ(server.get("/slots").json(), Json(Json::Array{}));
  const Json props = server.get("/props").json();
  EXPECT_EQ(props.find("chat_format")->string(), "plain");
  EXPECT_TRUE(props.find("modalities")->find("vision")->boolean());
  const std::string metrics = server.api.metrics();
  EXPECT_NE(metrics.find("gov_api_requests_total{end=\"succeeded\"} 1\n"), std::string::npos) << metrics;
  EXPECT_NE(metrics.find("modality=\"image\""), std::string::npos);
}

// docs/api.md promises these members; the web page reads them.
TEST(ApiRoutes, StateHasEveryMemberOfItsDocument) {
  TestServer server(ModelChoice::kRandomPlain);
  const std::string document = read_file(GOV_SOURCE_DIR "/docs/api.md");
  const std::size_t begin = document.find("```json\n", document.find("## Live state")) + 8;
  const Json example = Json::parse(document.substr(begin, document.find("```", begin) - begin));
  const Json state = server.get("/state").json();
  const std::function<void(const Json&, const Json&, const std::string&)> compare =
      [&](const Json& want, const Json& have, const std::string& where) {
        for (const auto& [name, value] : want.object()) {
          const Json* found = have.find(name);
          ASSERT_NE(found, nullptr) << where << name;
          if (value.is_object()) compare(value, *found, where + name + ".");
          else EXPECT_EQ(value.is_number(), found->is_number()) << where << name;
        }
      };
  compare(example, state, "");
}

TEST(ApiRoutes, SlotsShowWhatRuns) {
  TestServer server(ModelChoice::kRandomPlain);
  const auto call = server.start("POST", "/v1/completions", R"({"prompt":"a","max_tokens":1900,"ignore_eos":true})");
  server.wait_until_running();
  const Json slots = server.get("/slots").json();
  ASSERT_EQ(slots.array().size(), 1u);
  EXPECT_TRUE(slots.array()[0].find("is_processing")->boolean());
  call->cancel();
  server.wait_until_idle();
}

TEST(ApiRoutes, TheOpenApiDocumentHasAllRoutesAndParameters) {
  TestServer server(ModelChoice::kRandomPlain);
  const Json document = server.get("/openapi.json").json();
  EXPECT_TRUE(document.find("openapi")->string().starts_with("3.1"));
  const Json& paths = *document.find("paths");
  for (const server::ParamTable& table : server::param_tables()) {
    const Json* path = paths.find(table.path);
    ASSERT_NE(path, nullptr) << table.path;
    const Json* properties = path->find("post")
                                 ->find("requestBody")
                                 ->find("content")
                                 ->find("application/json")
                                 ->find("schema")
                                 ->find("properties");
    for (const server::Param& p : table.params)
      EXPECT_NE(properties->find(p.name), nullptr) << table.path << " " << p.name;
  }
  for (const server::Route& route : server.router.routes()) {
    if (route.pattern != "/openapi.json") {
      EXPECT_NE(paths.find(route.pattern), nullptr) << route.pattern;
    }
  }
}

}  // namespace
}  // namespace gov::test
