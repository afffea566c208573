#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "tests/text/harmony_test_data.h"

namespace gov {
namespace {

using namespace harmony_test;
using text_test::nano;
using text_test::o200k;
using Repair = HarmonyRepair;

const std::vector<std::string> kTools{"functions.get_weather", "functions.web-browsing", "browser.search", "python"};

Parse parse_text(std::string_view text, bool with_tools = true) {
  return parse(o200k(), ids_of_text(o200k(), text), {.tools = with_tools ? kTools : std::vector<std::string>{}});
}

struct Case {
  const char* text;
  const char* messages;
};

void check_all(std::initializer_list<Case> cases, bool is_repaired) {
  for (const Case& c : cases) {
    const Parse p = parse_text(c.text);
    EXPECT_EQ(summary(p), c.messages) << c.text;
    EXPECT_TRUE(p.is_well_formed) << c.text;
    EXPECT_EQ(p.repairs == HarmonyRepairs{}, !is_repaired) << c.text;
    // Nano has the same tokens under other ids.
    const Parse small = parse(nano(), ids_of_text(nano(), c.text), {.tools = kTools});
    EXPECT_EQ(summary(small), c.messages) << c.text;
  }
}

TEST(HarmonyParser, ReadsWhatIsRight) {
  check_all({{"<|channel|>final<|message|>Hello<|return|>", "assistant final |Hello|"},
             {"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>",
              "assistant analysis |Hm.| assistant final |4|"},
             {"<|channel|>commentary<|message|>Let me look.<|end|><|start|>assistant<|channel|>commentary "
              "to=functions.get_weather <|constrain|>json<|message|>{\"a\":1}<|call|>",
              "assistant commentary |Let me look.| assistant>functions.get_weather commentary json |{\"a\":1}|"},
             {"<|channel|>final<|message|><|return|>", "assistant final ||"},
             {"<|channel|>final <|constrain|>json<|message|>{}<|return|>", "assistant final json |{}|"},
             {"<|channel|>final<|message|>Hello", "assistant final |Hello|"}},
            false);
}

TEST(HarmonyParser, ReadsCallsInEveryForm) {
  for (const char* header :
       {"<|channel|>commentary to=functions.get_weather <|constrain|>json",
        "<|channel|>commentary to=functions.get_weather<|constrain|>json",
        "<|channel|>commentary to=functions.get_weather json", " to=functions.get_weather<|channel|>commentary json",
        " to=functions.get_weather<|channel|>commentary <|constrain|>json",
        " to=functions.get_weather<|channel|>commentary<|constrain|>json",
        "<|channel|>commentary <|constrain|>json to=functions.get_weather"}) {
    const Parse p = parse_text(std::string(header) + "<|message|>{}<|call|>");
    EXPECT_EQ(summary(p), "assistant>functions.get_weather commentary json |{}|") << header;
    EXPECT_EQ(p.repairs, HarmonyRepairs{}) << header;
    EXPECT_TRUE(p.messages[0].is_call());
    EXPECT_EQ(p.ends[0], 200012);
  }
  // On analysis, with another type or none.
  EXPECT_EQ(summary(parse_text("<|channel|>analysis to=browser.search code<|message|>{}<|call|>")),
            "assistant>browser.search analysis code |{}|");
  EXPECT_EQ(summary(parse_text("<|channel|>analysis to=python<|message|>print(1)<|call|>")),
            "assistant>python analysis |print(1)|");
  EXPECT_EQ(summary(parse_text("<|channel|>analysis to=python twentyfour_letters_of_it<|message|>1<|call|>")),
            "assistant>python analysis twentyfour_letters_of_it |1|");
}

// The rows of seen malformed output; the reports are named in the project's notes on harmony.
TEST(HarmonyParser, DropsWordsThatBelongNowhere) {
  check_all({{"<|channel|>commentary to=functions.web-browsing foo bar<|message|>{}<|call|>",
              "assistant>functions.web-browsing commentary foo |{}|"},
             {"<|channel|>commentary to=functions.get_weather a_word_too_long_for_a_type<|message|>{}<|call|>",
              "assistant>functions.get_weather commentary |{}|"},
             {"<|channel|>\u2013\u2013commentary to=functions.get_weather<|message|>{}<|call|>",
              "assistant>functions.get_weather commentary |{}|"},
             {"<|channel|>final <|constrain|>response<|message|>Hi<|return|>", "assistant final |Hi|"},
             {"<|channel|>commentary to=functions.get_weather to=python<|message|>{}<|call|>",
              "assistant>functions.get_weather commentary |{}|"},
             {"<|channel|>commentary to= functions.get_weather, json<|message|>{}<|call|>",
              "assistant>functions.get_weather commentary json |{}|"},
             {"<|channel|>final to=user<|message|>Hi<|return|>", "assistant final |Hi|"},
             {"<|start|>assistant<|channel|>final<|message|>Hi<|return|>", "assistant final |Hi|"},
             {"assistant<|channel|>final<|message|>Hi<|return|>", "assistant final |Hi|"}},
            true);
}

TEST(HarmonyParser, OpensHeadersWithoutStart) {
  const std::string first = "<|channel|>analysis<|message|>a<|end|>";
  const auto after = [&](const std::string& text) { return summary(parse_text(first + text)); };
  const std::string head = "assistant analysis |a| ";
  EXPECT_EQ(after("commentary to=functions.get_weather <|constrain|>json<|message|>{}<|call|>"),
            head + "assistant>functions.get_weather commentary json |{}|");
  EXPECT_EQ(after("commentary<|message|>x<|end|>"), head + "assistant commentary |x|");
  EXPECT_EQ(after("final<|message|>x<|return|>"), head + "assistant final |x|");
  EXPECT_EQ(after("assistant<|channel|>final<|message|>x<|return|>"), head + "assistant final |x|");
  EXPECT_EQ(after("<|channel|>final<|message|>x<|return|>"), head + "assistant final |x|");
  EXPECT_EQ(after("\n<|start|>assistant<|channel|>final<|message|>x<|return|>"), head + "assistant final |x|");
  // Other text is analysis, also when it begins like a channel.
  EXPECT_EQ(after(". So it is.<|end|>"), head + "assistant analysis |. So it is.|");
  EXPECT_EQ(after("finally done<|end|>"), head + "assistant analysis |finally done|");
  EXPECT_EQ(after("comment<|end|>"), head + "assistant analysis |comment|");
  EXPECT_EQ(after("and<|start|>assistant<|channel|>final<|message|>x<|return|>"),
            head + "assistant analysis |and| assistant final |x|");
  EXPECT_EQ(after("<|message|>x<|return|>"), head + "assistant analysis |x|");
  // The ids of the reports: 12606 is "comment", 13 is ".".
  Ids ids = ids_of_text(o200k(), first);
  ids.insert(ids.end(), {12606, 815, 200008, 87, 200007, 13});
  const Parse p = parse(o200k(), ids);
  EXPECT_EQ(summary(p), head + "assistant commentary |x| assistant analysis |.|");
  EXPECT_EQ(p.count(Repair::kMissingStart), 2);
}

TEST(HarmonyParser, IgnoresEndsWhereAMessageShouldStart) {
  const Parse p = parse_text(
      "<|channel|>final<|message|>a<|return|><|end|><|return|><|call|><|start|>assistant"
      "<|channel|>final<|message|>b<|return|>");
  EXPECT_EQ(summary(p), "assistant final |a| assistant final |b|");
  EXPECT_EQ(p.count(Repair::kStrayEnd), 3);
}

TEST(HarmonyParser, FindsTheChannel) {
  check_all(
      {{"<|channel|>bash<|channel|>commentary to=functions.get_weather<|message|>{}<|call|>",
        "assistant>functions.get_weather commentary |{}|"},
       {"<|channel|>commentary<|channel|>final<|message|>x<|return|>", "assistant final |x|"},
       {"<|channel|>?"
        "?<|message|>x<|end|>",
        "assistant analysis |x|"},
       {"<|channel|>commentary?<|message|>x<|end|>", "assistant commentary |x|"},
       {"<|channel|>finalfinal<|message|>x<|return|>", "assistant final |x|"},
       {"<|channel|>I will think about it<|message|>x<|end|>", "assistant analysis |x|"},
       {"<|channel|><|message|>x<|end|>", "assistant analysis |x|"},
       {"<|channel|>commentaryto=functions.get_weather<|message|>{}<|call|>",
        "assistant>functions.get_weather commentary |{}|"},
       {"<|channel|>to=functions.get_weather<|message|>{}<|call|>", "assistant>functions.get_weather commentary |{}|"},
       {" to=functions.get_weather<|message|>{}<|call|>", "assistant>functions.get_weather commentary |{}|"},
       {"<|message|>x<|return|>", "assistant final |x|"},
       {"commentary<|message|>x<|end|>", "assistant commentary |x|"}},
      true);
  EXPECT_GT(parse_text("<|channel|>bash<|channel|>final<|message|>x<|end|>").count(Repair::kBadChannel), 0);
}

TEST(HarmonyParser, PutsNamesRight) {
  // The text of a control token inside a name, encoded as text.
  Ids ids = ids_of_text(o200k(), "<|channel|>commentary to=functions.get_weather");
  for (const std::int32_t id : o200k().encode("<|channel|>commentary")) ids.push_back(id);
  for (const std::int32_t id : ids_of_text(o200k(), " json<|message|>{}<|call|>")) ids.push_back(id);
  const Parse p = parse(o200k(), ids, {.tools = kTools});
  EXPECT_EQ(summary(p), "assistant>functions.get_weather commentary json |{}|");
  EXPECT_EQ(p.count(Repair::kControlInName), 1);
  // As tokens it is the other order of the header, and right.
  EXPECT_EQ(summary(parse_text(" to=functions.get_weather<|channel|>commentary<|message|>{}<|call|>")),
            "assistant>functions.get_weather commentary |{}|");

  const Parse constrain = parse_text("<|channel|>commentary to=<|constrain|>json<|message|>{}<|call|>");
  EXPECT_EQ(summary(constrain), "assistant commentary json |{}|");
  EXPECT_GE(constrain.count(Repair::kConstrainAsRecipient), 1);
  EXPECT_EQ(
      parse_text("<|channel|>commentary <|constrain|>json<|message|>{}<|call|>").count(Repair::kConstrainAsRecipient),
      1);

  const Parse bare = parse_text("<|channel|>commentary to=get_weather <|constrain|>json<|message|>{}<|call|>");
  EXPECT_EQ(summary(bare), "assistant>functions.get_weather commentary json |{}|");
  EXPECT_EQ(bare.count(Repair::kMissingNamespace), 1);
  const Parse unknown = parse_text("<|channel|>commentary to=functions.nothing<|message|>{}<|call|>");
  EXPECT_EQ(summary(unknown), "assistant>functions.nothing? commentary |{}|");
  EXPECT_EQ(unknown.count(Repair::kUnknownTool), 1);
  EXPECT_EQ(summary(parse_text("<|channel|>commentary functions.get_weather<|message|>{}<|call|>")),
            "assistant>functions.get_weather commentary |{}|");
}

TEST(HarmonyParser, TakesContentWithoutItsToken) {
  check_all({{"<|channel|>analysis We need to think.<|end|>", "assistant analysis |We need to think.|"},
             {"<|channel|>analysisWe need to think.<|end|>", "assistant analysis |We need to think.|"},
             {"We are here.<|end|>", "assistant final |We are here.|"},
             {"<|channel|>final<|end|>", "assistant final ||"},
             {"<|channel|>commentary to=functions.get_weather <|constrain|>json{\"a\": [1, 2]}<|call|>",
              "assistant>functions.get_weather commentary json |{\"a\": [1, 2]}|"},
             {"<|channel|>commentary to=functions.get_weather{\"a\":1}<|call|>",
              "assistant>functions.get_weather commentary |{\"a\":1}|"},
             {"<|channel|>final<|message|>x<|end|><|start|>assistant<|end|>", "assistant final |x|"}},
            true);
  // 64 tokens are no header any more; what comes next is content too, also from the middle of a character on.
  std::string words;
  for (int i = 0; i < 100; ++i) words += " word";
  const Parse p = parse_text("<|channel|>analysis" + words + "<|message|>!<|end|>");
  EXPECT_EQ(summary(p), "assistant analysis |" + words.substr(1) + "!|");
  EXPECT_EQ(p.count(Repair::kMissingMessageToken), 1);
  // The long name of a tool is no endless header.
  const std::string name = "functions." + std::string(60, 'Q') + "_1_2";
  const Ids call = ids_of_text(nano(), "<|channel|>commentary to=" + name + " <|constrain|>json<|message|>{}<|call|>");
  EXPECT_GT(call.size(), 70u);
  EXPECT_EQ(summary(parse(nano(), call, {.tools = {name}})), "assistant>" + name + " commentary json |{}|");
  Ids split = ids_of_text(o200k(), "<|channel|>analysis<|constrain|>");
  while (split.size() < 63) split.push_back(o200k().encode(" x")[0]);
  for (const char byte : std::string_view("\xC3\xA9")) split.push_back(*o200k().find_token({&byte, 1}));
  EXPECT_TRUE(summary(parse(o200k(), split)).ends_with("x x\u00e9|"));
}

TEST(HarmonyParser, DropsAHeaderThatDoesNotEnd) {
  const Parse p = parse_text("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>fin");
  EXPECT_EQ(summary(p), "assistant analysis |a|");
  EXPECT_EQ(p.count(Repair::kUnfinishedHeader), 1);
  EXPECT_EQ(parse_text("").repairs, HarmonyRepairs{});
}

TEST(HarmonyParser, EndsAMessageWhereTheNextBegins) {
  const Parse p = parse_text("<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>b<|return|>");
  EXPECT_EQ(summary(p), "assistant analysis |a| assistant final |b|");
  EXPECT_EQ(p.ends[0], -1);
  EXPECT_EQ(p.count(Repair::kMissingEnd), 1);
  EXPECT_EQ(summary(parse_text("<|channel|>analysis<|message|>a<|channel|>final<|message|>b<|return|>")),
            "assistant analysis |a| assistant final |b|");
  // Control tokens without a meaning are no text.
  EXPECT_EQ(summary(parse_text("<|channel|>final<|message|>a<|message|>b<|constrain|>c<|endoftext|><|return|>")),
            "assistant final |abc|");
}

TEST(HarmonyParser, RolesOfOthers) {
  EXPECT_EQ(summary(parse_text("<|channel|>final<|message|>a<|end|><|start|>functions.f to=assistant<|channel|>"
                               "commentary<|message|>b<|end|><|start|>user:bob<|message|>c<|end|>")),
            "assistant final |a| tool:functions.f>assistant commentary |b| user:bob |c|");
  EXPECT_EQ(summary(parse_text("<|channel|>final<|message|>a<|end|><|start|>assistantcommentary<|message|>b<|end|>"
                               "<|start|><|channel|>final<|message|>c<|end|>")),
            "assistant final |a| assistant commentary |b| assistant final |c|");
}

TEST(HarmonyParser, LiteralControlTextIsContent) {
  Ids ids = ids_of_text(o200k(), "<|channel|>final<|message|>");
  for (const std::int32_t id : o200k().encode("a <|end|> b")) ids.push_back(id);
  EXPECT_EQ(summary(parse(o200k(), ids)), "assistant final |a <|end|> b|");
}

TEST(HarmonyParser, PlainModels) {
  const Parse p = parse(nano(), ids_of_text(nano(), "A dog<|end|>"), {.in_header = false});
  EXPECT_EQ(summary(p), "assistant final |A dog|");
  EXPECT_TRUE(p.is_well_formed);
  EXPECT_TRUE(p.messages[0].generated.empty());
  EXPECT_EQ(summary(parse(nano(), {}, {.in_header = false})), "assistant final ||");
  // A tokenizer without any of the tokens.
  const Tokenizer& small = text_test::small();
  EXPECT_FALSE(HarmonyTokens::find(small).has_value());
  EXPECT_EQ(summary(parse(small, small.encode("hello <|end|>"), {.in_header = false})),
            "assistant final |hello <|end|>|");
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k)
      group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? kDigits[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

// Every character of 2 to 4 bytes that the sample has, cut at every place into two tokens.
TEST(HarmonyParser, CharactersCutByTokens) {
  std::vector<std::string> characters;
  for (char32_t c = 0x80; c < 0x110000; c += c < 0x800 ? 1 : c < 0x10000 ? 29 : 1501) {
    if (c >= 0xD800 && c < 0xE000) continue;
    characters.emplace_back();
    utf8_append(characters.back(), c);
  }
  std::set<std::string> parts;
  for (int b = 0; b < 256; ++b) parts.insert(std::string(1, static_cast<char>(b)));
  for (const std::string& c : characters) {
    for (std::size_t at = 1; at < c.size(); ++at) parts.insert({c.substr(0, at), c.substr(at)});
  }
  std::string ranks;
  int rank = 0;
  for (std::size_t length = 1; length <= 3; ++length) {  // bytes first: the id of one is its value
    for (const std::string& part : parts) {
      if (part.size() == length) ranks += fmt::format("{} {}\n", base64(part), rank++);
    }
  }
  const Tokenizer tokenizer = Tokenizer::from_tiktoken(ranks);
  int cuts = 0;
  for (const std::string& c : characters) {
    for (std::size_t at = 1; at < c.size(); ++at, ++cuts) {
      const std::int32_t first = *tokenizer.find_token(c.substr(0, at)), second = *tokenizer.find_token(c.substr(at));
      const Parse p = parse(tokenizer, {'a', first, second, 'b'}, {.in_header = false});
      ASSERT_EQ(p.deltas, (std::vector<std::string>{"a", c, "b"}));
      ASSERT_TRUE(p.is_well_formed);
      // Half a character: replaced as soon as the next token shows it, or at the end.
      ASSERT_EQ(parse(tokenizer, {first, 'b'}, {.in_header = false}).deltas, (std::vector<std::string>{"\uFFFDb"}));
      ASSERT_EQ(parse(tokenizer, {first}, {.in_header = false}).deltas, (std::vector<std::string>{"\uFFFD"}));
    }
  }
  EXPECT_GT(cuts, 8000);
}

// ---- random tokens -------------------------------------------------------------------------------------------------

bool is_known_channel(const std::string& channel) {
  return channel == "analysis" || channel == "commentary" || channel == "final";
}

TEST(HarmonyParser, RandomTokensGiveWellFormedEvents) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr int kSequences = 30'000;
#else
  constexpr int kSequences = 1'000'000;
#endif
  const Tokenizer& t = nano();
  const HarmonyTokens tokens = *HarmonyTokens::find(t);
  Ids likely{tokens.start,
             tokens.end,
             tokens.message,
             tokens.channel,
             tokens.constrain,
             tokens.return_token,
             tokens.call,
             tokens.start,
             tokens.message,
             tokens.channel,
             -1,
             1 << 20};
  for (const char* word :
       {"assistant", "analysis", "commentary", "final", " to=", "functions.f", "json", " ", "user", "<|", "\u00e9"}) {
    for (const std::int32_t id : t.encode(word)) likely.push_back(id);
  }
  const std::vector<std::string> tools{"functions.f", "python"};
  std::mt19937_64 random(1);
  std::int64_t messages = 0, repairs = 0;
  std::vector<HarmonyEvent> events;
  for (int i = 0; i < kSequences; ++i) {
    HarmonyParser parser(t, tokens, {.in_header = i % 8 != 0, .tools = tools});
    events.clear();
    std::uint64_t bits = random();
    for (std::size_t length = 1 + bits % 12; length > 0; --length) {
      bits = random();
      const bool is_likely = bits % 4 != 0;
      parser.append(is_likely ? likely[(bits >> 8) % likely.size()] : static_cast<std::int32_t>((bits >> 8) % 4100),
                    events);
    }
    parser.finish(events);
    Parse p;
    for (const HarmonyEvent& event : events) p.add(event);
    ASSERT_TRUE(p.is_well_formed && !p.is_open) << i << summary(p);
    for (const HarmonyMessage& m : p.messages) {
      ASSERT_TRUE(m.role != HarmonyRole::kAssistant || is_known_channel(m.channel)) << i << summary(p);
      // What was parsed can be rendered: no name holds anything that a header could not.
      if (i % 64 == 0) render_harmony(t, tokens, {&m, 1});
    }
    messages += static_cast<std::int64_t>(p.messages.size());
    for (const std::int32_t n : parser.repairs()) repairs += n;
  }
  EXPECT_GT(messages, kSequences / 2);
  EXPECT_GT(repairs, kSequences);
}

}  // namespace
}  // namespace gov
