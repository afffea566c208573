// .tiktoken rank files: "base64 rank" lines. tiktoken merges the pair whose joined bytes have the lowest rank, so every
// way to cut a token into two tokens is a merge with the token's own rank.

#include <charconv>
#include <string>
#include <utility>

#include "base/base64.h"
#include "base/error.h"
#include "text/tokenizer_data.h"

namespace gov {
namespace {

constexpr std::size_t kMaxRankTokenBytes = 256;            // o200k's longest has 128; bounds the search for cuts
constexpr std::size_t kMaxRankFileTokenBytes = 64u << 20;  // of all tokens together
constexpr std::size_t kMaxMerges = 64u << 20;
constexpr std::int32_t kO200kRanks = 199998;
constexpr std::int32_t kCl100kRanks = 100256;
constexpr std::int32_t kHarmonySize = 201088;

void read_ranks(std::string_view text, Vocabulary& vocabulary) {
  std::string bytes;
  std::size_t line_number = 0, total = 0, count = 0;
  while (!text.empty()) {
    ++line_number;
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const std::size_t space = std::min(line.find(' '), line.size());
    std::int32_t rank = -1;
    const std::string_view digits = line.substr(std::min(space + 1, line.size()));
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
    if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size() || rank < 0) {
      fail(ErrorCode::kCorrupt, "tiktoken ranks: line {} is not \"base64 rank\": {}", line_number, printable(line, 60));
    }
    if (!base64_decode(line.substr(0, space), bytes)) {
      fail(ErrorCode::kCorrupt, "tiktoken ranks: line {}: not valid base64", line_number);
    }
    total += bytes.size();
    if (bytes.size() > kMaxRankTokenBytes || total > kMaxRankFileTokenBytes) {
      fail(ErrorCode::kCorrupt, "tiktoken ranks: line {}: token of {} bytes, or {} bytes in all, is too long",
           line_number, bytes.size(), total);
    }
    vocabulary.add(rank, bytes, TokenKind::kBytes);
    ++count;
  }
  if (count != static_cast<std::size_t>(vocabulary.size())) {
    fail(ErrorCode::kCorrupt, "tiktoken ranks: {} tokens with ranks up to {}: some rank is missing", count,
         vocabulary.size() - 1);
  }
}

void find_merges(TokenizerData& data) {
  const Vocabulary& vocabulary = data.vocabulary;
  data.bpe.merges.reserve(static_cast<std::size_t>(vocabulary.size()) * 4);
  for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string_view token = vocabulary.bytes(id);
    for (std::size_t cut = 1; cut < token.size(); ++cut) {
      const std::int32_t left = vocabulary.find(token.substr(0, cut));
      const std::int32_t right = left < 0 ? -1 : vocabulary.find(token.substr(cut));
      if (right >= 0) data.bpe.merges.set(left, right, {static_cast<std::uint32_t>(id), id});
    }
    if (data.bpe.merges.size() > kMaxMerges) {
      fail(ErrorCode::kCorrupt, "tiktoken ranks: more than {} ways to merge", kMaxMerges);
    }
  }
}

void add_harmony_tokens(TokenizerData& data) {
  const std::pair<std::int32_t, std::string_view> named[] = {
      {199998, "<|startoftext|>"}, {199999, "<|endoftext|>"}, {200002, "<|return|>"},
      {200003, "<|constrain|>"},   {200005, "<|channel|>"},   {200006, "<|start|>"},
      {200007, "<|end|>"},         {200008, "<|message|>"},   {200012, "<|call|>"},
  };
  std::size_t next = 0;
  for (std::int32_t id = kO200kRanks; id < kHarmonySize; ++id) {
    const bool has_name = next < std::size(named) && named[next].first == id;
    std::string content = has_name ? std::string(named[next++].second) : fmt::format("<|reserved_{}|>", id);
    data.vocabulary.add(id, content, TokenKind::kAdded);
    data.vocabulary.set_special(id);
    data.added.add({.id = id, .content = std::move(content)});
  }
  data.added.add({.id = 200018, .content = "<|endofprompt|>"});  // tiktoken's second text for it
}

}  // namespace

TokenizerData read_tiktoken(std::string_view ranks, SplitPattern pattern) {
  TokenizerData data;
  data.pattern = pattern;
  data.whole_piece_first = true;
  read_ranks(ranks, data.vocabulary);
  data.find_byte_tokens();
  if (!data.has_all_bytes) fail(ErrorCode::kCorrupt, "tiktoken ranks: some of the 256 single bytes have no rank");
  if (data.vocabulary.size() == kCl100kRanks && pattern == SplitPattern::kO200k) {
    fail(ErrorCode::kUnsupported, "tiktoken ranks: {} ranks are cl100k_base's, whose pattern is not supported",
         kCl100kRanks);
  }
  find_merges(data);
  if (data.vocabulary.size() == kO200kRanks) add_harmony_tokens(data);
  return data;
}

}  // namespace gov
