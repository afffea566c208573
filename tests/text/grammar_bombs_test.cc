// Schemas made to be expensive: each is refused, or compiles and is followed for some tokens, in bounded time and
// memory.

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <time.h>

#include "base/utf8.h"
#include "tests/text/grammar_test_support.h"
#include "tests/text/text_test_data.h"

namespace gov {
namespace {

using namespace text_test;

double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// `part` with i for {}, `count` times, joined by commas.
std::string many(int count, const std::function<std::string(int)>& part) {
  std::string out;
  for (int i = 0; i < count; ++i) out += (i == 0 ? "" : ",") + part(i);
  return out;
}
std::string ref(int i) { return fmt::format(R"j({{"$ref":"#/$defs/d{}"}})j", i); }
std::string chain(int levels, const std::function<std::string(int)>& definition, const std::string& last) {
  return R"j({"$defs":{)j" + many(levels, [&](int i) { return fmt::format("\"d{}\":{}", i, definition(i)); }) +
         fmt::format(",\"d{}\":{}", levels, last) + R"j(},"$ref":"#/$defs/d0"})j";
}
std::string text_pattern(const std::string& pattern, const std::string& more = "") {
  return R"j({"type":"string","pattern":")j" + pattern + "\"" + more + "}";
}

long peak_mebibytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;
}

std::vector<std::string> bombs() {
  const std::string s = R"j({"type":"string"})j",
                    object = R"j({"type":"object","properties":{"a":{},"b":{}},"required":["a"]})j";
  std::vector<std::string> out;
  for (const char* keyword : {"allOf", "anyOf", "oneOf"}) {
    const auto twice = [&](int i) { return fmt::format("{{\"{}\":[{},{}]}}", keyword, ref(i + 1), ref(i + 1)); };
    for (const int levels : {10, 40, 1000}) out.push_back(chain(levels, twice, s));
    out.push_back(fmt::format("{{\"{}\":[{}]}}", keyword, many(3000, [&](int i) {
                                return fmt::format(
                                    R"j({{"type":"object","properties":{{"k{}":{{"const":{}}}}},"required":["k{}"]}})j",
                                    i % 50, i % 20, i % 50);
                              })));
    out.push_back("{\"allOf\":[" +
                  many(20,
                       [&](int i) {
                         return fmt::format("{{\"{}\":[{}]}}", keyword, many(10, [&](int j) {
                                              return fmt::format("{{\"minLength\":{}}}", i * 10 + j);
                                            }));
                       }) +
                  "],\"type\":\"string\"}");
    std::string nested = object;
    for (int i = 0; i < 12; ++i)
      nested = fmt::format("{{\"{}\":[{},{{\"type\":\"array\",\"items\":{}}}]}}", keyword, object, nested);
    out.push_back(nested);
  }
  const auto tree = [](int i) {
    return fmt::format(R"j({{"type":"object","properties":{{"a":{},"b":{},"c":{}}},"required":["a","b","c"]}})j",
                       ref(i + 1), ref(i + 1), ref(i + 1));
  };
  for (const int levels : {9, 30}) out.push_back(chain(levels, tree, s));
  out.push_back(chain(
      5000, [](int i) { return ref(i + 1); }, s));
  out.push_back(chain(
      5000, [](int i) { return ref((i + 1) % 5000); }, s));
  out.push_back(chain(
      300,
      [](int i) {
        return fmt::format(R"j({{"type":"array","items":{{"anyOf":[{},{}]}}}})j", ref(i + 1), ref((i * 7) % 300));
      },
      s));
  out.push_back(
      R"j({"anyOf":[{"type":"array","items":{"$ref":"#"},"maxItems":5},{"type":"array","items":{"$ref":"#"},"maxItems":6},
                     {"type":"array","items":{"$ref":"#"},"maxItems":7},{"type":"null"}]})j");
  out.push_back(
      R"j({"type":"object","additionalProperties":{"anyOf":[{"$ref":"#"},{"type":"object","additionalProperties":{"$ref":"#"}}]}})j");
  for (const int n : {4999, 5001, 100'000}) {
    out.push_back("{\"type\":\"object\",\"properties\":{" +
                  many(n, [](int i) { return fmt::format("\"property_{}\":{{}}", i); }) + "}}");
  }
  out.push_back("{\"type\":\"object\",\"properties\":{" +
                many(300, [](int i) { return "\"" + std::string(3000, 'x') + std::to_string(i) + "\":{}"; }) + "}}");
  out.push_back("{\"type\":\"object\",\"required\":[" + many(4000, [](int i) { return fmt::format("\"r{}\"", i); }) +
                "]}");
  out.push_back("{\"enum\":[" +
                many(1000, [](int i) { return "\"" + std::string(1000, 'y') + std::to_string(i) + "\""; }) + "]}");
  out.push_back("{\"allOf\":[" +
                many(200, [](int) { return "{\"enum\":[" + many(5, [](int i) { return std::to_string(i); }) + "]}"; }) +
                "]}");
  for (const char* array :
       {R"j({"minItems":1000000})j", R"j({"minItems":1000000,"maxItems":1000000,"items":{"type":"null"}})j",
        R"j({"minItems":10000000})j", R"j({"type":"array","minItems":1e300})j"}) {
    out.push_back(array);
  }
  for (const char* pattern :
       {"(a|b)*a(a|b){30}", "((a{0,99}){0,99}){0,99}", "(x+x+)+y", "(.*){50}.{5000}x", ".*a.{14}.*b.{14}",
        "(a?){5000}a{5000}", "\\\\w{9000}", "(\\\\p{L}{1,50}){1,50}", "^.{99999}$", "(a|aa|aaa|aaaa)*b{1,99999}"}) {
    out.push_back(text_pattern(pattern));
  }
  out.push_back(text_pattern("^(ab|cde)*$", R"j(,"minLength":99999,"maxLength":100001)j"));
  out.push_back(text_pattern("^(ab)*$", R"j(,"minLength":900001,"maxLength":900001)j"));
  out.push_back("{\"allOf\":[" +
                many(30,
                     [](int i) {
                       return fmt::format(R"j({{"pattern":"^(a|b)*{}(a|b){{{}}}"}})j", i % 2 == 0 ? "a" : "b", i % 7);
                     }) +
                R"j(],"type":"string"})j");
  out.push_back("{\"type\":\"object\",\"patternProperties\":{" +
                many(200, [](int i) { return fmt::format("\"^k{}_.*x.{{9}}$\":{{}}", i); }) + "}}");
  out.push_back(R"j({"type":"object","propertyNames":{"minLength":9000,"maxLength":9001}})j");
  // A long path to many subschemas, and an anchor behind them.
  out.push_back(R"j({"$ref":"#x","$defs":{")j" + std::string(20'000, 'd') + R"j(":{"allOf":[)j" +
                many(100'000, [](int) { return "{}"; }) + R"j(]},"x":{"$anchor":"x"}}})j");
  // Thousands of characters, each a set of its own, and thousands of large sets.
  std::string characters;
  for (char32_t c = 0; c < 20'000; ++c) utf8_append(characters, 0x4E00 + c);
  out.push_back(text_pattern(characters));
  std::string sets;
  for (char32_t c = 0; c < 5'000; ++c) {
    sets += "[^";
    utf8_append(sets, 0x4E00 + c);
    sets += "]";
  }
  out.push_back(text_pattern(sets));
  for (const char* number :
       {R"j({"type":"integer","multipleOf":999999999989})j",
        R"j({"type":"integer","multipleOf":9973,"minimum":123456789,"maximum":987654321987})j",
        R"j({"type":"number","minimum":1e-300,"maximum":1e300})j", R"j({"type":"number","multipleOf":1e-300})j",
        R"j({"type":"number","multipleOf":0.000001,"minimum":0.0000015})j"}) {
    out.push_back(number);
  }
  // Many readings of one text at once, and objects whose names are told apart late.
  for (const int n : {60, 200, 900}) {
    out.push_back("{\"anyOf\":[" +
                  many(n,
                       [](int i) {
                         return fmt::format(
                             R"j({{"type":"array","items":{{"type":"array","items":{{}}}},"minItems":{}}})j", i % 40);
                       }) +
                  "]}");
    out.push_back("{\"anyOf\":[" +
                  many(n,
                       [](int i) {
                         return fmt::format(
                             R"j({{"type":"object","properties":{{"{}":{{}}}},"additionalProperties":{{}}}})j",
                             std::string(static_cast<std::size_t>(i), 'n'));
                       }) +
                  "]}");
  }
  return out;
}

TEST(GrammarBombs, AreCheap) {
  const HarmonyTokens control = *HarmonyTokens::find(nano());
  std::size_t count = 0, refused = 0;
  for (const std::string& text : bombs()) {
    SCOPED_TRACE(text.substr(0, 200));
    ++count;
    const Json schema = Json::parse(text);
    const double start = thread_seconds();
    const long peak = peak_mebibytes();
    std::shared_ptr<const Grammar> grammar;
    try {
      grammar = Grammar::json_schema(schema);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      EXPECT_EQ(std::string_view(e.what()).find('\n'), std::string_view::npos);
      ++refused;
    }
    // The limit is 500 ms on the clock; sanitizers take their time.
    EXPECT_LT(thread_seconds() - start, 2.0);
    EXPECT_LT(peak_mebibytes() - peak, 500);
    if (grammar == nullptr) continue;
    OutputRules rules;
    rules.in_header = false;
    rules.final_format = grammar;
    Random random(count);
    TokenConstraint constraint(nano(), control, std::span(&control.return_token, 1), std::move(rules));
    for (int step = 0; step < 40 && !constraint.ended(); ++step) {
      const auto allowed = allowed_tokens(constraint, 4096);
      ASSERT_FALSE(allowed.empty());
      // Brackets where they may stand, so that ambiguous structures are entered.
      std::int32_t token = allowed[random.below(static_cast<std::uint32_t>(allowed.size()))];
      for (const std::int32_t open : {*nano().find_token("["), *nano().find_token("{")}) {
        if (step < 12 && std::find(allowed.begin(), allowed.end(), open) != allowed.end()) token = open;
      }
      constraint.accept(token);
    }
    EXPECT_LT(thread_seconds() - start, 6.0);
  }
  EXPECT_GE(count, 60u);
  EXPECT_GE(refused, 15u);
}

}  // namespace
}  // namespace gov
