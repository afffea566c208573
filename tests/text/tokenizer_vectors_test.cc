// Ids against the reference implementations: see data/generate.py.

#include "base/utf8.h"
#include "tests/text/text_test_data.h"

namespace gov {
namespace {

using namespace text_test;

// What every encoding must satisfy, whatever the vocabulary: the spans are in order, cover the text, and hold the
// token's bytes; decoding gives the text back.
void check_round_trip(const Tokenizer& t, const std::string& text) {
  const auto ids = t.encode(text);
  const auto spans = t.encode_with_offsets(text);
  ASSERT_EQ(spans.size(), ids.size());
  std::size_t at = 0;
  for (std::size_t i = 0; i < spans.size(); ++i) {
    ASSERT_EQ(spans[i].id, ids[i]);
    ASSERT_EQ(spans[i].begin, at);
    ASSERT_EQ(text.substr(at, spans[i].end - at), t.token_bytes(ids[i]));
    at = spans[i].end;
  }
  ASSERT_EQ(at, text.size());
  ASSERT_EQ(t.decode(ids), text);
}

TEST(TokenizerVectors, O200kIdsOfTheRankFilesVectors) {
  const int rows = for_each_row("o200k_vectors.jsonl", [](simdjson::dom::object row) {
    const std::string text = string_of(row, "text");
    EXPECT_EQ(o200k().encode(text), ids_of(row["ids"].get_array())) << text;
    check_round_trip(o200k(), text);
  });
  EXPECT_EQ(rows, 600);
}

TEST(TokenizerVectors, HarmonyCheckValues) {
  using Ids = std::vector<std::int32_t>;
  const Tokenizer& t = o200k();
  EXPECT_EQ(t.encode("Hello, world!"), (Ids{13225, 11, 2375, 0}));
  EXPECT_EQ(t.encode("hello world"), (Ids{24912, 2375}));
  EXPECT_EQ(t.encode("12345678"), (Ids{7633, 19354, 4388}));
  EXPECT_EQ(t.encode("I'm you're WE'LL"), (Ids{15390, 7163, 26919, 6, 7454}));
  EXPECT_EQ(t.encode("<|start|>"), (Ids{27, 91, 5236, 91, 29}));
  const std::pair<const char*, Ids> words[] = {{"system", {17360}},      {"developer", {77944}},
                                               {"user", {1428}},         {"assistant", {173781}},
                                               {"analysis", {35644}},    {"commentary", {12606, 815}},
                                               {" commentary", {49159}}, {"final", {17196}},
                                               {" to", {316}},           {"=", {28}},
                                               {"functions", {44580}},   {"json", {4108}},
                                               {" json", {5701}},        {" code", {3490}},
                                               {"python", {29010}}};
  for (const auto& [word, ids] : words) EXPECT_EQ(t.encode(word), ids) << word;
  EXPECT_EQ(t.vocab_size(), 201088);
  EXPECT_EQ(t.find_special("<|return|>"), 200002);
  EXPECT_EQ(t.find_special("<|call|>"), 200012);
  EXPECT_EQ(t.find_special("<|reserved_201087|>"), 201087);
  EXPECT_EQ(t.find_special("<|reserved_201088|>"), std::nullopt);
  EXPECT_EQ(t.find_special("<|endofprompt|>"), 200018);
  EXPECT_EQ(t.token_bytes(200018), "<|reserved_200018|>");
}

TEST(TokenizerVectors, AllVocabulariesAgreeWithTheirReference) {
  const int rows = for_each_row("vectors.jsonl", [](simdjson::dom::object row) {
    const std::string text = text_of(row);
    for (const auto& [name, t] : all_tokenizers()) {
      EXPECT_EQ(digest(t.encode(text)), digest_of(row, name)) << name << ": " << text.substr(0, 200);
    }
    check_round_trip(o200k(), text);
    check_round_trip(nano(), text);
  });
  EXPECT_EQ(rows, 2256);
}

TEST(TokenizerVectors, SpecialAndAddedTokens) {
  int compared = 0;
  for_each_row("special_vectors.jsonl", [&](simdjson::dom::object row) {
    const std::string text = text_of(row);
    for (const auto& [name, t] : all_tokenizers()) {
      simdjson::dom::element unused;
      if (row[name].get(unused) != simdjson::SUCCESS) continue;
      EXPECT_EQ(digest(t.encode(text, SpecialTokens::kAllow)), digest_of(row, name)) << name << ": " << text;
      ++compared;
      const std::string ordinary = std::string(name) + "_ordinary";
      if (row[ordinary].get(unused) != simdjson::SUCCESS) continue;
      EXPECT_EQ(digest(t.encode(text)), digest_of(row, ordinary)) << ordinary << ": " << text;
      ++compared;
    }
  });
  EXPECT_EQ(compared, 300 * 2 + 700 * 6);
}

TEST(TokenizerVectors, BytesThatAreNotUtf8) {
  int invalid = 0;
  const int rows = for_each_row("bytes_vectors.jsonl", [&](simdjson::dom::object row) {
    const std::string text = text_of(row);
    invalid += !utf8_valid(text);
    EXPECT_EQ(digest(o200k().encode(text)), digest_of(row, "o200k")) << string_of(row, "hex");
    check_round_trip(o200k(), text);
    check_round_trip(nano(), text);
  });
  EXPECT_EQ(rows, 528);
  EXPECT_GT(invalid, 300);
}

TEST(TokenizerVectors, SpansOfStrippedAndPrefixedText) {
  using Spans = std::vector<TokenSpan>;
  const std::int32_t mask = *small().find_special("[MASK]"), sep = *small().find_special("[SEP]");
  const std::int32_t a = *small().find_token("a");
  EXPECT_EQ(small().encode_with_offsets("a \n[MASK]a", SpecialTokens::kAllow),
            (Spans{{a, 0, 1}, {mask, 1, 9}, {a, 9, 10}}));
  EXPECT_EQ(small().encode_with_offsets("[SEP]\u3000a", SpecialTokens::kAllow), (Spans{{sep, 0, 8}, {a, 8, 9}}));
  const std::int32_t space_a = *small_prefix_space().find_token(" a");
  EXPECT_EQ(small_prefix_space().encode_with_offsets("a"), (Spans{{space_a, 0, 1}}));
  // Bytes without token have no span.
  const std::int32_t h = *partial().find_token("h");
  ASSERT_EQ(partial().find_token("\xF7"), std::nullopt);
  EXPECT_EQ(partial().encode_with_offsets("\xF7h"), (Spans{{h, 1, 2}}));
}

}  // namespace
}  // namespace gov
