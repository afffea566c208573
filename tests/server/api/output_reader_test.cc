// Tokens to items: what a model wrote, as the protocols show it.

#include "server/output.h"

#include <gtest/gtest.h>

#include "base/philox.h"
#include "tests/server/api/test_server.h"

namespace gov::test {
namespace {

using namespace server;
using Kind = OutputItem::Kind;

const Tokenizer& tokenizer() {
  static const Tokenizer t = Tokenizer::load(GOV_SOURCE_DIR "/models/nano/tokenizer.json");
  return t;
}

struct Read {
  std::vector<OutputItem> items;
  std::vector<OutputEvent> events;
  std::string stop;
  std::int64_t tokens, reasoning;
  bool stopped;
};

// text: with the texts of control tokens.
Read read(std::string_view text, OutputReader::Options options = {}, std::int32_t end_token = -1, bool harmony = true) {
  options.tokenizer = &tokenizer();
  if (harmony) options.harmony = HarmonyTokens::find(tokenizer());
  OutputReader reader(std::move(options));
  Read out;
  for (const std::int32_t id : tokenizer().encode(text, SpecialTokens::kAllow)) {
    if (!reader.stopped()) reader.append({id, -1.f, {}}, out.events);
  }
  reader.finish(end_token, out.events);
  out.items = reader.items();
  out.stop = reader.stop_match();
  out.tokens = reader.tokens();
  out.reasoning = reader.reasoning_tokens();
  out.stopped = reader.stopped();
  return out;
}

std::int32_t id_of(const char* text) { return *tokenizer().find_special(text); }

TEST(OutputReader, ChannelsBecomeItems) {
  const Read r = read(
      "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>commentary<|message|>Wait.<|end|>"
      "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\":1}",
      {.tools = {"functions.f"}}, id_of("<|call|>"));
  ASSERT_EQ(r.items.size(), 3u);
  EXPECT_EQ(r.items[0].kind, Kind::kReasoning);
  EXPECT_EQ(r.items[0].text, "Think.");
  EXPECT_EQ(r.items[1].kind, Kind::kMessage);
  EXPECT_TRUE(r.items[1].preamble);
  EXPECT_EQ(r.items[1].text, "Wait.");
  EXPECT_EQ(r.items[2].kind, Kind::kToolCall);
  EXPECT_EQ(r.items[2].name, "f");
  EXPECT_EQ(r.items[2].text, "{\"a\":1}");
  EXPECT_TRUE(r.items[2].complete);
  EXPECT_EQ(r.items[2].id.size(), 5u + 24u);
  for (const OutputItem& item : r.items) EXPECT_FALSE(item.message.generated.empty());
  // The text and the end token of the reasoning.
  EXPECT_EQ(r.reasoning, static_cast<std::int64_t>(tokenizer().encode("Think.").size()) + 1);
}

TEST(OutputReader, AMessageCutShortIsNotComplete) {
  const Read r = read("<|channel|>final<|message|>Half an ans");
  ASSERT_EQ(r.items.size(), 1u);
  EXPECT_FALSE(r.items[0].complete);
  EXPECT_EQ(read("<|channel|>fin").items.size(), 0u);
}

TEST(OutputReader, StopTextsActOnTheAnswerOnly) {
  const char* text =
      "<|channel|>analysis<|message|>one STOP two<|end|><|start|>assistant<|channel|>final<|message|>three STOP four";
  const Read r = read(text, {.stop = {"STOP"}});
  ASSERT_EQ(r.items.size(), 2u);
  EXPECT_EQ(r.items[0].text, "one STOP two");
  EXPECT_EQ(r.items[1].text, "three ");
  EXPECT_TRUE(r.stopped);
  EXPECT_EQ(r.stop, "STOP");
  EXPECT_TRUE(r.items[1].message.generated.empty()) << "its tokens say more than the answer";
}

TEST(OutputReader, PlainTextIsOneMessage) {
  const Read r = read("Hello there, world", {.stop = {" wor"}}, -1, false);
  ASSERT_EQ(r.items.size(), 1u);
  EXPECT_EQ(r.items[0].text, "Hello there,");
  EXPECT_EQ(read("", {}, id_of("<|return|>"), false).items.size(), 0u);
}

// Joined deltas are the items, scores come with the text of their tokens, and each event belongs to the open item.
void check_events(const Read& r, bool scores) {
  std::vector<std::string> texts(r.items.size());
  std::vector<std::size_t> counts(r.items.size());
  std::vector<int> states(r.items.size());
  for (const OutputEvent& event : r.events) {
    ASSERT_LT(event.item, r.items.size());
    if (event.kind == OutputEvent::Kind::kBegin) {
      ASSERT_EQ(states[event.item]++, 0);
    } else if (event.kind == OutputEvent::Kind::kEnd) {
      ASSERT_EQ(states[event.item]++, 1);
    } else {
      ASSERT_EQ(states[event.item], 1);
      texts[event.item] += event.text;
      counts[event.item] += event.scores.size();
    }
  }
  for (std::size_t i = 0; i < r.items.size(); ++i) {
    EXPECT_EQ(states[i], 2);
    EXPECT_EQ(texts[i], r.items[i].text);
    EXPECT_EQ(counts[i], r.items[i].scores.size());
    if (!scores || r.items[i].kind != Kind::kMessage) {
      EXPECT_EQ(counts[i], 0u);
    }
  }
}

TEST(OutputReader, ScoresOfAnUncutMessageAreThoseOfItsTokens) {
  const char* answer = "Grüße, 世界, 🙂 and a long answer";
  const Read r = read(std::string("<|channel|>final<|message|>") + answer, {.stop = {"never"}, .scores = true},
                      id_of("<|return|>"));
  ASSERT_EQ(r.items.size(), 1u);
  EXPECT_EQ(r.items[0].text, answer);
  const std::vector<std::int32_t> ids = tokenizer().encode(answer);
  ASSERT_EQ(r.items[0].scores.size(), ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(r.items[0].scores[i].token, ids[i]);
  check_events(r, true);
}

TEST(OutputReader, AnyTokensGiveWellFormedEvents) {
  const std::int32_t size = tokenizer().vocab_size();
  std::vector<std::int32_t> control;
  for (const char* text :
       {"<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"})
    control.push_back(id_of(text));
  for (const char* text : {"assistant", "analysis", "commentary", "final", " to=functions.f", "{\"a\":"}) {
    for (const std::int32_t id : tokenizer().encode(text)) control.push_back(id);
  }
  for (std::uint64_t run = 0; run < 3000; ++run) {
    OutputReader::Options options{.tools = {"functions.f"}, .stop = {"ab", "e"}, .scores = run % 2 == 0};
    if (run % 3 == 0) options.stop.clear();
    options.tokenizer = &tokenizer();
    if (run % 5 != 0) options.harmony = HarmonyTokens::find(tokenizer());
    OutputReader reader(options);
    Read r;
    for (std::uint64_t i = 0; i < 40; ++i) {
      const auto random = Philox{run}(i);
      const bool is_control = random[0] % 2 == 0;
      const std::int32_t id = is_control ? control[random[1] % control.size()]
                                         : static_cast<std::int32_t>(random[1] % static_cast<std::uint32_t>(size));
      if (!tokenizer().has_token(id) || reader.stopped()) continue;
      reader.append({id, -1.f, {}}, r.events);
    }
    reader.finish(run % 4 == 0 ? id_of("<|return|>") : -1, r.events);
    r.items = reader.items();
    check_events(r, options.scores);
    if (HasFailure()) FAIL() << "run " << run;
  }
}

TEST(OutputReader, IdsDiffer) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(ids.insert(new_id("x_")).second);
}

}  // namespace
}  // namespace gov::test
