// JSON schemas as grammars: what is accepted, byte by byte, and what is refused, by name.

#include <gtest/gtest.h>

#include <chrono>

#include "base/utf8.h"
#include "tests/text/grammar_test_support.h"
#include "tests/text/text_test_data.h"

namespace gov {
namespace {

using namespace text_test;

std::string refusal(const std::string& schema, const GrammarLimits& limits = {}) {
  return error_of(ErrorCode::kInvalidArgument, [&] { (void)Grammar::json_schema(Json::parse(schema), limits); });
}

TEST(GrammarSchema, AcceptsValidDocumentsAndNoOthers) {
  std::size_t documents = 0;
  EXPECT_GE(schema_cases().size(), 150u);
  for (const SchemaCase& c : schema_cases()) {
    SCOPED_TRACE(c.text.substr(0, 300));
    const auto grammar = Grammar::json_schema(c.schema);
    for (const std::string& text : c.valid) {
      bool complete = false;
      EXPECT_EQ(accepted_prefix(*grammar, text, complete), text.size()) << text;
      EXPECT_TRUE(complete) << text;
      EXPECT_EQ(schema_error(c.schema, Json::parse(text)), std::nullopt) << text;
      ++documents;
    }
    for (const std::string& text : c.invalid) EXPECT_FALSE(accepts(*grammar, text)) << text;
  }
  EXPECT_GE(documents, 300u);
}

TEST(GrammarSchema, RefusesByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"j({"type":"object","properties":{"a":{"not":{}}}})j", "/properties/a/not: not supported"},
      {R"j({"if":{},"then":{}})j", "/if: not supported"},
      {R"j({"dependentRequired":{}})j", "/dependentRequired: not supported"},
      {R"j({"type":"array","contains":{}})j", "/contains: not supported"},
      {R"j({"type":"array","uniqueItems":true})j", "/uniqueItems: not supported"},
      {R"j({"type":"string","minlength":3})j", "/minlength: not supported"},
      {R"j({"$dynamicRef":"#a"})j", "/$dynamicRef: not supported"},
      {R"j({"$ref":"http://example.com/x"})j", "only references within the schema"},
      {R"j({"$ref":"#/$defs/missing"})j", "no schema at #/$defs/missing"},
      {R"j({"$ref":"#"})j", "leads back to itself"},
      {R"j({"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"})j", "leads back to itself"},
      {R"j({"anyOf":[{"$ref":"#"},{"type":"string"}]})j", "leads back to itself"},
      {R"j({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"],"additionalProperties":false})j",
       "no finite document"},
      {R"j({"type":"strin"})j", "no type \"strin\""},
      {R"j({"type":3})j", "/type: has to be a string"},
      {R"j({"enum":[]})j", "/enum: has to be a list"},
      {R"j({"minLength":-1})j", "/minLength: has to be a whole number"},
      {R"j({"minimum":"1"})j", "/minimum: has to be a number"},
      {R"j({"type":"number","exclusiveMinimum":true})j", "draft 4"},
      {R"j({"multipleOf":0})j", "above 0"},
      {R"j({"properties":{"a":3}})j", "/properties/a: a schema has to be"},
      {R"j({"type":"string","pattern":"(?=a)"})j", "/pattern: look-around"},
      {R"j({"type":"string","pattern":"(a)\\1"})j", "/pattern: back references"},
      {R"j({"type":"string","pattern":"a\\b"})j", "word boundaries"},
      {R"j({"type":"string","pattern":"("})j", "a ( without )"},
      {R"j({"type":"string","pattern":"[b-a]"})j", "out of order"},
      {R"j({"type":"string","pattern":"(?i)a"})j", "not supported"},
      {R"j({"type":"string","pattern":"\\p{Greek}"})j", "\\p{Greek} is not supported"},
      {R"j({"type":"string","format":"iri"})j", "the format \"iri\" is not supported"},
      {R"j({"oneOf":[{"type":"integer"},{"type":"number"}]})j", "/oneOf: branches 0 and 1"},
      {R"j({"oneOf":[{"type":"object","properties":{"a":{}}},{"type":"object","properties":{"b":{}}}]})j",
       "/oneOf: branches"},
      // Without `type`, each takes the values that the other's keywords are about.
      {R"j({"oneOf":[{"minLength":2},{"minimum":5}]})j", "/oneOf: branches 0 and 1"},
      {R"j({"oneOf":[{"properties":{"a":{"type":"string"}},"required":["a"]},{"minLength":3}]})j", "/oneOf: branches"},
      {R"j({"anyOf":[{"minLength":1},{"minimum":1}],"oneOf":[{"required":["a"],"maxProperties":1},{"minProperties":2}]})j",
       "/oneOf: branches"},
      // They exclude each other where `t` is required, and not elsewhere.
      {R"j({"$defs":{"u":{"oneOf":[{"required":["t"],"properties":{"t":{"const":1}}},{"properties":{"t":{"const":2}}}]}},
            "type":"object","properties":{"x":{"allOf":[{"$ref":"#/$defs/u"},{"type":"object","required":["t"]}]},
                                          "y":{"allOf":[{"$ref":"#/$defs/u"},{"type":"object"}]}}})j",
       "/$defs/u/oneOf: branches"},
      // What is unevaluated follows from the branches and proves nothing about them.
      {R"j({"type":"object","oneOf":[{"required":["all"],"unevaluatedProperties":true},{"required":["a"],"properties":{"a":{}}}],
            "unevaluatedProperties":false})j",
       "/oneOf: branches"},
      {R"j({"enum":[{"a":1}],"unevaluatedProperties":false})j", "together with keywords"},
      {R"j({"unevaluatedItems":{"type":"string"}})j", "only true and false"},
      {R"j({"patternProperties":{"a":{},"b":{}}})j", "another pattern matches too"},
      {R"j({"type":"object","propertyNames":{"format":"hostname"}})j", "/propertyNames: needs an automaton"},
      {R"j({"unevaluatedProperties":{"type":"string"}})j", "only true and false"},
      {R"j({"type":"integer","minimum":5,"maximum":4})j", "no finite document"},
      {R"j({"type":"string","minLength":5,"maxLength":4})j", "no finite document"},
      {R"j({"type":"string","pattern":"^a$","minLength":2})j", "no finite document"},
      {R"j({"enum":["a"],"type":"integer"})j", "no finite document"},
      {R"j({"allOf":[{"type":"string"},{"type":"integer"}]})j", "no finite document"},
      {R"j(false)j", "no finite document"},
      {R"j([])j", "a schema has to be an object or a boolean"},
      {R"j({"type":"number","exclusiveMaximum":0.12345678901234567})j", "more than 15 digits"},
      {R"j({"type":"integer","maximum":90071992547409930})j", "larger than 2^53"},
  };
  for (const auto& [schema, words] : cases) {
    const std::string message = refusal(schema);
    EXPECT_TRUE(message.starts_with("schema: ")) << message;
    EXPECT_NE(message.find(words), std::string::npos) << schema << " -> " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

TEST(GrammarSchema, AnchorsAreOfSchemas) {
  const auto grammar = Grammar::json_schema(Json::parse(
      R"j({"$defs":{"a":{"enum":[{"$anchor":"x","type":"null"}]},"enum":{"$anchor":"x","type":"string"}},"$ref":"#x"})j"));
  EXPECT_TRUE(accepts(*grammar, R"j("text")j"));
  EXPECT_FALSE(accepts(*grammar, "null"));
}

TEST(GrammarSchema, LongestAddressIsKeptInNames) {
  const auto grammar = Grammar::json_schema(Json::parse(R"j({"type":"object","propertyNames":{"format":"email"}})j"));
  const auto object = [](std::size_t length) { return "{\"" + std::string(length - 5, 'a') + "@b.cd\":1}"; };
  EXPECT_TRUE(accepts(*grammar, object(254)));
  EXPECT_FALSE(accepts(*grammar, object(255)));
}

TEST(GrammarSchema, LargeMultiplesDoNotWrap) {
  // The smallest whole multiple is 903447737754001; times 10^9 it wraps around 2^64, as if it were 2.
  EXPECT_NE(refusal(R"j({"type":"integer","multipleOf":903447.737754001})j").find("more than 10000 states"),
            std::string::npos);
  EXPECT_NE(
      refusal(R"j({"allOf":[{"multipleOf":99999999999973},{"multipleOf":999999999989}]})j").find("too many digits"),
      std::string::npos);
}

// One automaton of a format serves all values of an enumeration.
TEST(GrammarSchema, FormatsOfManyLiterals) {
  std::string values;
  for (int i = 0; i < 1000; ++i) values += fmt::format("{}\"2001:db8::{:x}\"", i == 0 ? "" : ",", i);
  EXPECT_NO_THROW((void)Grammar::json_schema(Json::parse("{\"enum\":[" + values + "],\"format\":\"ipv6\"}")));
}

TEST(GrammarSchema, LimitsAreKept) {
  const auto nested = [](int levels) {
    std::string text = "{\"type\":\"string\"}";
    for (int i = 0; i < levels; ++i)
      text = "{\"type\":\"object\",\"properties\":{\"a\":" + text + "},\"required\":[\"a\"]}";
    return text;
  };
  EXPECT_NO_THROW((void)Grammar::json_schema(Json::parse(nested(10))));
  EXPECT_NE(refusal(nested(11)).find("nested deeper than 10 levels"), std::string::npos);
  std::string properties, values;
  for (int i = 0; i < 5001; ++i) properties += fmt::format("{}\"p{}\":{{}}", i == 0 ? "" : ",", i);
  EXPECT_NE(refusal("{\"properties\":{" + properties + "}}").find("more than 5000 properties"), std::string::npos);
  for (int i = 0; i < 1001; ++i) values += fmt::format("{}{}", i == 0 ? "" : ",", i);
  EXPECT_NE(refusal("{\"enum\":[" + values + "]}").find("more than 1000 enum values"), std::string::npos);
  EXPECT_NE(refusal(R"j({"type":"string","pattern":"^(a|b)*a(a|b){20}$"})j").find("more than 10000 states"),
            std::string::npos);
  // A state or two, but each character is a set and a class of its own: their table is looked at before it is made.
  std::string characters;
  for (char32_t c = 0; c < 4000; ++c) {
    if (c > 0) characters += '|';
    utf8_append(characters, 0x4E00 + c);
  }
  GrammarLimits small;
  small.bytes = 1 << 20;
  small.seconds = 60;
  EXPECT_NE(
      refusal(R"j({"type":"string","pattern":")j" + characters + "\"}", small).find("takes more than 1048576 bytes"),
      std::string::npos);
}

}  // namespace
}  // namespace gov
