#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

#include "base/philox.h"

namespace gov {
namespace {

// Where the text must end, by the definition: the first complete stop string, the longest of those that end there.
struct Expected {
  std::string text;
  std::string match;
};
Expected by_definition(const std::string& text, const std::vector<std::string>& stops) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::string found;
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop) && stop.size() > found.size()) found = stop;
    }
    if (!found.empty()) return {text.substr(0, end - found.size()), found};
  }
  return {text, ""};
}

TEST(StopMatcher, HoldsBackOnlyWhatCouldBecomeAStop) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.append("abE"), "ab");
  EXPECT_EQ(matcher.append("N"), "");
  EXPECT_EQ(matcher.append("X"), "ENX");
  EXPECT_EQ(matcher.append("EEN"), "E");
  EXPECT_EQ(matcher.append("D and more"), "");
  ASSERT_TRUE(matcher.match().has_value());
  EXPECT_EQ(*matcher.match(), "END");
  EXPECT_EQ(matcher.append("later"), "");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, FlushGivesBackAFalseAlarm) {
  StopMatcher matcher({"###"});
  EXPECT_EQ(matcher.append("a##"), "a");
  EXPECT_EQ(matcher.flush(), "##");
  EXPECT_FALSE(matcher.match().has_value());
}

TEST(StopMatcher, FirstCompleteWinsThenTheLongest) {
  StopMatcher first({"bcd", "c"});
  EXPECT_EQ(first.append("abcd"), "ab");
  EXPECT_EQ(*first.match(), "c");
  StopMatcher longest({"c", "bc"});
  EXPECT_EQ(longest.append("abcd"), "a");
  EXPECT_EQ(*longest.match(), "bc");
}

TEST(StopMatcher, ResultDoesNotDependOnThePieces) {
  const Philox random{11};
  std::uint64_t counter = 0;
  const auto below = [&](std::uint32_t n) { return random(counter++)[0] % n; };
  const auto word = [&](std::uint32_t most) {
    std::string text;
    for (std::uint32_t length = 1 + below(most); text.size() < length;) text += static_cast<char>('a' + below(3));
    return text;
  };
  int matched = 0;
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stops;
    for (std::uint32_t i = 1 + below(4); i > 0; --i) stops.push_back(word(5));
    const std::string text = word(24);
    const Expected expected = by_definition(text, stops);
    StopMatcher matcher(stops);
    std::string got;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t length = 1 + below(4);
      got += matcher.append(text.substr(at, length));
      ASSERT_TRUE(expected.text.starts_with(got)) << text;
      at += length;
    }
    got += matcher.flush();
    ASSERT_EQ(got, expected.text) << text;
    ASSERT_EQ(matcher.match().value_or(""), expected.match) << text;
    matched += !expected.match.empty();
  }
  EXPECT_GT(matched, 1000);
  EXPECT_LT(matched, 4900);
}

}  // namespace
}  // namespace gov
