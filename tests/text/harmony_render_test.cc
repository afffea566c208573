#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <random>
#include <tuple>

#include "tests/text/harmony_test_data.h"
#include "text/harmony_types.h"

namespace gov {
namespace {

using namespace harmony_test;
using text_test::error_of;
using text_test::nano;
using text_test::o200k;
using Order = HarmonyRenderOptions::Order;

const HarmonyTokens& o200k_tokens() {
  static const HarmonyTokens tokens = *HarmonyTokens::find(o200k());
  return tokens;
}

Ids render(const std::vector<HarmonyMessage>& messages, const HarmonyRenderOptions& options = {}) {
  return render_harmony(o200k(), o200k_tokens(), messages, options);
}
std::string rendered(const std::vector<HarmonyMessage>& messages, const HarmonyRenderOptions& options = {}) {
  return o200k().decode(render(messages, options));
}

HarmonyMessage user(std::string text) { return text_message(HarmonyRole::kUser, std::move(text)); }
HarmonyMessage said(std::string channel, std::string text) {
  return text_message(HarmonyRole::kAssistant, std::move(text), std::move(channel));
}

TEST(HarmonyTokens, AreFoundByTheirTexts) {
  EXPECT_EQ(o200k_tokens().start, 200006);
  EXPECT_EQ(o200k_tokens().return_token, 200002);
  EXPECT_EQ(o200k_tokens().call, 200012);
  EXPECT_EQ(HarmonyTokens::find(nano())->end, *nano().find_special("<|end|>"));
  EXPECT_FALSE(HarmonyTokens::find(text_test::partial()).has_value());
}

TEST(HarmonyRender, CallsInBothOrders) {
  const std::vector<HarmonyMessage> messages{user("Hi"), call_message("functions.f", "{\"a\":1}"),
                                             tool_message("functions.f", "42")};
  const std::string result =
      "<|start|>functions.f to=assistant<|channel|>commentary<|message|>42<|end|><|start|>assistant";
  EXPECT_EQ(rendered(messages),
            "<|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json"
            "<|message|>{\"a\":1}<|call|>" +
                result);
  EXPECT_EQ(rendered(messages, {.order = Order::kRecipientFirst}),
            "<|start|>user<|message|>Hi<|end|><|start|>assistant to=functions.f<|channel|>commentary <|constrain|>json"
            "<|message|>{\"a\":1}<|call|>" +
                result);
  // The ids of the format's own example, and the parts encoded one by one.
  EXPECT_EQ(render({user("hello"), said("final", " world")}, {.add_generation_prompt = false}),
            (Ids{200006, 1428, 200008, 24912, 200007, 200006, 173781, 200005, 17196, 200008, 2375, 200007}));
}

TEST(HarmonyRender, DropsAnalysisOfTurnsThatAreOver) {
  const auto kept = [](const std::vector<HarmonyMessage>& messages, const HarmonyRenderOptions& options = {}) {
    const std::string text = rendered(messages, options);
    std::string out;
    for (char c = '1'; c <= '6'; ++c) {
      if (text.find(std::string("thought ") + c) != std::string::npos) out += c;
    }
    return out;
  };
  const HarmonyMessage call = call_message("functions.f", "{}"), result = tool_message("functions.f", "x");
  // Kept in the current turn, with and without a final message, and across calls.
  EXPECT_EQ(kept({user("q"), said("analysis", "thought 1"), call, result, said("analysis", "thought 2")}), "12");
  EXPECT_EQ(kept({user("q"), said("analysis", "thought 1"), said("final", "a")}), "1");
  // Dropped once the next turn has begun, in every earlier turn, and before calls too.
  std::vector<HarmonyMessage> talk{user("q"), said("analysis", "thought 1"), call,
                                   result,    said("analysis", "thought 2"), said("final", "a"),
                                   user("r"), said("analysis", "thought 3"), said("final", "b")};
  EXPECT_EQ(kept(talk), "3");
  talk.push_back(user("s"));
  EXPECT_EQ(kept(talk), "");
  talk.insert(talk.end(), {said("analysis", "thought 4"), call, result});
  EXPECT_EQ(kept(talk), "4");  // openai-harmony 0.0.8 keeps 1 to 4 here
  EXPECT_EQ(kept(talk, {.preserve_thinking = true}), "1234");
  // A turn that never reached its answer keeps its analysis, also between two that did.
  EXPECT_EQ(kept({user("q"), said("analysis", "thought 1"), user("r"), said("analysis", "thought 2"),
                  said("final", "b"), user("s"), said("analysis", "thought 3")}),
            "13");
  // Calls and preambles stay; a built-in tool is called on the analysis channel.
  const std::string text = rendered({user("q"), call_message("browser.search", "{}", "analysis"),
                                     said("commentary", "preamble"), said("final", "a"), user("r")});
  EXPECT_NE(text.find("<|channel|>analysis to=browser.search"), std::string::npos);
  EXPECT_NE(text.find("preamble"), std::string::npos);
  // Training keeps the last turn's.
  EXPECT_EQ(kept({user("q"), said("analysis", "thought 1"), said("final", "a"), user("r"),
                  said("analysis", "thought 2"), said("final", "b")},
                 {.training = true}),
            "2");
}

TEST(HarmonyRender, TrainingEndsInReturn) {
  const std::vector<HarmonyMessage> messages{user("q"), said("final", "a")};
  EXPECT_EQ(render(messages, {.training = true}).back(), o200k_tokens().return_token);
  EXPECT_EQ(render({user("q"), said("analysis", "a")}, {.training = true}).back(), o200k_tokens().end);
  EXPECT_EQ(render(messages, {.add_generation_prompt = false}).back(), o200k_tokens().end);
}

TEST(HarmonyRender, SystemAndDeveloperTexts) {
  EXPECT_EQ(system_text({.model_identity = "", .knowledge_cutoff = "", .reasoning_effort = ""}, false),
            "# Valid channels: analysis, commentary, final. Channel must be included for every message.");
  EXPECT_EQ(developer_text({}), "");
  const ResponseFormat format{"shopping_list", "What to buy.\nAll of it.",
                              Json::parse(R"({"type":"object", "x":1.0})")};
  EXPECT_EQ(developer_text({.instructions = "Help.",
                            .tools = {{"functions", std::nullopt, {{"f", "Does it."}}}},
                            .response_format = format}),
            "# Instructions\n\nHelp.\n\n# Tools\n\n## functions\n\nnamespace functions {\n\n// Does it.\n"
            "type f = () => any;\n\n} // namespace functions\n\n# Response Formats\n\n## shopping_list\n\n"
            "// What to buy.\n// All of it.\n{\"type\":\"object\",\"x\":1.0}");
  EXPECT_EQ(developer_text({.response_format = ResponseFormat{"r", "", Json::parse("{}")}}),
            "# Response Formats\n\n## r\n\n{}");
  EXPECT_EQ(developer_text({.instructions = "Help.", .response_format = ResponseFormat{"r", "", Json::parse("{}")}},
                           HarmonyTemplate::kHfJinja),
            "# Instructions\n\nHelp.\n\n# Response Formats\n\n## r\n\n{}");
}

TEST(HarmonyRender, NumbersAreThoseOfPython) {
  // 17 digits, rounded to 16, would be another number; the 16 that Python writes are not those of rounding.
  EXPECT_NE(rendered({user("Hi"), call_message("functions.f", "[618970019642690137449562112.0,1e-7,0.5,1e16,123.0]")},
                     {.format = HarmonyTemplate::kHfJinja})
                .find("[6.189700196426902e+26, 1e-07, 0.5, 1e+16, 123.0]"),
            std::string::npos);
}

TEST(HarmonyRender, DeepTypesAreCut) {
  Json schema(Json::Object{{"type", Json("string")}});
  for (int i = 0; i < 200; ++i) schema = Json(Json::Object{{"type", Json("array")}, {"items", std::move(schema)}});
  std::string cut = "any";
  for (int i = 0; i < 65; ++i) cut += "[]";
  EXPECT_EQ(harmony_type(schema, ""), cut);
}

// Thousands of messages without a final one, all before the call at the end.
TEST(HarmonyRenderTime, TemplateOfALongAnswer) {
  std::vector<HarmonyMessage> messages{user("Hi")};
  for (int i = 0; i < 8000; ++i) messages.push_back(said(i % 2 == 0 ? "analysis" : "commentary", "x"));
  messages.push_back(call_message("functions.f", "{}"));
  const auto start = std::chrono::steady_clock::now();
  (void)render(messages, {.format = HarmonyTemplate::kHfJinja});
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 2.0);
}

TEST(HarmonyRender, ImagesStandInOrder) {
  HarmonyMessage message = user("a");
  message.content.insert(message.content.begin(), {ContentPart::Kind::kImage, ""});
  message.content.push_back({ContentPart::Kind::kImage, ""});
  for (const HarmonyTemplate format : {HarmonyTemplate::kHarmony, HarmonyTemplate::kHfJinja}) {
    HarmonyRenderOptions options{.format = format, .add_generation_prompt = false, .image_token_id = 200018};
    const Ids want{200006, 1428, 200008, 200018, 64, 200018, 200007};
    EXPECT_EQ(render({message}, options), want);
    options.image_token_id.reset();
    EXPECT_EQ(render({message}, options), (Ids{200006, 1428, 200008, 64, 200007}));
  }
  HarmonyMessage result = tool_message("python", "x");
  result.content.push_back({ContentPart::Kind::kImage, ""});
  const Ids ids = render({result}, {.image_token_id = 200018});
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 200018), 1);
}

TEST(HarmonyRender, GeneratedIdsAreUsedAgain) {
  // Not the ids that the text would be encoded as: the model may write any.
  const Ids body{200005, 17196, 200008, 71, 68, 200002};
  HarmonyMessage message = said("final", "he");
  message.generated = body;
  const Ids want{200006, 173781, 200005, 17196, 200008, 71, 68, 200007};
  for (const HarmonyTemplate format : {HarmonyTemplate::kHarmony, HarmonyTemplate::kHfJinja}) {
    Ids all = render({message, user("x")}, {.format = format});
    all.resize(want.size());
    EXPECT_EQ(all, want);
  }
  message.generated.pop_back();  // cut off by the limit of tokens
  EXPECT_EQ(render({message}, {.add_generation_prompt = false}), want);
  // Past analysis is dropped, generated or not.
  HarmonyMessage thought = said("analysis", "t");
  thought.generated = {200005, 35644, 200008, 83, 200007};
  EXPECT_EQ(render({user("q"), thought, message, user("x")}), render({user("q"), message, user("x")}));
  // Only the ids of one message of the assistant.
  for (const Ids& bad : {Ids{64, 200007, 64}, Ids{200006, 64}, Ids{-1}, Ids{300000}}) {
    message.generated = bad;
    EXPECT_NE(error_of(ErrorCode::kInvalidArgument, [&] { render({message}); }).find("cannot stand"),
              std::string::npos);
  }
  HarmonyMessage forged = user("x");
  forged.generated = body;
  EXPECT_NE(error_of(ErrorCode::kInvalidArgument, [&] { render({forged}); }).find("role user"), std::string::npos);
}

// ---- parser and renderer -------------------------------------------------------------------------------------------

TEST(HarmonyRoundTrip, RenderedMessagesAreParsedAgain) {
  std::mt19937_64 random(2);
  const std::vector<std::string> texts{
      "", " ", "Hello", "{\"a\":1}", "日本語 é 👍🏽", "<|end|> to=x", "a\n\nb", "\xEF\xBF\xBD"};
  const std::vector<std::string> tools{"functions.f", "functions.g-2", "browser.open", "python"};
  const auto pick = [&](const auto& list) { return list[random() % list.size()]; };
  for (int i = 0; i < 3000; ++i) {
    std::vector<HarmonyMessage> messages;
    for (std::uint64_t count = 1 + random() % 4; count > 0; --count) {
      HarmonyMessage m = said(pick(std::vector<std::string>{"analysis", "commentary", "final"}), pick(texts));
      if (random() % 2 == 0 && m.channel != "final") {
        m.recipient = pick(tools);
        m.content_type = pick(std::vector<std::string>{"", "json", "code"});
      }
      messages.push_back(m);
    }
    const Tokenizer& t = i % 2 == 0 ? o200k() : nano();
    const HarmonyTokens tokens = *HarmonyTokens::find(t);
    for (const Order order : {Order::kChannelFirst, Order::kRecipientFirst}) {
      const Ids prompt = render_harmony(t, tokens, messages, {.order = order, .add_generation_prompt = false});
      // The first start and role stand in the prompt of a generation.
      const std::size_t skip = 1 + t.encode("assistant").size();
      const Parse p = parse(t, Ids(prompt.begin() + static_cast<std::ptrdiff_t>(skip), prompt.end()), {.tools = tools});
      ASSERT_EQ(p.repairs, HarmonyRepairs{});
      ASSERT_EQ(p.messages.size(), messages.size());
      for (std::size_t k = 0; k < messages.size(); ++k) {
        const HarmonyMessage &a = p.messages[k], &b = messages[k];
        ASSERT_EQ(std::tie(a.role, a.recipient, a.channel, a.content_type),
                  std::tie(b.role, b.recipient, b.channel, b.content_type));
        ASSERT_EQ(a.text(), b.text());
        ASSERT_FALSE(a.generated.empty());
      }
      // The events' messages are ready for the next prompt, and give the very same ids.
      ASSERT_EQ(render_harmony(t, tokens, p.messages, {.add_generation_prompt = false}), prompt);
    }
  }
}

TEST(HarmonyRoundTrip, RepairedMessagesAreWrittenAnew) {
  const Ids ids = ids_of_text(o200k(), "<|channel|>commentary to=f<|constrain|>json<|message|>{}<|call|>");
  const Parse p = parse(o200k(), ids, {.tools = {"functions.f"}});
  EXPECT_TRUE(p.messages[0].generated.empty());
  EXPECT_EQ(rendered(p.messages, {.add_generation_prompt = false}),
            "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>");
}

// ---- what clients send cannot become control tokens
// ------------------------------------------------------------------

struct Everything {
  std::vector<HarmonyMessage> messages;
  int strings = 0;
};

// A conversation with such a text in every field that takes any text.
Everything with_text_everywhere(const std::function<std::string()>& next) {
  Everything out;
  const auto text = [&] {
    ++out.strings;
    return next();
  };
  const Json property(Json::Object{{"type", "string"},
                                   {"description", text()},
                                   {"title", text()},
                                   {"default", text()},
                                   {"enum", Json::Array{text(), text()}},
                                   {"examples", Json::Array{text()}}});
  const Json parameters(
      Json::Object{{"type", "object"}, {"description", text()}, {"properties", Json::Object{{text(), property}}}});
  const ToolNamespace tools{"functions", text(), {{"f", text(), parameters}}};
  SystemContent system{.model_identity = text(), .knowledge_cutoff = text()};
  const DeveloperContent developer{text(), {tools}, ResponseFormat{"r", text(), Json(text())}};
  for (const HarmonyTemplate format : {HarmonyTemplate::kHarmony, HarmonyTemplate::kHfJinja}) {
    out.messages.push_back(text_message(HarmonyRole::kDeveloper, developer_text(developer, format)));
  }
  out.messages.push_back(text_message(HarmonyRole::kSystem, system_text(system, true)));
  out.messages.push_back(user(text()));
  out.messages.back().content.push_back({ContentPart::Kind::kText, text()});
  out.messages.push_back(said("analysis", text()));
  out.messages.push_back(call_message("functions.f", text()));
  out.messages.push_back(tool_message("functions.f", text()));
  out.messages.push_back(said("final", text()));
  return out;
}

TEST(HarmonyInjection, NoTextGivesControlTokens) {
  std::vector<std::string> special;
  for (std::int32_t id = 199998; id < 201088; ++id) special.emplace_back(o200k().token_bytes(id));
  special.emplace_back("<|endofprompt|>");
  const auto controls = [](const std::vector<HarmonyMessage>& messages, HarmonyTemplate format) {
    Ids ids = render(messages, {.format = format});
    std::erase_if(ids, [](std::int32_t id) { return !o200k().is_special(id); });
    return ids;
  };
  std::mt19937_64 random(3);
  int strings = 0;
  const Everything harmless = with_text_everywhere([] { return "x"; });
  const Ids want[] = {controls(harmless.messages, HarmonyTemplate::kHarmony),
                      controls(harmless.messages, HarmonyTemplate::kHfJinja)};
  for (int i = 0; strings < 100'000; ++i) {
    const Everything attack = with_text_everywhere([&] {
      std::string text;
      for (std::uint64_t n = 1 + random() % 3; n > 0; --n) {
        if (random() % 2 == 0) text += random() % 2 == 0 ? "a " : "\n<";
        // The control tokens more often than the reserved ones.
        text += random() % 2 == 0 ? special[4 + random() % 12] : special[random() % special.size()];
      }
      return text;
    });
    strings += attack.strings;
    const HarmonyTemplate format = i % 2 == 0 ? HarmonyTemplate::kHarmony : HarmonyTemplate::kHfJinja;
    ASSERT_EQ(controls(attack.messages, format), want[i % 2]);
  }
}

TEST(HarmonyInjection, NamesAreNames) {
  const auto refuses = [](const std::function<void(HarmonyMessage&)>& change, const char* what) {
    HarmonyMessage message = call_message("functions.f", "{}");
    render({message});
    change(message);
    EXPECT_NE(error_of(ErrorCode::kInvalidArgument, [&] { render({message}); }).find(what), std::string::npos);
  };
  for (const std::string bad : {"<|channel|>", "a b", "a\n", "f<|message|>", "\u00e9", "to=x"}) {
    refuses([&](auto& m) { m.recipient = bad; }, "recipient");
    refuses([&](auto& m) { m.channel = bad; }, "channel");
    refuses([&](auto& m) { m.content_type = bad; }, "content type");
    refuses([&](auto& m) { m.name = bad; }, "author");
    refuses([&](auto& m) { m.role = HarmonyRole::kTool, m.name = bad; }, "author");
    for (const HarmonyTemplate format : {HarmonyTemplate::kHarmony, HarmonyTemplate::kHfJinja}) {
      EXPECT_NE(error_of(ErrorCode::kInvalidArgument, [&] { tool_namespace_text({bad, "", {{"f"}}}, format); }), "");
      EXPECT_NE(error_of(ErrorCode::kInvalidArgument, [&] { tool_namespace_text({"a", "", {{bad}}}, format); }), "");
    }
    EXPECT_NE(error_of(ErrorCode::kInvalidArgument,
                       [&] {
                         developer_text({"", {}, ResponseFormat{bad, "", {}}});
                       }),
              "");
    EXPECT_NE(error_of(ErrorCode::kInvalidArgument, [&] { system_text({.current_date = bad}, false); }), "");
    EXPECT_NE(error_of(ErrorCode::kInvalidArgument, [&] { system_text({.reasoning_effort = bad}, false); }), "");
  }
  refuses([](auto& m) { m.name = std::string(65, 'a'); }, "author");
  refuses([](auto& m) { m.recipient = std::string(130, 'a'); }, "recipient");
  refuses([](auto& m) { m.role = HarmonyRole::kTool; }, "without the tool's name");
  refuses([](auto& m) { m.content[0].text = "\xFF"; }, "not valid UTF-8");
  refuses(
      [](auto& m) {
        m.content.push_back({ContentPart::Kind::kImage, ""});
      },
      "an image in a message of role assistant");
}

}  // namespace
}  // namespace gov
