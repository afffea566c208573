// Special tokens per call, decoding, streaming, loading, cancelling.

#include "text/tokenizer.h"

#include <algorithm>

#include "base/utf8.h"
#include "tests/text/text_test_data.h"
#include "text/byte_level.h"
#include "text/pretokenize.h"

namespace gov {
namespace {

using namespace text_test;

TEST(Tokenizer, SpecialTokensPerCall) {
  const std::string text = "a<|end|>b";
  EXPECT_EQ(nano().encode(text, SpecialTokens::kAllow),
            (std::vector<std::int32_t>{*nano().find_token("a"), 4092, *nano().find_token("b")}));
  const auto ordinary = nano().encode(text);
  EXPECT_TRUE(std::none_of(ordinary.begin(), ordinary.end(), [](std::int32_t id) { return nano().is_special(id); }));
  const std::string message =
      error_of(ErrorCode::kInvalidArgument, [&] { (void)nano().encode(text, SpecialTokens::kRefuse); });
  EXPECT_EQ(message, "the text holds the special token \"<|end|>\" at byte 1");
  EXPECT_EQ(nano().encode("a<|en", SpecialTokens::kRefuse), nano().encode("a<|en"));
  // An added token that is not special is matched in every mode.
  EXPECT_EQ(small().encode("models", SpecialTokens::kRefuse), small().encode("models"));
  EXPECT_EQ(small().encode("models").size(), 1u);
}

TEST(Tokenizer, NoTextGivesControlIdsWhenSpecialsAreOrdinary) {
  // Every special token in 100,000 strings, between words that could be merged with its ends.
  const char* around[] = {"", " ", "a", "<", "<|", "|>", ">", "\n", "\xE2\x80", "'s"};
  std::size_t strings = 0;
  for (std::int32_t id = 199998; id < 201088; ++id) {
    const std::string special(o200k().token_bytes(id));
    for (const char* before : around) {
      for (const char* after : around) {
        const auto ids = o200k().encode(before + special + after);
        ASSERT_LT(*std::max_element(ids.begin(), ids.end()), 199998) << before << special << after;
        ++strings;
      }
    }
  }
  EXPECT_EQ(strings, 109000u);
}

TEST(Tokenizer, IdsAndTexts) {
  EXPECT_EQ(nano().vocab_size(), 4096);
  EXPECT_TRUE(nano().is_special(4095));
  EXPECT_FALSE(nano().is_special(0));
  EXPECT_FALSE(nano().is_special(-1));
  EXPECT_FALSE(nano().has_token(4096));
  EXPECT_EQ(nano().find_special("<|image|>"), 4095);
  EXPECT_EQ(nano().find_special("a"), std::nullopt);
  error_of(ErrorCode::kInvalidArgument, [] { (void)nano().token_bytes(4096); });
  error_of(ErrorCode::kInvalidArgument, [] { (void)nano().decode(std::vector<std::int32_t>{-1}); });
  const std::vector<std::int32_t> ids{4091, *nano().find_token("a"), 4092};
  EXPECT_EQ(nano().decode(ids), "<|start|>a<|end|>");
  EXPECT_EQ(nano().decode(ids, true), "a");
  EXPECT_EQ(o200k().pattern(), SplitPattern::kO200k);
  EXPECT_EQ(small().pattern(), SplitPattern::kGpt2);
}

// Ids of the one-byte tokens of `bytes`.
std::vector<std::int32_t> byte_tokens(const Tokenizer& t, std::string_view bytes) {
  std::vector<std::int32_t> ids;
  for (const char& b : bytes) ids.push_back(*t.find_token(std::string_view(&b, 1)));
  return ids;
}

TEST(StreamDecoder, EveryScalarValueOneByteAtATime) {
  StreamDecoder decoder(nano());
  const std::string all_bytes = [] {
    std::string bytes;
    for (int b = 0; b < 256; ++b) bytes += static_cast<char>(b);
    return bytes;
  }();
  const auto id_of_byte = byte_tokens(nano(), all_bytes);
  std::int64_t scalars = 0;
  std::string utf8;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    utf8.clear();
    utf8_append(utf8, c);
    for (std::size_t i = 0; i < utf8.size(); ++i) {
      const std::string out = decoder.append(id_of_byte[static_cast<unsigned char>(utf8[i])]);
      // Nothing until the last byte, then the whole character.
      ASSERT_EQ(out, i + 1 == utf8.size() ? utf8 : "") << static_cast<std::uint32_t>(c);
    }
    ++scalars;
  }
  EXPECT_EQ(scalars, 1112064);
  EXPECT_EQ(decoder.flush(), "");
}

TEST(StreamDecoder, JoinedEqualsDecodeUtf8OnAnyTokens) {
  std::uint64_t state = 1;
  const auto next = [&](std::uint64_t below) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (state >> 33) % below;
  };
  for (const bool skip_special : {false, true}) {
    for (int round = 0; round < 20000; ++round) {
      std::vector<std::int32_t> ids;
      for (std::uint64_t n = next(12); n > 0; --n) {
        const bool is_byte = next(3) != 0;  // the 256 byte tokens come first in o200k, and split characters
        ids.push_back(static_cast<std::int32_t>(is_byte ? next(256) : next(201088)));
      }
      StreamDecoder decoder(o200k(), skip_special);
      std::string joined;
      for (const std::int32_t id : ids) {
        const std::string part = decoder.append(id);
        ASSERT_TRUE(utf8_valid(part));
        joined += part;
      }
      joined += decoder.flush();
      ASSERT_FALSE(decoder.has_pending());
      ASSERT_EQ(joined, o200k().decode_utf8(ids, skip_special));
    }
  }
}

TEST(StreamDecoder, InvalidBytesAsTheUnicodeStandardSays) {
  // Table 3-8 of the Unicode Standard and some ends: one U+FFFD for each maximal subpart.
  const std::pair<std::string, std::string> cases[] = {
      {"\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64", "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd"},
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA\uFFFD\uFFFDB"},
      {"a\xF0\x9F\x98", "a\uFFFD"},
      {"\xE3\x81", "\uFFFD"}};
  for (const auto& [bytes, expected] : cases) {
    StreamDecoder decoder(nano());
    std::string out;
    for (const std::int32_t id : byte_tokens(nano(), bytes)) out += decoder.append(id);
    EXPECT_EQ(out + decoder.flush(), expected);
    EXPECT_EQ(nano().decode_utf8(byte_tokens(nano(), bytes)), expected);
  }
}

TEST(StreamDecoder, SkippedSpecialsDoNotBreakACharacter) {
  const auto bytes = byte_tokens(nano(), "\xC3\xA9");
  const auto shown = [&](bool skip_special) {
    StreamDecoder decoder(nano(), skip_special);
    std::string out;
    for (const std::int32_t id : {bytes[0], 4092, bytes[1]}) out += decoder.append(id);
    return out + decoder.flush();
  };
  EXPECT_EQ(shown(true), "\u00E9");
  EXPECT_EQ(shown(false), "\uFFFD<|end|>\uFFFD");
}

TEST(Tokenizer, LoadFindsTheFileOfAFolder) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(testing::TempDir()) / "gov_text_load";
  fs::remove_all(folder);
  fs::create_directories(folder);
  const std::string none = error_of(ErrorCode::kNotFound, [&] { (void)Tokenizer::load(folder); });
  EXPECT_NE(none.find("no tokenizer.json, vocab.json or .tiktoken file"), std::string::npos) << none;
  error_of(ErrorCode::kNotFound, [&] { (void)Tokenizer::load(folder / "tokenizer.json"); });
  fs::copy_file(data_path("partial/vocab.json"), folder / "vocab.json");
  const std::string merges = error_of(ErrorCode::kNotFound, [&] { (void)Tokenizer::load(folder); });
  EXPECT_NE(merges.find("merges.txt"), std::string::npos) << merges;
  fs::copy_file(data_path("partial/merges.txt"), folder / "merges.txt");
  EXPECT_EQ(Tokenizer::load(folder).vocab_size(), partial().vocab_size());
  EXPECT_EQ(Tokenizer::load(folder / "vocab.json").vocab_size(), partial().vocab_size());
  std::ofstream(folder / "tokenizer.json") << "{}";
  const std::string broken = error_of(ErrorCode::kCorrupt, [&] { (void)Tokenizer::load(folder); });
  EXPECT_NE(broken.find("tokenizer.json"), std::string::npos) << broken;
  fs::copy_file(data_path("small_tokenizer.json"), folder / "tokenizer.json", fs::copy_options::overwrite_existing);
  EXPECT_EQ(Tokenizer::load(folder).vocab_size(), small().vocab_size());
  fs::create_directories(folder / "directory.tiktoken");
  fs::remove_all(folder);
}

TEST(Tokenizer, CancelStopsALongText) {
  std::atomic<bool> cancel{true};
  error_of(ErrorCode::kCancelled, [&] { (void)o200k().encode("words and words", SpecialTokens::kOrdinary, &cancel); });
  cancel = false;
  EXPECT_EQ(o200k().encode("hello world", SpecialTokens::kOrdinary, &cancel).size(), 2u);
}

TEST(ByteLevel, AlphabetIsGpt2s) {
  std::string bytes;
  for (int b = 0; b < 256; ++b) bytes += static_cast<char>(b);
  const std::string text = byte_level_from_bytes(bytes);
  EXPECT_EQ(bytes_from_byte_level(text), bytes);
  EXPECT_EQ(byte_level_from_bytes(" \n\xAD\x7F\xA0~!"), "ĠĊŃġł~!");
  EXPECT_EQ(bytes_from_byte_level("a b"), std::nullopt);
  EXPECT_EQ(bytes_from_byte_level("日"), std::nullopt);
}

TEST(Pretokenize, EveryScalarValueIsClassifiedAsInTheReference) {
  const auto probe = [](const std::string& c) {
    return c + "A" + c + "a" + c + "1" + c + c + " " + c + "\n" + c + "'" + c + "." + c + "B's" + c + "  " + c +
           "'\u017F";
  };
  const int rows = for_each_row("scalar_pieces.jsonl", [&](simdjson::dom::object row) {
    const SplitPattern pattern = string_of(row, "pattern") == "gpt2" ? SplitPattern::kGpt2 : SplitPattern::kO200k;
    const simdjson::dom::array hashes = row["hashes"].get_array();
    ASSERT_EQ(hashes.size(), 136u);
    for (char32_t block = 0; block < 136; ++block) {
      std::uint64_t hash = kFnvStart;
      for (char32_t c = block * 0x2000; c < (block + 1) * 0x2000; ++c) {
        if (c >= 0xD800 && c < 0xE000) continue;
        std::string one;
        utf8_append(one, c);
        const std::string text = probe(one);
        for (std::size_t at = 0; at < text.size();) {
          const std::size_t end = next_piece(pattern, text, at);
          hash = fnv1a(hash, static_cast<std::uint8_t>(end - at));
          at = end;
        }
      }
      EXPECT_EQ(fmt::format("{:016x}", hash), std::string_view(hashes.at(block)))
          << string_of(row, "pattern") << " " << static_cast<std::uint32_t>(block);
    }
  });
  EXPECT_EQ(rows, 2);
}

}  // namespace
}  // namespace gov
