// Every parameter of every route, from the table itself: values inside and outside its range, every wrong type, every
// choice, what is refused. The answer is 200, or 400 that names the parameter.

#include "server/params.h"

#include <gtest/gtest.h>

#include <map>

#include "server/api_error.h"
#include "server/openapi.h"
#include "tests/server/api/test_server.h"

namespace gov::test {
namespace {

using namespace server;

// The smallest valid body of each route.
const std::map<std::string_view, std::string_view>& base_bodies() {
  static const std::map<std::string_view, std::string_view> bodies = {
      {"chat", R"({"messages":[{"role":"user","content":"hi"}],"max_completion_tokens":1})"},
      {"apply_template", R"({"messages":[{"role":"user","content":"hi"}]})"},
      {"responses", R"({"input":"hi","max_output_tokens":1})"},
      {"input_tokens", R"({"input":"hi"})"},
      {"completions", R"({"prompt":"hi","max_tokens":1})"},
      {"embeddings", R"({"input":"hi"})"},
      {"messages", R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":1})"},
      {"count_tokens", R"({"messages":[{"role":"user","content":"hi"}]})"},
      {"tokenize", R"({"prompt":"hi"})"},
      {"detokenize", R"({"tokens":[1]})"},
  };
  return bodies;
}

Json value_of_kind(unsigned kind) {
  switch (kind) {
    case kBool: return true;
    case kInt: return 1;
    case kNumber: return 0.5;
    case kString: return "x";
    case kArray: return Json(Json::Array{});
    default: return Json(Json::Object{});
  }
}

bool takes(const Param& param, unsigned kind) {
  if (kind == kInt) return (param.kinds & (kInt | kNumber)) != 0;
  return (param.kinds & kind) != 0;
}

struct Case {
  std::string_view table, path, param;
  std::string body;
  bool ok;
};

void add_range_cases(const Param& p, const std::function<void(Json, bool)>& add) {
  const bool integer = (p.kinds & kInt) != 0;
  const auto number = [&](double x) { return integer ? Json(static_cast<std::int64_t>(x)) : Json(x); };
  const double step = integer ? 1 : 0.001;
  if (p.kinds & (kInt | kNumber)) {
    constexpr double kLarge = 1e6;  // larger ones run until the context is full: tried elsewhere
    if (p.min == p.min) {
      add(number(p.min), true);
      add(number(p.min - step), false);
    }
    if (p.max == p.max) {
      if (p.max < kLarge) add(number(p.max), true);
      add(number(p.max + (integer ? 1 : 0.001)), false);
      add(Json(1e300), false);
      add(Json(std::int64_t{-1} << 62), p.min != p.min);
    }
  } else if (p.kinds == kString && p.max == p.max) {
    if (p.name != "previous_response_id")
      add(Json(std::string(static_cast<std::size_t>(p.max), 'a')), true);  // there is none
    add(Json(std::string(static_cast<std::size_t>(p.max) + 1, 'a')), false);
  } else if (p.kinds == kArray && p.max == p.max) {
    add(Json(Json::Array(static_cast<std::size_t>(p.max) + 1, Json("x"))), false);
  }
}

std::vector<Case> make_cases() {
  std::vector<Case> cases;
  for (const ParamTable& table : param_tables()) {
    const Json base = Json::parse(base_bodies().at(table.id));
    for (const Param& p : table.params) {
      const auto add = [&](const Json& value, bool ok) {
        Json body = base;
        body.set(p.name, value);
        cases.push_back({table.id, table.path, p.name, body.dump(), ok});
      };
      const bool one_of_two = table.id == "tokenize" && (p.name == "prompt" || p.name == "content");
      if (!p.required && !one_of_two) add(Json(), true);  // null: not given
      if (p.use == Use::kRefused) {
        add("something", false);
        add(7, false);
        add(true, false);
        if (!p.fallback.empty()) add(Json::parse(p.fallback), true);
        add(false, true);
        continue;
      }
      for (const unsigned kind : {kBool, kInt, kNumber, kString, kArray, kObject}) {
        if (!takes(p, kind)) add(value_of_kind(kind), false);
      }
      if (p.use == Use::kNoted) add(value_of_kind(p.kinds), true);
      add_range_cases(p, add);
      if (!p.choices.empty()) {
        std::string word;
        for (const char c : std::string(p.choices) + "|") {
          if (c != '|') {
            word += c;
            continue;
          }
          add(word, true);
          add(word + "x", false);
          word.clear();
        }
        add("", false);
      }
      if (!p.fallback.empty() && !p.required) add(Json::parse(p.fallback), true);
    }
  }
  return cases;
}

// Parameters that need another one beside them.
std::string completed(const Case& c) {
  Json body = Json::parse(c.body);
  const auto is = [&](std::string_view name) { return c.ok && c.param == name; };
  if (is("top_logprobs") && c.table == "chat") body.set("logprobs", true);
  if (is("top_logprobs") && c.table == "apply_template") body.set("logprobs", true);
  if (is("content")) body.set("prompt", Json());
  if (is("dimensions")) body.set("dimensions", 1);
  if (is("background") && body.find("background") && *body.find("background") == Json(true)) body.set("store", true);
  if (is("max_tokens") && c.table == "completions" && *body.find("max_tokens") == Json(0)) body.set("echo", true);
  return body.dump();
}

TEST(ApiParameters, EachValueIsTakenOrRefusedByName) {
  TestServer server(ModelChoice::kRandomPlain);
  const std::vector<Case> cases = make_cases();
  EXPECT_GT(cases.size(), 1400u);
  std::size_t taken = 0;
  for (const Case& c : cases) {
    const std::string body = completed(c);
    const Reply reply = server.post(std::string(c.path), body);
    if (c.ok) {
      EXPECT_EQ(reply.status, 200) << c.path << " " << body.substr(0, 300) << "\n" << reply.body;
      ++taken;
      continue;
    }
    ASSERT_EQ(reply.status, 400) << c.path << " " << body.substr(0, 300) << "\n" << reply.body.substr(0, 300);
    const Json answer = reply.json();
    ASSERT_NE(answer.find("error"), nullptr) << reply.body;
    const std::string& message = answer.find("error")->find("message")->string();
    EXPECT_NE(message.find(c.param), std::string::npos) << c.path << " " << body.substr(0, 300) << "\n" << message;
    if (c.path.find("/messages") == std::string_view::npos) {
      EXPECT_TRUE(reply.error_param().starts_with(c.param)) << c.path << " " << body.substr(0, 300) << "\n"
                                                            << reply.body;
    }
  }
  EXPECT_GT(taken, 300u);
  RecordProperty("cases", static_cast<int>(cases.size()));
}

TEST(ApiParameters, UnknownOnesAreIgnored) {
  TestServer server(ModelChoice::kRandomPlain);
  for (const ParamTable& table : param_tables()) {
    Json body = Json::parse(base_bodies().at(table.id));
    body.set("no_such_parameter", "x").set("another", Json(Json::Array{1, 2}));
    const Reply reply = server.post(std::string(table.path), body.dump());
    EXPECT_EQ(reply.status, 200) << table.path << reply.body;
  }
}

TEST(ApiParameters, BodiesThatAreNoObjectsAreRefused) {
  TestServer server(ModelChoice::kRandomPlain);
  for (const ParamTable& table : param_tables()) {
    for (const char* body :
         {"", "[]", "1", "\"x\"", "{", "{\"a\":1}x", "null", "{\"model\":\"a\",\"model\":\"b\"}", "\xff\xfe"}) {
      EXPECT_EQ(server.post(std::string(table.path), body).status, 400) << table.path << " " << body;
    }
    EXPECT_EQ(server.post(std::string(table.path), std::string(1'000'000, '[')).status, 400) << table.path;
  }
}

TEST(ApiParameters, RequiredOnesAreMissedByName) {
  TestServer server(ModelChoice::kRandomPlain);
  for (const ParamTable& table : param_tables()) {
    for (const Param& p : table.params) {
      if (!p.required) continue;
      const Json base = Json::parse(base_bodies().at(table.id));
      Json body = Json(Json::Object{});
      for (const auto& [name, value] : base.object()) {
        if (name != p.name) body.set(name, value);
      }
      const Reply reply = server.post(std::string(table.path), body.dump());
      EXPECT_EQ(reply.status, 400);
      EXPECT_NE(reply.body.find(p.name), std::string::npos) << reply.body;
    }
  }
}

TEST(ApiParameters, NoNameIsTwiceInATable) {
  for (const ParamTable& table : param_tables()) {
    std::map<std::string_view, int> seen;
    for (const Param& p : table.params) EXPECT_EQ(seen[p.name]++, 0) << table.id << " " << p.name;
  }
}

TEST(ApiParameters, TheDocumentShowsTheTables) {
  const std::string document = read_file(GOV_SOURCE_DIR "/docs/api.md");
  EXPECT_NE(document.find(parameter_markdown()), std::string::npos) << "docs/api.md is to hold this:\n"
                                                                    << parameter_markdown();
}

}  // namespace
}  // namespace gov::test
