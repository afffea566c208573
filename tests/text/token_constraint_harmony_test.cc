// Token constraints in harmony: headers, tools, tool_choice, the limit on reasoning, and what is forced.

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/text/grammar_test_support.h"
#include "tests/text/text_test_data.h"

namespace gov {
namespace {

using namespace text_test;
using Ids = std::vector<std::int32_t>;
using ToolChoice = OutputRules::ToolChoice;

Json schema_of_place() {
  return Json::parse(R"j({"type":"object","properties":{"place":{"type":"string"}},"required":["place"],
                          "additionalProperties":false})j");
}

OutputRules with_tools(ToolChoice choice) {
  OutputRules rules;
  rules.tools = {{"functions.get_weather", Grammar::json_schema(schema_of_place())},
                 {"functions.get_time", Grammar::json_object()},
                 {"python", nullptr}};
  rules.tool_choice = choice;
  return rules;
}

class HarmonyConstraint : public ::testing::TestWithParam<bool> {
 protected:
  const Tokenizer& tokenizer() const { return GetParam() ? o200k() : nano(); }
  HarmonyTokens control() const { return *HarmonyTokens::find(tokenizer()); }
  TokenConstraint make(OutputRules rules) const {
    const Ids ends{control().return_token, control().call, *tokenizer().find_special("<|endoftext|>")};
    return TokenConstraint(tokenizer(), control(), ends, std::move(rules));
  }

  // "<|channel|>analysis<|message|>...": control tokens by their names, texts as the tokenizer encodes them.
  Ids ids(std::string_view text) const { return tokenizer().encode(text, SpecialTokens::kAllow); }
  bool takes(const TokenConstraint& constraint, std::int32_t token) const {
    const Ids allowed = allowed_tokens(constraint, tokenizer().vocab_size());
    return std::find(allowed.begin(), allowed.end(), token) != allowed.end();
  }
  // How many of these tokens are taken, each looked up in the mask.
  std::size_t taken(TokenConstraint& constraint, std::string_view text) const {
    std::size_t count = 0;
    for (const std::int32_t id : ids(text)) {
      if (!takes(constraint, id)) return count;
      constraint.accept(id);
      ++count;
    }
    return count;
  }
  void expect_taken(const OutputRules& rules, std::string_view text, bool ended) const {
    TokenConstraint constraint = make(rules);
    EXPECT_EQ(taken(constraint, text), ids(text).size()) << text;
    EXPECT_EQ(constraint.ended(), ended) << text;
  }
  void expect_refused(const OutputRules& rules, std::string_view text) const {
    TokenConstraint constraint = make(rules);
    EXPECT_LT(taken(constraint, text), ids(text).size()) << text;
  }
};

TEST_P(HarmonyConstraint, BothOrdersAndAllFormsOfAHeader) {
  const OutputRules rules = with_tools(ToolChoice::kAuto);
  for (const char* header : {"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>",
                             "<|channel|>commentary to=functions.get_weather<|constrain|>json<|message|>",
                             "<|channel|>commentary to=functions.get_weather json<|message|>",
                             "<|channel|>commentary to=functions.get_weather<|message|>",
                             " to=functions.get_weather<|channel|>commentary <|constrain|>json<|message|>",
                             " to=functions.get_weather<|channel|>commentary json<|message|>",
                             " to=functions.get_weather<|channel|>commentary<|message|>"}) {
    expect_taken(rules, std::string(header) + R"({"place":"Oslo"}<|call|>)", true);
    expect_refused(rules, std::string(header) + R"({"town")");
    expect_refused(rules, std::string(header) + R"({"place":"Oslo"}<|end|>)");
    expect_refused(rules, std::string(header) + R"({"place":"Oslo"<|call|>)");
  }
  expect_taken(rules, "<|channel|>analysis to=python code<|message|>print(1)\n<|call|>", true);
  expect_taken(rules, "<|channel|>commentary to=python<|message|>{<|call|>", true);
  expect_taken(rules, "<|channel|>commentary to=functions.get_time<|message|>{\"any\": [1]}<|call|>", true);
  expect_taken(
      rules, "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hi<|return|>", true);
  expect_taken(rules, "<|channel|>final<|message|>Hi<|endoftext|>", true);
  expect_taken(rules,
               "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary<|message|>I look<|end|>"
               "<|start|>assistant to=functions.get_time<|channel|>commentary<|message|>{}<|call|>",
               true);
  for (const char* bad :
       {"commentary", "<|message|>", "<|channel|>bash<|message|>", "<|start|>",
        "<|channel|>commentary to=functions.get<|message|>", "<|channel|>commentary to=functions.nothing",
        "<|channel|>analysis<|message|>a<|call|>", "<|channel|>analysis<|message|>a<|return|>",
        "<|channel|>analysis<|message|>a<|start|>", "<|channel|>final<|message|>a<|call|>",
        "<|channel|>final<|message|>a<|end|>", "<|channel|>analysis<|message|>a<|end|><|channel|>",
        "<|channel|>analysis<|message|>a<|end|><|start|>user",
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>",
        "<|channel|>commentary to=python <|constrain|>json<|message|>",
        "<|channel|>analysis to=functions.get_time<|message|>"}) {
    expect_refused(rules, bad);
  }
}

TEST_P(HarmonyConstraint, ToolChoice) {
  const std::string call = "<|channel|>commentary to=functions.get_time<|message|>{}<|call|>";
  expect_taken(with_tools(ToolChoice::kAuto), call, true);
  expect_refused(with_tools(ToolChoice::kNone), call);
  expect_refused(with_tools(ToolChoice::kNone), "<|channel|>commentary<|message|>");
  expect_taken(with_tools(ToolChoice::kNone), "<|channel|>final<|message|>a<|return|>", true);
  expect_taken(with_tools(ToolChoice::kRequired), call, true);
  expect_refused(with_tools(ToolChoice::kRequired), "<|channel|>final<|message|>");
  const std::string thought = "<|channel|>analysis<|message|>a<|end|><|start|>assistant";
  expect_refused(with_tools(ToolChoice::kRequired), thought + "<|channel|>final<|message|>");
  expect_taken(with_tools(ToolChoice::kRequired), thought + call, true);
  const std::string preamble = thought + "<|channel|>commentary<|message|>b<|end|><|start|>assistant";
  expect_taken(with_tools(ToolChoice::kRequired), preamble + call, true);
  expect_refused(with_tools(ToolChoice::kRequired), preamble + "<|channel|>commentary<|message|>");

  OutputRules named = with_tools(ToolChoice::kRequired);
  named.tools.resize(1);
  expect_refused(named, call);
  OutputRules direct = with_tools(ToolChoice::kAuto);
  direct.analysis = false;
  expect_refused(direct, "<|channel|>analysis<|message|>");
  expect_taken(direct, "<|channel|>final<|message|>a<|return|>", true);
}

TEST_P(HarmonyConstraint, FormatOfTheFinalMessage) {
  OutputRules rules;
  rules.final_format = Grammar::json_schema(schema_of_place());
  const std::string thought = "<|channel|>analysis<|message|>not JSON {<|end|><|start|>assistant";
  for (const char* header : {"<|channel|>final<|message|>", "<|channel|>final <|constrain|>json<|message|>",
                             "<|channel|>final json<|message|>"}) {
    expect_taken(rules, thought + header + R"({"place": "é"}<|return|>)", true);
    expect_refused(rules, thought + header + "The place");
    expect_refused(rules, thought + header + R"({"place": "é"}.)");
    expect_refused(rules, thought + header + R"({"place": "é"<|return|>)");
  }
}

TEST_P(HarmonyConstraint, WhatIsForced) {
  TokenConstraint constraint = make(OutputRules{});
  EXPECT_EQ(constraint.forced(), ids("<|channel|>"));
  EXPECT_EQ(taken(constraint, "<|channel|>analysis<|message|>x"), ids("<|channel|>analysis<|message|>x").size());
  EXPECT_TRUE(constraint.forced().empty());
  constraint.accept(control().end);
  // Only one analysis may follow directly, so the answer is certain.
  EXPECT_EQ(constraint.forced(), ids("<|start|>assistant<|channel|>final<|message|>"));

  OutputRules rules = with_tools(ToolChoice::kRequired);
  rules.tools.resize(1);
  TokenConstraint done = make(rules);
  const std::string call =
      "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"place\":\"a\"}";
  EXPECT_EQ(taken(done, call), ids(call).size());
  EXPECT_EQ(done.forced(), Ids{control().call});
  done.accept(control().call);
  EXPECT_TRUE(done.ended() && done.forced().empty());
}

TEST_P(HarmonyConstraint, ReasoningIsCutAtItsLimit) {
  const std::string word = " a";
  ASSERT_EQ(ids(word).size(), 1u);
  for (const bool required : {false, true}) {
    OutputRules rules = with_tools(required ? ToolChoice::kRequired : ToolChoice::kAuto);
    rules.tools.resize(1);
    rules.max_reasoning_tokens = 3;
    TokenConstraint constraint = make(rules);
    EXPECT_EQ(taken(constraint, "<|channel|>analysis<|message|> a a"),
              ids("<|channel|>analysis<|message|> a a").size());
    EXPECT_TRUE(takes(constraint, ids(word)[0]));
    constraint.accept(ids(word)[0]);
    EXPECT_FALSE(takes(constraint, ids(word)[0]));
    const std::string opened = required ? "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
                                        : "<|channel|>final<|message|>";
    const Ids forced = constraint.forced(), expected = ids("<|end|><|start|>assistant" + opened);
    EXPECT_EQ(Ids(forced.begin(), forced.begin() + static_cast<std::ptrdiff_t>(expected.size())), expected);
    // Behind it at most the bracket that opens the arguments is as certain.
    EXPECT_LE(forced.size(), expected.size() + 1);
    EXPECT_EQ(taken(constraint, "<|end|><|start|>assistant" + opened),
              ids("<|end|><|start|>assistant" + opened).size());
  }
  // A limit of nothing: there is no analysis.
  OutputRules none;
  none.max_reasoning_tokens = 0;
  EXPECT_EQ(make(none).forced(), ids("<|channel|>final<|message|>"));
}

TEST_P(HarmonyConstraint, ACharacterIsFinishedBeforeReasoningIsCut) {
  OutputRules rules;
  rules.max_reasoning_tokens = 2;
  const auto byte = [&](unsigned b) {
    const char c = static_cast<char>(static_cast<unsigned char>(b));
    return *tokenizer().find_token(std::string_view(&c, 1));
  };
  TokenConstraint constraint = make(rules);
  taken(constraint, "<|channel|>analysis<|message|>");
  for (const unsigned b : {0xF0u, 0x9Fu}) constraint.accept(byte(b));  // the begin of U+1F600
  for (const unsigned b : {0x98u, 0x80u}) {
    EXPECT_FALSE(takes(constraint, control().end));
    EXPECT_FALSE(takes(constraint, byte('a')));
    EXPECT_TRUE(takes(constraint, byte(b)));
    constraint.accept(byte(b));
  }
  EXPECT_EQ(constraint.forced(), ids("<|end|><|start|>assistant<|channel|>final<|message|>"));
}

// Uniformly random tokens make well-formed messages, and a required call comes if the texts end.
TEST_P(HarmonyConstraint, RandomOutputIsWellFormed) {
  Random random(5);
  const HarmonyTokens c = control();
  for (int i = 0; i < (GetParam() ? 40 : 300); ++i) {
    OutputRules rules = with_tools(i % 3 == 0   ? ToolChoice::kRequired
                                   : i % 3 == 1 ? ToolChoice::kAuto
                                                : ToolChoice::kNone);
    rules.max_reasoning_tokens = i % 2 == 0 ? 6 : -1;
    if (i % 5 == 0) rules.final_format = Grammar::json_schema(schema_of_place());
    TokenConstraint constraint = make(rules);
    HarmonyParser parser(tokenizer(), c, {true, {"functions.get_weather", "functions.get_time", "python"}});
    std::vector<HarmonyEvent> events;
    Ids all;
    int in_text = 0;
    for (int step = 0; step < 3000 && !constraint.ended(); ++step) {
      const Ids allowed = allowed_tokens(constraint, tokenizer().vocab_size());
      ASSERT_FALSE(allowed.empty());
      std::int32_t token = allowed[random.below(static_cast<std::uint32_t>(allowed.size()))];
      // After some text whatever ends it is taken: a control token, a quote, a bracket.
      in_text = allowed.size() > 3 ? in_text + 1 : 0;
      if (in_text > 8) {
        for (const char* text : {"\"", "}", "]", "0"}) {
          const auto id = *tokenizer().find_token(text);
          if (std::find(allowed.begin(), allowed.end(), id) != allowed.end() && random.below(2) == 0) token = id;
        }
        for (const std::int32_t id : {c.end, c.call, c.return_token}) {
          if (std::find(allowed.begin(), allowed.end(), id) != allowed.end()) token = id;
        }
      }
      constraint.accept(token);
      // The model's other end tokens are not harmony's; the engine does not hand them on.
      if (token != *tokenizer().find_special("<|endoftext|>")) parser.append(token, events);
      all.push_back(token);
    }
    ASSERT_TRUE(constraint.ended());
    parser.finish(events);
    for (std::size_t r = 0; r < parser.repairs().size(); ++r) {
      EXPECT_EQ(parser.repairs()[r], 0) << harmony_repair_name(static_cast<HarmonyRepair>(r)) << " "
                                        << tokenizer().decode(all);
    }
    std::string text;
    HarmonyMessage last;
    for (const HarmonyEvent& e : events) {
      if (e.kind == HarmonyEvent::Kind::kMessageStart) {
        last = e.header;
        text.clear();
      }
      text += e.text;
    }
    if (rules.tool_choice == ToolChoice::kRequired) {
      EXPECT_FALSE(last.recipient.empty());
    }
    if (rules.tool_choice == ToolChoice::kNone) {
      EXPECT_TRUE(last.recipient.empty());
    }
    const bool place =
        last.recipient == "functions.get_weather" || (last.recipient.empty() && rules.final_format != nullptr);
    if (place) {
      EXPECT_EQ(schema_error(schema_of_place(), Json::parse(text)), std::nullopt) << text;
    }
    if (last.recipient == "functions.get_time") {
      EXPECT_TRUE(Json::parse(text).is_object());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, HarmonyConstraint, ::testing::Values(false, true),
                         [](const auto& param) { return std::string(param.param ? "o200k" : "nano"); });

TEST(TokenConstraintRules, ContradictionsAreRefused) {
  const HarmonyTokens control = *HarmonyTokens::find(nano());
  const Ids ends{control.return_token};
  const auto refused = [&](OutputRules rules, std::optional<HarmonyTokens> tokens, const Ids& end_ids) {
    return error_of(ErrorCode::kInvalidArgument,
                    [&] { (void)TokenConstraint(nano(), tokens, end_ids, std::move(rules)); });
  };
  OutputRules required;
  required.tool_choice = ToolChoice::kRequired;
  EXPECT_NE(refused(required, control, ends).find("no tools"), std::string::npos);
  EXPECT_NE(refused({}, std::nullopt, ends).find("control tokens"), std::string::npos);
  OutputRules plain = with_tools(ToolChoice::kAuto);
  plain.in_header = false;
  EXPECT_NE(refused(plain, control, ends).find("headers"), std::string::npos);
  OutputRules text;
  text.in_header = false;
  EXPECT_NE(refused(text, std::nullopt, {}).find("no token that ends"), std::string::npos);
}

TEST(TokenConstraintRules, AForbiddenTokenEndsTheConstraint) {
  const HarmonyTokens control = *HarmonyTokens::find(nano());
  TokenConstraint constraint(nano(), control, Ids{control.return_token}, {});
  constraint.accept(control.call);
  EXPECT_TRUE(constraint.ended());
  EXPECT_EQ(allowed_tokens(constraint, 4096).size(), 4096u);
}

}  // namespace
}  // namespace gov
