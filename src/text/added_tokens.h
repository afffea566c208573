#pragma once
// Special and added tokens: texts that become one id before the byte-pair encoding sees them. Matching is that of the
// Hugging Face `tokenizers` library: tokens with normalized=false first over the whole text, then the others in what is
// left, each time the leftmost and at one place the longest.

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace gov {

// What an encode call does with text that reads like a special token.
enum class SpecialTokens {
  kOrdinary,  // it is ordinary text
  kAllow,     // it becomes the token's id
  kRefuse,    // Error kInvalidArgument
};

struct AddedToken {
  std::int32_t id;
  std::string content;      // 1 to kMaxAddedTokenBytes bytes
  bool special = true;      // only special tokens obey SpecialTokens; others always match
  bool normalized = false;  // matched in the second round
  bool lstrip = false;      // takes the white space on its left with it
  bool rstrip = false;
};

inline constexpr std::size_t kMaxAddedTokenBytes = 1024;
inline constexpr std::size_t kMaxAddedTokens = 1u << 16;
inline constexpr std::size_t kMaxAddedTokensBytes = 2u << 20;  // of all together

// A stretch of the text: an added token's id, or -1 for ordinary text.
struct TextSegment {
  std::int32_t id;
  std::size_t begin, end;
};

class AddedTokens {
 public:
  // Error kCorrupt: too long, too many, or the content stands there already.
  void add(AddedToken token);

  // The text as segments in order, none of them empty. Valid UTF-8 is not required.
  std::vector<TextSegment> split(std::string_view text, SpecialTokens mode) const;
  // Id of the special token with exactly this text, or -1.
  std::int32_t find_special(std::string_view content) const;
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  struct Trie {
    std::unordered_map<std::uint64_t, std::uint32_t> edges;  // (node << 8 | byte) -> node; node 0 is the root
    std::vector<std::int32_t> token = {-1};                  // per node: index in tokens_ of the text that ends there
    bool starts[256] = {};                                   // bytes that leave the root
    bool has_ordinary = false;                               // holds a token that is not special
  };
  void split_one(std::string_view text, TextSegment segment, const Trie& trie, SpecialTokens mode,
                 std::vector<TextSegment>& out) const;
  const AddedToken* longest_match(std::string_view text, const Trie& trie) const;

  std::vector<AddedToken> tokens_;
  std::size_t total_bytes_ = 0;
  std::unordered_map<std::string, std::size_t> by_content_;
  Trie tries_[2];  // normalized = false, true
};

}  // namespace gov
