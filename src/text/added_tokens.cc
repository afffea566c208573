#include "text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "text/unicode_class.h"

namespace gov {
namespace {

bool is_space(char32_t c) { return in_classes(char_class(c), class_bits(CharClass::kSpace, CharClass::kNewline)); }

// Start of the white space at the end of `text`.
std::size_t trailing_space(std::string_view text) {
  std::size_t at = text.size();
  while (at > 0) {
    std::size_t start = at - 1;
    while (start > 0 && at - start < 4 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    const Utf8Char c = utf8_next(text.substr(start, at - start));
    if (!c.valid || c.length != at - start || !is_space(c.code_point)) break;
    at = start;
  }
  return at;
}

// Length of the white space at the start of `text`.
std::size_t leading_space(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const Utf8Char c = utf8_next(text.substr(at));
    if (!c.valid || !is_space(c.code_point)) break;
    at += c.length;
  }
  return at;
}

}  // namespace

void AddedTokens::add(AddedToken token) {
  if (token.content.empty()) fail(ErrorCode::kCorrupt, "tokenizer: added token {} is empty", token.id);
  if (token.content.size() > kMaxAddedTokenBytes) {
    fail(ErrorCode::kCorrupt, "tokenizer: added token {} has {} bytes, at most {} are allowed", token.id,
         token.content.size(), kMaxAddedTokenBytes);
  }
  total_bytes_ += token.content.size();
  if (tokens_.size() >= kMaxAddedTokens || total_bytes_ > kMaxAddedTokensBytes) {
    fail(ErrorCode::kCorrupt, "tokenizer: more than {} added tokens, or more than {} bytes of them", kMaxAddedTokens,
         kMaxAddedTokensBytes);
  }
  if (!by_content_.try_emplace(token.content, tokens_.size()).second) {
    fail(ErrorCode::kCorrupt, "tokenizer: added token \"{}\" stands twice", printable(token.content, 40));
  }
  Trie& trie = tries_[token.normalized];
  std::uint32_t node = 0;
  for (const char c : token.content) {
    const auto byte = static_cast<unsigned char>(c);
    const auto [edge, is_new] =
        trie.edges.try_emplace((std::uint64_t{node} << 8) | byte, static_cast<std::uint32_t>(trie.token.size()));
    if (is_new) trie.token.push_back(-1);
    node = edge->second;
  }
  trie.token[node] = static_cast<std::int32_t>(tokens_.size());
  trie.starts[static_cast<unsigned char>(token.content[0])] = true;
  trie.has_ordinary = trie.has_ordinary || !token.special;
  tokens_.push_back(std::move(token));
}

std::int32_t AddedTokens::find_special(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  if (found == by_content_.end() || !tokens_[found->second].special) return -1;
  return tokens_[found->second].id;
}

const AddedToken* AddedTokens::longest_match(std::string_view text, const Trie& trie) const {
  std::int32_t best = -1;
  std::uint32_t node = 0;
  for (const char c : text) {
    const auto edge = trie.edges.find((std::uint64_t{node} << 8) | static_cast<unsigned char>(c));
    if (edge == trie.edges.end()) break;
    node = edge->second;
    if (trie.token[node] >= 0) best = trie.token[node];
  }
  return best < 0 ? nullptr : &tokens_[static_cast<std::size_t>(best)];
}

void AddedTokens::split_one(std::string_view text, TextSegment segment, const Trie& trie, SpecialTokens mode,
                            std::vector<TextSegment>& out) const {
  // The reference looks at a segment by itself: white space is not taken from beyond it.
  const std::string_view part = text.substr(segment.begin, segment.end - segment.begin);
  const auto emit = [&](std::int32_t id, std::size_t begin, std::size_t end) {
    if (begin < end) out.push_back({id, segment.begin + begin, segment.begin + end});
  };
  std::size_t done = 0;
  for (std::size_t at = 0; at < part.size();) {
    const AddedToken* token =
        trie.starts[static_cast<unsigned char>(part[at])] ? longest_match(part.substr(at), trie) : nullptr;
    if (!token) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + token->content.size();
    at = end;
    if (token->special) {
      // As in the reference, a special token that is not wanted still hides what lies inside it.
      if (mode == SpecialTokens::kOrdinary) continue;
      if (mode == SpecialTokens::kRefuse) {
        fail(ErrorCode::kInvalidArgument, "the text holds the special token \"{}\" at byte {}",
             printable(token->content, 60), segment.begin + begin);
      }
    }
    if (token->lstrip) begin = std::max(done, trailing_space(part.substr(0, begin)));
    if (token->rstrip) end += leading_space(part.substr(end));
    emit(-1, done, begin);
    emit(token->id, begin, end);
    done = at = end;
  }
  emit(-1, done, part.size());
}

std::vector<TextSegment> AddedTokens::split(std::string_view text, SpecialTokens mode) const {
  std::vector<TextSegment> segments;
  if (!text.empty()) segments.push_back({-1, 0, text.size()});
  for (const Trie& trie : tries_) {
    if (trie.token.size() == 1 || (mode == SpecialTokens::kOrdinary && !trie.has_ordinary)) continue;
    std::vector<TextSegment> next;
    for (const TextSegment& segment : segments) {
      if (segment.id >= 0) next.push_back(segment);
      else split_one(text, segment, trie, mode, next);
    }
    segments = std::move(next);
  }
  return segments;
}

}  // namespace gov
