// One sequence fed with chosen tokens: stop rules, text pieces, events.
#include "engine/sequence.h"

#include <gtest/gtest.h>

#include "tests/engine/test_support.h"

namespace gov::test {
namespace {

struct Event {
  std::int32_t token;
  std::string text;
};

// Runs the bytes of `output` as tokens (one token each) through a sequence; numbers >= 256 in `stop_ids` never occur.
struct Played {
  Completion completion;
  std::vector<Event> events;
  std::size_t taken = 0;  // tokens accepted before it was done
};
Played play(const std::string& output, GenerationOptions options, std::vector<std::int32_t> stop_ids = {}) {
  const Tokenizer tokenizer = byte_tokenizer();
  DecodingRules rules;
  rules.tokenizer = &tokenizer;
  rules.stop_ids = std::move(stop_ids);
  Played played;
  RequestState state;
  state.request = make_request({1}, options);
  state.request.on_token = [&](const TokenEvent& e) { played.events.push_back({e.token, std::string(e.text)}); };
  state.prompt = expand_prompt(small_config(), state.request.prompt, 0);
  state.max_new_tokens = options.max_new_tokens;
  Sequence sequence(state, 0, rules);
  for (const char c : output) {
    if (sequence.done) break;
    ops::SampleResult drawn;
    drawn.token = static_cast<unsigned char>(c);
    sequence.accept(drawn);
    ++played.taken;
  }
  if (!sequence.done) sequence.finish(FinishReason::kCancelled);
  played.completion = sequence.completion;
  return played;
}

GenerationOptions options_with(std::vector<std::string> stop, std::int64_t max_new_tokens = 1000) {
  GenerationOptions o;
  o.max_new_tokens = max_new_tokens;
  o.stop = std::move(stop);
  return o;
}

std::string joined(const Played& p) {
  std::string text;
  for (const Event& e : p.events) text += e.text;
  return text;
}

TEST(Sequence, StopStringAcrossTokens) {
  const Played p = play("one STOP two", options_with({"STOP"}));
  EXPECT_EQ(p.completion.text, "one ");
  EXPECT_EQ(p.completion.stop_match, "STOP");
  EXPECT_EQ(p.completion.stop_token, -1);
  EXPECT_EQ(p.completion.finish_reason, FinishReason::kStop);
  EXPECT_EQ(p.completion.tokens.size(), 8u);  // with those of the stop string
  EXPECT_EQ(p.events.size(), 8u);
  EXPECT_EQ(joined(p), "one ");
  EXPECT_EQ(p.events[4].text, "");  // "S" is held back
}

TEST(Sequence, HeldBackTextComesWithTheLastToken) {
  const Played p = play("a##b##", options_with({"###"}, 6));
  EXPECT_EQ(p.completion.text, "a##b##");
  EXPECT_EQ(p.completion.finish_reason, FinishReason::kLength);
  ASSERT_EQ(p.events.size(), 6u);
  EXPECT_EQ(p.events[1].text, "");
  EXPECT_EQ(p.events[3].text, "##b");
  EXPECT_EQ(p.events[5].text, "##");
}

TEST(Sequence, HeldBackTextComesInALastEventBeforeAnEosToken) {
  const Played p = play("a##\x07", options_with({"###"}), {9, 7});
  EXPECT_EQ(p.completion.text, "a##");
  EXPECT_EQ(p.completion.stop_token, 7);
  EXPECT_EQ(p.completion.stop_match, "");
  EXPECT_EQ(p.completion.tokens, (std::vector<std::int32_t>{'a', '#', '#'}));
  ASSERT_EQ(p.events.size(), 4u);
  EXPECT_EQ(p.events[3].token, -1);
  EXPECT_EQ(p.events[3].text, "##");
  EXPECT_EQ(play("ab\x07", options_with({"###"}), {9, 7}).events.size(), 2u);  // nothing held back: no last event
}

TEST(Sequence, StopStringInsideMultiByteCharacters) {
  // Each of the four bytes of the picture is a token of its own; the stop string ends within the third character.
  const Played p = play("x\xF0\x9F\x98\x80y\xE2\x82\xACz", options_with({"y\xE2\x82\xAC"}));
  EXPECT_EQ(p.completion.text, "x\xF0\x9F\x98\x80");
  EXPECT_EQ(joined(p), p.completion.text);
  EXPECT_EQ(p.events[1].text, "");  // no part of a character ever
  EXPECT_EQ(p.events[4].text, "\xF0\x9F\x98\x80");
  // A broken character is U+FFFD, which a stop string may name.
  const Played broken = play("ab\xE2\x82z", options_with({"\xEF\xBF\xBDz"}));
  EXPECT_EQ(broken.completion.text, "ab");
  const Played cut = play("ab\xE2\x82", options_with({}, 4));
  EXPECT_EQ(cut.completion.text, "ab\xEF\xBF\xBD");
  EXPECT_EQ(joined(cut), cut.completion.text);
}

TEST(Sequence, EosListAndStopTokens) {
  for (const char eos : {'p', 'q', 'r'}) {
    const Played p = play(std::string("ab") + eos + "cd", options_with({}), {'p', 'q', 'r'});
    EXPECT_EQ(p.completion.text, "ab");
    EXPECT_EQ(p.completion.stop_token, eos);
    EXPECT_EQ(p.taken, 3u);
  }
  GenerationOptions o = options_with({}, 6);
  o.ignore_eos = true;
  o.stop_tokens = {'z'};
  EXPECT_EQ(play("apqrbc", o, {'p', 'q', 'r'}).completion.text, "apqrbc");
  EXPECT_EQ(play("apzbcd", o, {'p', 'q', 'r'}).completion.stop_token, 'z');
}

TEST(Sequence, BeforeMinNewTokensNothingEndsIt) {
  GenerationOptions o = options_with({"b"});
  o.min_new_tokens = 4;
  o.stop_tokens = {'z'};
  EXPECT_EQ(play("abcabc", o, {'q'}).completion.text, "abca");  // the second "b" counts, the first does not
  const DecodingRules rules{nullptr, {3, 5}, {11}};
  RequestState state;
  state.request = make_request({1}, o);
  state.request.options.stop = {};
  state.prompt = expand_prompt(small_config(), state.request.prompt, 0);
  state.max_new_tokens = 100;
  Sequence sequence(state, 0, rules);
  const auto forbidden = [&] {
    const std::span<const std::int32_t> ids = sequence.sample_row().forbidden;
    return std::vector<std::int32_t>(ids.begin(), ids.end());
  };
  EXPECT_EQ(forbidden(), (std::vector<std::int32_t>{11, 3, 5, 'z'}));
  for (int i = 0; i < 4; ++i) sequence.accept({});
  EXPECT_EQ(forbidden(), (std::vector<std::int32_t>{11}));
}

TEST(Sequence, CountsForPenalties) {
  DecodingRules rules;
  RequestState state;
  GenerationOptions o = options_with({});
  o.sampling.presence_penalty = 0.5f;
  state.request = make_request({7, 8, 7}, o);
  state.prompt = expand_prompt(small_config(), state.request.prompt, 0);
  state.max_new_tokens = 100;
  Sequence sequence(state, 0, rules);
  for (const std::int32_t token : {8, 9, 9}) {
    ops::SampleResult drawn;
    drawn.token = token;
    sequence.accept(drawn);
  }
  std::vector<std::pair<std::int32_t, std::int32_t>> counts;
  for (const ops::TokenCount& c : sequence.sample_row().counts) counts.push_back({c.token, c.in_output});
  EXPECT_EQ(counts, (std::vector<std::pair<std::int32_t, std::int32_t>>{{7, 0}, {8, 1}, {9, 2}}));
  EXPECT_EQ(sequence.sample_row().draw, 3u);
}

TEST(ExpandPrompt, PlacesImages) {
  const Config config = small_config(true);  // 6 rows an image
  ASSERT_EQ(config.vision.tokens(), 6);
  const std::vector<std::int32_t> text{1, 2};
  EXPECT_EQ(expand_prompt(config, text, 0).image_row(1), -1);
  const ExpandedPrompt prefix = expand_prompt(config, text, 2);
  ASSERT_EQ(prefix.rows(), 14);
  for (std::int32_t row = 0; row < 12; ++row) EXPECT_EQ(prefix.image_row(row), row);
  EXPECT_EQ(prefix.tokens[12], 1);
  const std::vector<std::int32_t> placed{1, kImageToken, 2, kImageToken};
  const ExpandedPrompt inside = expand_prompt(config, placed, 2);
  ASSERT_EQ(inside.rows(), 14);
  EXPECT_EQ(inside.image_row(0), -1);
  EXPECT_EQ(inside.image_row(1), 0);
  EXPECT_EQ(inside.image_row(7), -1);
  EXPECT_EQ(inside.tokens[7], 2);
  EXPECT_EQ(inside.image_row(13), 11);
  EXPECT_EQ(expand_prompt(config, std::vector<std::int32_t>{kImageToken, 1, 2}, 1).image_rows,
            expand_prompt(config, text, 1).image_rows);
}

}  // namespace
}  // namespace gov::test
