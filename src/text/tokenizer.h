#pragma once
// Byte-level BPE: text to token ids and back, exactly as `tokenizers` (Hugging Face) and `tiktoken` (OpenAI) do it.
// Time and memory are linear in the length of the text. A Tokenizer is immutable and cheap to copy; all its functions
// may be called from several threads at once. No beginning-of-text token is ever added, and a file's post-processor,
// truncation and padding sections are not applied: what a prompt looks like is chat.h's matter, padding is padding.h's.

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/pretokenize.h"

namespace gov {

struct TokenizerData;

// A token and the bytes of the input that it stands for. Spans are in order and do not overlap; they cover the input,
// except for bytes that the vocabulary has no token for (an incomplete byte alphabet; such bytes give no token, as in
// `tokenizers`). An added token's span includes the white space it strips; a space put in front of the text has no
// bytes.
struct TokenSpan {
  std::int32_t id;
  std::size_t begin, end;
  friend bool operator==(const TokenSpan&, const TokenSpan&) = default;
};

class Tokenizer {
 public:
  // tokenizer.json | vocab.json (with merges.txt beside it) | *.tiktoken | a folder with one of them, sought in this
  // order. Errors: kNotFound, kIo, kCorrupt, kUnsupported. Files of more than 256 MiB are refused.
  static Tokenizer load(const std::filesystem::path& file_or_folder);

  // The text of a tokenizer.json with a BPE model: normalizer null; pre-tokenizer ByteLevel with its own pattern
  // (GPT-2's), or Sequence of Split (o200k's or GPT-2's pattern, byte for byte) and ByteLevel. Anything else that would
  // change ids (dropout, single_word, another pattern, ...) is refused by name with kUnsupported.
  static Tokenizer from_json(std::string_view json);

  // GPT-2's two files: its pattern, and <|endoftext|> as special token where the vocabulary has it.
  static Tokenizer from_vocab_and_merges(std::string_view vocab_json, std::string_view merges);

  // Lines of "base64-of-the-token rank"; the ranks must be 0..n-1, each once, and hold all 256 bytes. A file with
  // o200k's 199,998 ranks gets the special tokens of o200k_harmony (ids 199998..201087; <|endofprompt|> is a second
  // text for 200018). cl100k_base is refused: its pattern is another one.
  static Tokenizer from_tiktoken(std::string_view ranks, SplitPattern pattern = SplitPattern::kO200k);

  // Ids of `text`. Bytes that are not UTF-8 are kept: as in tiktoken, the pieces end with the last one before the first
  // invalid byte, and what follows is merged as one piece. When `cancel` is set during the call: Error kCancelled.
  std::vector<std::int32_t> encode(std::string_view text, SpecialTokens special = SpecialTokens::kOrdinary,
                                   const std::atomic<bool>* cancel = nullptr) const;
  std::vector<TokenSpan> encode_with_offsets(std::string_view text, SpecialTokens special = SpecialTokens::kOrdinary,
                                             const std::atomic<bool>* cancel = nullptr) const;

  // The tokens' bytes joined, invalid UTF-8 kept as it is. An id without token: Error kInvalidArgument.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const;
  // The same as valid UTF-8: every maximal invalid sequence becomes U+FFFD.
  std::string decode_utf8(std::span<const std::int32_t> ids, bool skip_special = false) const;

  std::string_view token_bytes(std::int32_t id) const;  // id without token: Error kInvalidArgument
  bool has_token(std::int32_t id) const;
  bool is_special(std::int32_t id) const;  // false for an id without token
  std::optional<std::int32_t> find_special(std::string_view text) const;
  // The ordinary token of exactly these bytes.
  std::optional<std::int32_t> find_token(std::string_view bytes) const;
  std::int32_t vocab_size() const;  // one past the largest id; ids in between may be without token
  SplitPattern pattern() const;

  // What `make` returns, made at the first call and then kept with the shared data (token_constraint.cc's tables).
  std::shared_ptr<const void> derived(const std::function<std::shared_ptr<const void>()>& make) const;

 private:
  explicit Tokenizer(std::shared_ptr<const TokenizerData> data) : data_(std::move(data)) {}
  std::shared_ptr<const TokenizerData> data_;
};

// Text of a token stream as it comes in: whole UTF-8 characters only, the rest waits for the next token. What append
// and flush return, joined, equals decode_utf8 of all ids.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}
  std::string append(std::int32_t id);  // id without token: Error kInvalidArgument
  std::string flush();                  // what waited, as U+FFFD; the decoder can then be used anew
  bool has_pending() const { return !pending_.empty(); }

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  std::string pending_;  // at most 3 bytes: the start of a character
};

}  // namespace gov
