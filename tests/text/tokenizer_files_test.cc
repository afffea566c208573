// Files from outside: what is refused, with which words, and that nothing else happens.

#include <fmt/format.h>

#include "base/philox.h"
#include "tests/text/text_test_data.h"
#include "text/pretokenize.h"

namespace gov {
namespace {

using namespace text_test;

std::string with(std::string_view from, std::string_view to) { return replaced(small_json(), from, to); }

std::string refusal(ErrorCode code, const std::string& json) {
  return error_of(code, [&] { (void)Tokenizer::from_json(json); });
}

TEST(TokenizerJson, RefusesByName) {
  const auto unsupported = [](const std::string& json, const std::string& word) {
    EXPECT_NE(refusal(ErrorCode::kUnsupported, json).find(word), std::string::npos) << word;
  };
  unsupported(with("\"normalizer\":null", R"("normalizer":{"type":"NFC"})"), "NFC");
  unsupported(with("\"dropout\":null", "\"dropout\":0.1"), "dropout");
  unsupported(with("\"type\":\"BPE\"", "\"type\":\"WordPiece\""), "WordPiece");
  unsupported(with("\"continuing_subword_prefix\":null", R"("continuing_subword_prefix":"##")"),
              "continuing_subword_prefix");
  unsupported(with("\"end_of_word_suffix\":null", R"("end_of_word_suffix":"</w>")"), "end_of_word_suffix");
  unsupported(with("\"single_word\":false", "\"single_word\":true"), "single_word");
  unsupported(with("\"use_regex\":true", "\"use_regex\":false"), "use_regex");
  unsupported(with("\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"WordPiece\""), "decoder");
  unsupported(with("\"pre_tokenizer\":{\"type\":\"ByteLevel\"", "\"pre_tokenizer\":{\"type\":\"Whitespace\""),
              "Whitespace");
  unsupported(with("\"content\":\"[MASK]\"", "\"content\":\" [MASK]\""), "rstrip");
  const std::string nano_json = read_all(source_path("models/nano/tokenizer.json"));
  unsupported(replaced(nano_json, "\\\\p{N}{1,3}", "\\\\p{N}{1,2}"), "split pattern");
  unsupported(replaced(nano_json, "(?i:'s", "(?i:'s)*+(?:(a+)+$"), "split pattern");
  unsupported(replaced(nano_json, "\"Isolated\"", "\"Removed\""), "Isolated");
  unsupported(replaced(nano_json, "\"invert\": false", "\"invert\": true"), "inverted");
  unsupported(replaced(nano_json, "\"add_prefix_space\": false", "\"add_prefix_space\": true"), "add_prefix_space");
}

TEST(TokenizerJson, RefusesWhatIsBroken) {
  const auto corrupt = [](const std::string& json, const std::string& word) {
    EXPECT_NE(refusal(ErrorCode::kCorrupt, json).find(word), std::string::npos) << word;
  };
  corrupt("", "not valid JSON");
  corrupt("[]", "not a JSON object");
  corrupt("{}", "pre_tokenizer");
  corrupt(std::string(100000, '['), "not valid JSON");
  corrupt(std::string(5000, '{'), "not valid JSON");
  corrupt(with("\"vocab\":{\"!\":0", "\"vocab\":{\"!\":-1"), "id of a vocabulary entry");
  corrupt(with("\"vocab\":{\"!\":0", "\"vocab\":{\"!\":1"), "two tokens");
  corrupt(with("\"vocab\":{\"!\":0", "\"vocab\":{\"!\":4194304"), "id of a vocabulary entry");
  corrupt(with("\"vocab\":{\"!\":0", "\"vocab\":{\"!\":1.5"), "id of a vocabulary entry");
  corrupt(with("\"vocab\":{\"!\":0", "\"vocab\":{\"\\\"\":3000,\"!\":0"), "stands twice");
  corrupt(with("\"vocab\":{\"!\":0", "\"vocab\":{\"\":3000,\"!\":0"), "is empty");
  corrupt(with("\"merges\":[", "\"merges\":[[\"zz\",\"qq\"],"), "merge 0");
  corrupt(with("\"merges\":[", "\"merges\":[[\"\",\"a\"],"), "merge 0");
  corrupt(with("\"merges\":[", "\"merges\":[[\"a\"],"), "pair");
  corrupt(with("\"merges\":[", "\"merges\":[\"a b c\","), "merge 0");
  corrupt(with("\"merges\":[", "\"merges\":[7,"), "merge");
  corrupt(with("\"content\":\"[SEP]\"", "\"content\":\"\""), "empty");
  corrupt(with("\"content\":\"[SEP]\"", "\"content\":\"[MASK]\""), "twice");
  corrupt(with("\"content\":\"[SEP]\"", "\"content\":\"hello\""), "in the vocabulary");
  corrupt(with("\"content\":\"[SEP]\"", "\"content\":\"" + std::string(2000, 'x') + "\""), "2000 bytes");
  corrupt(with("\"ignore_merges\":false", "\"ignore_merges\":3"), "ignore_merges");
  corrupt(with("\"!\":0", "\"\xFF\":0"), "not valid JSON");
}

TEST(TokenizerJson, AddedTokensAreLimitedTogether) {
  std::string many;
  for (int i = 0; i < 2200; ++i) {
    many += fmt::format(R"({{"id":{},"content":"{:04}{}","special":true,"normalized":false,"lstrip":false,)"
                        R"("rstrip":false,"single_word":false}},)",
                        5000 + i, i, std::string(996, 'x'));
  }
  const std::string json = with("\"added_tokens\":[", "\"added_tokens\":[" + many);
  EXPECT_NE(refusal(ErrorCode::kCorrupt, json).find("2097152 bytes"), std::string::npos);
}

TEST(TokenizerJson, MergesAsStringsAndAsPairs) {
  const std::string head =
      R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"model":{"vocab":{"a":0,"b":1,"ab":2,"aba":3},"merges":)";
  const Tokenizer pairs = Tokenizer::from_json(head + R"([["a","b"],["ab","a"]]}})");
  const Tokenizer strings = Tokenizer::from_json(head + R"(["#version: 0.2","a b","ab a"]}})");
  for (const Tokenizer& t : {pairs, strings}) EXPECT_EQ(t.encode("abaab"), (std::vector<std::int32_t>{3, 2}));
  const Tokenizer again = Tokenizer::from_json(head + R"([["a","b"],["ab","a"],["a","b"]]}})");  // the last one counts
  EXPECT_EQ(again.encode("aba"), (std::vector<std::int32_t>{3}));
}

TEST(TokenizerJson, TwoThousandHostileFiles) {
  const std::string whole = small_json();
  const Philox random{77};
  const char* const splices[] = {"null", "[]",          "{}",   "-1",   "4294967296",   "1e999",
                                 "\"\"", "\"\\ud800\"", "true", "[[[[", "\"\xF0\x9F\"", ","};
  int accepted = 0, refused = 0;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    std::string json = whole;
    const std::uint32_t edits = 1 + random(i, 1)[0] % 3;
    for (std::uint32_t e = 0; e < edits; ++e) {
      const auto word = random(i, 2 + e);
      // Half of the edits fall into the first part, where the settings stand.
      const std::size_t at = word[0] % (word[3] % 2 ? json.size() : std::min<std::size_t>(json.size(), 2500));
      switch (word[1] % 8) {
        case 0: json[at] = static_cast<char>(word[2]); break;
        case 1: json.erase(at, 1 + word[2] % 40); break;
        case 2: json.insert(at, splices[word[2] % std::size(splices)]); break;
        case 3: json.resize(at); break;
        case 4: json.insert(at, json.substr(at / 2, word[2] % 60)); break;
        case 5: {  // another option, still valid JSON
          const std::size_t option = json.find("false", at);
          if (option != std::string::npos) json.replace(option, 5, "true");
          break;
        }
        case 6: {  // another order of merges, still valid JSON
          const std::size_t first = json.find("[\"", std::max(at, json.size() / 2));
          const std::size_t second = first == std::string::npos ? first : json.find("],[\"", first);
          const std::size_t end = second == std::string::npos ? second : json.find(']', second + 1);
          if (end == std::string::npos) break;
          const std::string a = json.substr(first, second + 1 - first), b = json.substr(second + 2, end - second - 1);
          json.replace(first, end + 1 - first, b + "," + a);
          break;
        }
        default: {
          const std::size_t digit = json.find_first_of("0123456789", at);
          if (digit != std::string::npos) json.replace(digit, 1, std::to_string(word[2]));
        }
      }
      if (json.empty()) break;
    }
    try {
      const Tokenizer t = Tokenizer::from_json(json);
      ++accepted;
      // What was accepted works: any text can be encoded, and all ids can be decoded.
      for (const SpecialTokens mode : {SpecialTokens::kOrdinary, SpecialTokens::kAllow}) {
        const auto ids =
            t.encode("the model's <|start|> [MASK]\n 12 \xF0\x9F\x91\x8D\xFF" + std::string(400, 'e'), mode);
        (void)t.decode(ids);
      }
    } catch (const Error& e) {
      ++refused;
      EXPECT_TRUE(e.code() == ErrorCode::kCorrupt || e.code() == ErrorCode::kUnsupported) << e.what();
      EXPECT_EQ(std::string_view(e.what()).find('\n'), std::string_view::npos);
    }
  }
  EXPECT_EQ(accepted + refused, 2000);
  EXPECT_GT(accepted, 100);
  EXPECT_GT(refused, 1000);
}

std::string byte_ranks() {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (unsigned b = 0; b < 256; ++b) {
    out += fmt::format("{}{}== {}\n", kDigits[b >> 2], kDigits[(b & 3) << 4], b);
  }
  return out;
}

TEST(Tiktoken, ReadsRanksInAnyOrderAndChecksThem) {
  const std::string bytes = byte_ranks();
  const Tokenizer plain = Tokenizer::from_tiktoken(bytes);
  EXPECT_EQ(plain.vocab_size(), 256);
  EXPECT_EQ(plain.encode("ab"), (std::vector<std::int32_t>{'a', 'b'}));
  EXPECT_EQ(plain.find_special("<|start|>"), std::nullopt);
  // "ab" 256, "abc" 257; with CR LF and an empty line; the higher rank first.
  const Tokenizer t = Tokenizer::from_tiktoken("YWJj 257\r\n\nYWI= 256\n" + bytes);
  EXPECT_EQ(t.encode("abcab"), (std::vector<std::int32_t>{257, 256}));
  EXPECT_EQ(Tokenizer::from_tiktoken(bytes, SplitPattern::kGpt2).pattern(), SplitPattern::kGpt2);

  const auto corrupt = [&](const std::string& text, const std::string& word) {
    const std::string message = error_of(ErrorCode::kCorrupt, [&] { (void)Tokenizer::from_tiktoken(text); });
    EXPECT_NE(message.find(word), std::string::npos) << message;
  };
  corrupt(bytes + "YWI= 257\n", "missing");
  corrupt(bytes + "YWI= 255\n", "two tokens");
  corrupt(bytes + "YQ== 256\n", "stands twice");
  corrupt(bytes + "YWI 256\n", "base64");
  corrupt(bytes + "YW=I 256\n", "base64");
  corrupt(bytes + "YWJ= 256\n", "base64");  // unused bits are set
  corrupt(bytes + "YW*= 256\n", "base64");
  corrupt(bytes + " 256\n", "base64");
  corrupt(bytes + "YWI=\n", "line 257");
  corrupt(bytes + "YWI= 256 \n", "line 257");
  corrupt(bytes + "YWI= -5\n", "line 257");
  corrupt(bytes + "YWI= 99999999999\n", "line 257");
  corrupt(bytes + "YWI= 4194304\n", "4194304");
  corrupt("YQ== 0\n", "256 single bytes");
  corrupt("", "256 single bytes");
  corrupt(bytes + std::string(4000, 'A') + " 256\n", "too long");
}

TEST(VocabAndMerges, EndOfTextIsSpecial) {
  const Tokenizer t =
      Tokenizer::from_vocab_and_merges(R"({"a":0,"b":1,"ab":2,"<|endoftext|>":9})", "#version: 0.2\r\na b\r\n");
  EXPECT_EQ(t.encode("ab<|endoftext|>", SpecialTokens::kAllow), (std::vector<std::int32_t>{2, 9}));
  EXPECT_EQ(t.vocab_size(), 10);
  EXPECT_FALSE(t.has_token(5));
  error_of(ErrorCode::kInvalidArgument, [&] { (void)t.token_bytes(5); });
  error_of(ErrorCode::kCorrupt, [] { (void)Tokenizer::from_vocab_and_merges(R"({"a":0})", "a b\n"); });
  error_of(ErrorCode::kCorrupt, [] { (void)Tokenizer::from_vocab_and_merges("[]", ""); });
}

}  // namespace
}  // namespace gov
