#include "base/json.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace gov {
namespace {

std::string error_of(std::string_view text, const JsonLimits& limits = {}) {
  try {
    Json::parse(text, limits);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "";
}

TEST(Json, KeepsOrderKindsAndNumbers) {
  const Json value = Json::parse(R"({"b": [1, 1.0, -2e3, true, null, "\u00e9\n"], "a": {"": 9007199254740993}})");
  EXPECT_EQ(value.dump(), R"({"b":[1,1.0,-2000.0,true,null,"é\n"],"a":{"":9007199254740993}})");
  EXPECT_TRUE(value.find("b")->array()[0].is_integer());
  EXPECT_FALSE(value.find("b")->array()[1].is_integer());
  EXPECT_EQ(value.find("a")->find("")->integer(), 9007199254740993);
  EXPECT_EQ(value.find("c"), nullptr);
  EXPECT_EQ(value.find("b")->find("a"), nullptr);
  EXPECT_EQ(Json::parse(value.dump()), value);
}

TEST(Json, LargeIntegersBecomeDoubles) {
  EXPECT_EQ(Json::parse("18446744073709551615").number(), 18446744073709551615.0);
  EXPECT_EQ(Json::parse("-9223372036854775808").integer(), INT64_MIN);
}

TEST(Json, SetReplacesOrAppends) {
  Json value;
  value.set("x", 1).set("y", "two");
  value.set("x", Json::Array{Json(true)});
  EXPECT_EQ(value.dump(), R"({"x":[true],"y":"two"})");
}

TEST(Json, RefusesInOneLine) {
  for (const std::string_view bad :
       {"", "{", "[1,]", "{\"a\":1,}", "01", "\"\xff\"", "nul", "1 2", "{'a':1}", "\"\n\"", "1e999", "\"\\ud800\""})
    EXPECT_NE(error_of(bad), "") << bad;
  EXPECT_EQ(error_of(R"({"a":1,"b":2,"a":3})"), "JSON: \"a\" twice in one object");
  EXPECT_EQ(error_of(R"({"a":1,"\u0061":3})"), "JSON: \"a\" twice in one object");
  std::string many = "{";
  for (int i = 0; i < 40; ++i) many += fmt::format("\"k{}\":{},", i, i);
  EXPECT_EQ(error_of(many + "\"k3\":0}"), "JSON: \"k3\" twice in one object");
  EXPECT_EQ(error_of(many + "\"k39\":0}"), "JSON: \"k39\" twice in one object");
  EXPECT_EQ(error_of(many + "\"z\":0}"), "");
}

TEST(Json, RefusesWhatIsTooDeepOrTooMuch) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(error_of(nested(64)), "");
  EXPECT_EQ(error_of(nested(65)), "JSON: nested deeper than 64 levels");
  EXPECT_NE(error_of(std::string(1'000'000, '[')), "");
  EXPECT_EQ(error_of("[1,2,3]", {.depth = 4, .values = 4}), "");
  EXPECT_EQ(error_of("[1,2,3]", {.depth = 4, .values = 3}), "JSON: more than 3 values");
}

}  // namespace
}  // namespace gov
