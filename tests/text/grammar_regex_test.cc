// Regular expressions as grammars, against std::regex, and the cost of hostile ones.

#include <gtest/gtest.h>

#include "base/timer.h"
#include "tests/text/grammar_test_support.h"
#include "tests/text/std_regex.h"
#include "tests/text/text_test_data.h"

namespace gov {
namespace {

using namespace text_test;

// A random expression over the letters a, b, c in the syntax that both read alike.
std::string random_pattern(Random& random, int depth) {
  static constexpr const char* kAtoms[] = {"a", "b", "c", "[ab]", "[^a]", ".", "\\w", "[a-c]"};
  std::string out;
  const std::uint32_t parts = 1 + random.below(3);
  for (std::uint32_t i = 0; i < parts; ++i) {
    std::string part =
        depth > 0 && random.below(3) == 0 ? "(" + random_pattern(random, depth - 1) + ")" : kAtoms[random.below(8)];
    static constexpr const char* kRepeats[] = {"", "", "", "*", "+", "?", "{2}", "{1,3}", "{2,}", "*?"};
    out += part + kRepeats[random.below(10)];
  }
  if (random.below(4) == 0) out += "|" + random_pattern(random, 0);
  return out;
}

TEST(GrammarRegex, AgreesWithAnotherEngine) {
  Random random(3);
  int matches = 0, refused = 0;
  for (int i = 0; i < 400; ++i) {
    const std::string pattern = random_pattern(random, 1);
    std::shared_ptr<const Grammar> whole, anywhere;
    const std::string anchors[] = {pattern, "^" + pattern, pattern + "$", "^(" + pattern + ")$"};
    const std::string& searched = anchors[random.below(4)];
    try {
      whole = Grammar::regex(pattern);
      anywhere = Grammar::json_schema(Json(Json::Object{{"type", Json("string")}, {"pattern", Json(searched)}}));
    } catch (const Error& e) {
      EXPECT_NE(std::string_view(e.what()).find("states"), std::string::npos) << pattern << " " << e.what();
      ++refused;
      continue;
    }
    for (int j = 0; j < 12; ++j) {
      std::string text;
      for (std::uint32_t n = random.below(7); n > 0; --n) text += "abcd"[random.below(4)];
      const bool match = std_regex_match(text, pattern);
      matches += match;
      ASSERT_EQ(accepts(*whole, text), match) << pattern << " " << text;
      ASSERT_EQ(accepts(*anywhere, "\"" + text + "\""), std_regex_search(text, searched)) << searched << " " << text;
    }
  }
  EXPECT_GT(matches, 300);
  EXPECT_LT(refused, 12);
}

TEST(GrammarRegex, WholeTexts) {
  const auto grammar = Grammar::regex("(yes|no)( \\u{1F600}){0,2}");
  EXPECT_TRUE(accepts(*grammar, "yes"));
  EXPECT_TRUE(accepts(*grammar, "no \xF0\x9F\x98\x80 \xF0\x9F\x98\x80"));
  EXPECT_FALSE(accepts(*grammar, "yes "));
  EXPECT_FALSE(accepts(*grammar, "xyes"));
  EXPECT_TRUE(accepts(*Grammar::regex("a*"), ""));
  EXPECT_TRUE(accepts(*Grammar::regex(""), ""));
  EXPECT_NE(error_of(ErrorCode::kInvalidArgument, [] { (void)Grammar::regex("a^"); }).find("no text matches"),
            std::string::npos);
  EXPECT_NE(error_of(ErrorCode::kInvalidArgument, [] { (void)Grammar::regex("\xFF"); }).find("not UTF-8"),
            std::string::npos);
}

// Each compiles, or is refused in one line, within the limit on time (500 ms) and some for the machine.
TEST(GrammarRegex, BombsAreRefusedCheaply) {
  std::vector<std::string> patterns = {"(a|b)*a(a|b){30}",
                                       "((a{0,100}){0,100}){0,100}",
                                       "(a{1,1000}){1,1000}",
                                       "a{100000}",
                                       "(x+x+)+y",
                                       "(.*){100}.{5000}x",
                                       std::string(60, '(') + "a" + std::string(60, ')'),
                                       "(a?){5000}a{5000}",
                                       ".*a.{14}.*b.{14}",
                                       "[^]",
                                       "(\\p{L}{1,50}){1,50}",
                                       "((((a|b)*c)*d)*e){50}",
                                       std::string(65'000, 'a'),
                                       "(" + std::string(20'000, '|') + ")",
                                       "\\w{9000}",
                                       "(a*)*(b*)*(c*)*$x{9999}"};
  for (const std::string& pattern : patterns) {
    for (const bool json : {false, true}) {
      const Timer timer;
      std::string said;
      try {
        if (json) (void)Grammar::json_schema(Json(Json::Object{{"type", Json("string")}, {"pattern", Json(pattern)}}));
        else (void)Grammar::regex(pattern);
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
        said = e.what();
        EXPECT_EQ(said.find('\n'), std::string::npos);
      }
      EXPECT_LT(timer.seconds(), 3.0) << pattern.substr(0, 60) << " " << said;
    }
  }
}

}  // namespace
}  // namespace gov
