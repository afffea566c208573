#pragma once
// Splits text into the pieces that byte-level BPE works on. Two patterns are known, both written by hand over the
// Unicode class table; no regular expression from a file is ever run. Time is linear in the length of the text.

#include <cstddef>
#include <optional>
#include <string_view>

namespace gov {

enum class SplitPattern {
  kO200k,  // tiktoken's o200k_base / o200k_harmony
  kGpt2,   // GPT-2's, also the built-in one of the Hugging Face ByteLevel pre-tokenizer
};

// The pattern's text as it stands in a tokenizer.json.
std::string_view split_pattern_text(SplitPattern pattern);
// The pattern with exactly this text, byte for byte; empty for any other.
std::optional<SplitPattern> find_split_pattern(std::string_view text);

// End of the piece that starts at `begin` (begin < text.size()); always > begin, so the pieces cover the text.
// `text` must be valid UTF-8 and `begin` a character boundary.
std::size_t next_piece(SplitPattern pattern, std::string_view text, std::size_t begin);

}  // namespace gov
