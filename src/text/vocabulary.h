#pragma once
// Tokens by id, and ordinary (byte) tokens by their bytes.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gov {

inline constexpr std::int32_t kMaxTokenIds = 4 << 20;           // ids below this
inline constexpr std::size_t kMaxTokenBytes = 64u << 10;        // of one token
inline constexpr std::size_t kMaxVocabularyBytes = 256u << 20;  // of all tokens

enum class TokenKind : std::uint8_t {
  kAbsent,  // a gap in the ids
  kBytes,   // an ordinary token, found by its bytes
  kRaw,     // a vocabulary entry that no text can produce (not in the byte-level alphabet)
  kAdded,   // a special or added token outside the BPE vocabulary, matched as text
};

class Vocabulary {
 public:
  // Adds a token. Error kCorrupt: id out of range or used twice, empty or too long token, bytes used twice by kBytes.
  void add(std::int32_t id, std::string_view bytes, TokenKind kind);
  void set_special(std::int32_t id) { entries_[static_cast<std::size_t>(id)].special = true; }

  // Id of the ordinary token with these bytes, or -1.
  std::int32_t find(std::string_view bytes) const;
  std::string_view bytes(std::int32_t id) const {
    const Entry& e = entries_[static_cast<std::size_t>(id)];
    return std::string_view(bytes_).substr(e.begin, e.length);
  }
  std::size_t length(std::int32_t id) const { return entries_[static_cast<std::size_t>(id)].length; }
  TokenKind kind(std::int32_t id) const { return entries_[static_cast<std::size_t>(id)].kind; }
  bool special(std::int32_t id) const { return entries_[static_cast<std::size_t>(id)].special; }
  bool contains(std::int32_t id) const { return id >= 0 && id < size() && kind(id) != TokenKind::kAbsent; }
  std::int32_t size() const { return static_cast<std::int32_t>(entries_.size()); }  // one past the largest id
  std::size_t longest() const { return longest_; }  // bytes of the longest ordinary token

 private:
  struct Entry {
    std::uint32_t begin = 0, length = 0;
    TokenKind kind = TokenKind::kAbsent;
    bool special = false;
  };
  std::size_t slot_of(std::string_view bytes) const;  // where these bytes are, or the free slot where they belong
  void grow();

  std::string bytes_;  // of all tokens, one after the other
  std::vector<Entry> entries_;
  std::vector<std::int32_t> slots_;  // open addressing, power of two, -1 free; ordinary tokens only
  std::size_t used_slots_ = 0, longest_ = 0;
};

}  // namespace gov
